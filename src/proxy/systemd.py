"""Tell a supervisor how we are doing: the notification protocol of sd_notify(3)."""

import os
import socket

_TIMEOUT_SECONDS = 2.0


def notify(state: str) -> bool:
    """Send a state, such as ``READY=1`` or ``STOPPING=1``, to the supervisor named by ``NOTIFY_SOCKET``.

    :returns: whether there is one and it took the message. A failure is not an error: nobody may be listening.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_TIMEOUT_SECONDS)
            sock.sendto(state.encode(), address)
    except OSError:
        return False
    return True
