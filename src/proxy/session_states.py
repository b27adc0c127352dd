"""Names for where a client's connection stands, and for how and why it is closed."""

from enum import IntEnum
from typing import Final

__all__ = [
    "CODE_GOING_AWAY",
    "CODE_NORMAL",
    "CODE_PROTOCOL_ERROR",
    "CODE_SERVICE_RESTART",
    "CODE_TOO_BIG",
    "GOODBYE_AND_OUT",
    "PROTOCOL_VIOLATION",
    "SYSTEM_SHUTDOWN",
    "TRANSPORT_LOST",
    "State",
]

# WebSocket close codes (RFC 6455 7.4.1 and the IANA registry).
CODE_NORMAL: Final = 1000
CODE_GOING_AWAY: Final = 1001
CODE_PROTOCOL_ERROR: Final = 1002
CODE_TOO_BIG: Final = 1009
CODE_SERVICE_RESTART: Final = 1012

# Reasons of GOODBYE and ABORT.
PROTOCOL_VIOLATION: Final = "wamp.error.protocol_violation"
GOODBYE_AND_OUT: Final = "wamp.close.goodbye_and_out"
SYSTEM_SHUTDOWN: Final = "wamp.close.system_shutdown"
# What clients take for an accident, after which they come again; "wamp.close.normal" would make them stay away.
TRANSPORT_LOST: Final = "wamp.close.transport_lost"


class State(IntEnum):
    """Where a client's connection stands."""

    HANDSHAKE = 1
    """Transport handshake."""
    OPEN = 2
    """No session; HELLO is awaited."""
    JOINING = 3
    """A router is being joined; nothing is read from the client."""
    ESTABLISHED = 4
    """Linked to the router."""
    LEAVING = 5
    """The client said GOODBYE, the router has not answered yet."""
    DISMISSED = 6
    """GOODBYE went to the client, its answer is awaited."""
    CLOSING = 7
    """The transport is being closed."""
    CLOSED = 8
    """It is gone."""
    AUTHENTICATING = 9
    """An authenticator is at work; nothing is read from the client."""
    CHALLENGED = 10
    """CHALLENGE went to the client, AUTHENTICATE is awaited."""
