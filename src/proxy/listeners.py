"""Listening sockets: made here with every option set, then handed to the data plane.

All options that accepted sockets inherit on Linux are set on the listener, once, instead of on each connection.
"""

import errno
import fcntl
import grp
import ipaddress
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from proxy.config import TcpEndpoint, UnixEndpoint
from proxy.errors import CannotListen

__all__ = [
    "adopt_listener",
    "is_at",
    "open_listener",
    "release_unix",
    "set_client_options",
    "stir_listener",
    "unix_identity",
]

KEEPALIVE_IDLE_SECONDS: Final = 60
KEEPALIVE_INTERVAL_SECONDS: Final = 15
KEEPALIVE_PROBES: Final = 4
"""A peer that vanished without a word is noticed after 60 + 4 * 15 seconds of silence, not after two hours."""

_PROBE_SECONDS: Final = 1.0
_LOCK_SECONDS: Final = 2.0
_LOCK_POLL_SECONDS: Final = 0.01

Identity = tuple[int, int]
"""Device and inode of a socket file."""


def open_listener(
    endpoint: TcpEndpoint | UnixEndpoint, *, nodelay: bool = True, beside: Iterable[socket.socket] = ()
) -> socket.socket:
    """Make a listening socket.

    :param endpoint: of a listening transport.
    :param nodelay: TCP_NODELAY for the accepted connections.
    :param beside: listening sockets of this process that are about to be closed: where the addresses overlap, as those
        of one interface and of all of them do, the new one may be opened before they are closed.
    :returns: bound, listening, non-blocking, not inherited by child processes. The caller owns it.
    :raises CannotListen: with a text that names the address and what is wrong with it.
    """
    if isinstance(endpoint, UnixEndpoint):
        return _open_unix(endpoint)
    others = [other for other in beside if other.family in (socket.AF_INET, socket.AF_INET6)]
    if not others:
        return _open_tcp(endpoint, nodelay)
    with _all_shared(others):
        listener = _open_tcp(endpoint.model_copy(update={"shared": True}), nodelay)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(endpoint.shared))
    return listener


def adopt_listener(listener: socket.socket, endpoint: TcpEndpoint | UnixEndpoint, *, nodelay: bool = True) -> None:
    """Set the options of an endpoint on a socket that listens at its address already.

    :param listener: see :func:`is_at`.
    :param endpoint: of a listening transport.
    :param nodelay: TCP_NODELAY for the connections that are accepted from now on.
    :raises OSError: the system refuses.
    """
    if isinstance(endpoint, TcpEndpoint):
        _set_tcp_options(listener, endpoint, nodelay)
    else:
        _set_access(endpoint)
    listener.listen(endpoint.backlog)


def stir_listener(listener: socket.socket) -> None:
    """Have whoever waits for clients at a socket look at it once more, by being one for a moment.

    Each client wakes one of those who wait. One that came while a descriptor of the socket was about to be closed may
    have woken somebody who then left, and would wait until the next client comes.
    """
    with socket.socket(listener.family, listener.type) as client:
        client.setblocking(False)
        try:
            client.connect(listener.getsockname())
        except OSError:
            pass  # under way, or so many wait already that the next one comes soon


def is_at(listener: socket.socket, endpoint: TcpEndpoint | UnixEndpoint) -> bool:
    """Whether a socket listens where an endpoint is to be.

    :param listener: listening.
    :param endpoint: one whose interface is a literal address, where it has one. Port 0 is any port.
    """
    name = listener.getsockname()
    if isinstance(endpoint, UnixEndpoint):
        path = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
        return listener.family == socket.AF_UNIX and path == endpoint.path
    if listener.family != (socket.AF_INET6 if endpoint.version == 6 else socket.AF_INET):
        return False
    first, last = endpoint.portrange or (endpoint.port or 0, endpoint.port or 65535)
    everywhere = "::" if endpoint.version == 6 else "0.0.0.0"
    return first <= name[1] <= last and _literal(name[0]) == _literal(_host(endpoint) or everywhere)


# --- TCP ---------------------------------------------------------------------------------------------------------


def _open_tcp(endpoint: TcpEndpoint, nodelay: bool) -> socket.socket:
    if endpoint.portrange is None:
        first = last = endpoint.port or 0
    else:
        first, last = endpoint.portrange
    for port in range(first, last + 1):
        name = _tcp_name(endpoint, port)
        family, address = _tcp_address(endpoint, port, name)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if endpoint.version == 6:
                # Else a version 6 transport would take the port from a version 4 one, depending on a sysctl.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _set_tcp_options(listener, endpoint, nodelay)
            listener.bind(address)
            listener.listen(endpoint.backlog)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or first == last:
                raise CannotListen(f"cannot listen on {name}: {_reason(error, port)}") from error
        except BaseException:
            listener.close()
            raise
        else:
            return listener
    raise CannotListen(f"cannot listen on {_tcp_name(endpoint, first)} to {last}: all of these ports are in use")


def _tcp_name(endpoint: TcpEndpoint, port: int) -> str:
    return f"tcp{endpoint.version} interface {endpoint.interface or 'any'}, port {port}"


def _tcp_address(endpoint: TcpEndpoint, port: int, name: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    family = socket.AF_INET6 if endpoint.version == 6 else socket.AF_INET
    host = _host(endpoint)
    try:
        # A name is looked up in place: this happens once, before the transport exists, and takes localhost, mostly.
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        kind = f"an IPv{endpoint.version} address of this machine"
        raise CannotListen(f"cannot listen on {name}: expected the interface to be {kind} ({error})") from error
    return family, found[0][4]


def _host(endpoint: TcpEndpoint) -> str | None:
    return (endpoint.interface or "").strip().removeprefix("[").removesuffix("]") or None


def _literal(host: str) -> object:
    """Something that compares as addresses do, however they are written; the name itself where it is no address."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return host


@contextmanager
def _all_shared(listeners: list[socket.socket]) -> Iterator[None]:
    """Let others bind to these sockets' ports for as long as it takes."""
    before = [(item, item.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) for item in listeners]
    try:
        for item in listeners:
            item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
    finally:
        for item, value in before:
            item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)


def _set_tcp_options(listener: socket.socket, endpoint: TcpEndpoint, nodelay: bool) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for TIME_WAIT
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(endpoint.shared))
    set_client_options(listener, nodelay)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, endpoint.user_timeout or 0)


def set_client_options(connection: socket.socket, nodelay: bool = True) -> None:
    """What every client's TCP connection has. One that is accepted has it from its listening socket.

    :param connection: or a listening socket.
    :param nodelay: TCP_NODELAY.
    """
    tcp = socket.IPPROTO_TCP
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(tcp, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    connection.setsockopt(tcp, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    connection.setsockopt(tcp, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    connection.setsockopt(tcp, socket.TCP_NODELAY, int(nodelay))


def _reason(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another socket"
    if error.errno == errno.EACCES and 0 < port < 1024:
        return "not permitted (ports below 1024 need the capability CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "the interface is not an address of this machine"
    return os.strerror(error.errno) if error.errno else str(error)


# --- Unix sockets ------------------------------------------------------------------------------------------------


def _user_id(user: int | str) -> int:
    """:raises OSError: there is no such user."""
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no user {user!r}") from None


def _group_id(group: int | str) -> int:
    """:raises OSError: there is no such group."""
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.ENOENT, f"there is no group {group!r}") from None


def _set_access(endpoint: UnixEndpoint) -> None:
    """Give the file of a socket its owner, group and mode.

    :raises OSError: the system refuses: only root gives a file away, and others only to groups that they belong to.
    """
    if endpoint.path.startswith("\0") or (endpoint.mode, endpoint.owner, endpoint.group) == (None, None, None):
        return  # there is no file, or nothing to set
    owner = -1 if endpoint.owner is None else _user_id(endpoint.owner)  # -1: unchanged
    group = -1 if endpoint.group is None else _group_id(endpoint.group)
    # The file itself is held on to: whoever may write to its folder could put a link to another file in its place,
    # between two looks at the path.
    file = os.open(endpoint.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISSOCK(mode):
            raise OSError(errno.ENOTSOCK, "there is something else in the place of its file")
        held = f"/proc/self/fd/{file}"
        if endpoint.mode is not None and mode & ~endpoint.mode & 0o777:
            os.chmod(held, mode & endpoint.mode & 0o777)  # a new group must not have what the old one had
        if owner != -1 or group != -1:
            os.chown(held, owner, group)
        if endpoint.mode is not None:
            os.chmod(held, endpoint.mode)
    finally:
        os.close(file)


def _open_unix(endpoint: UnixEndpoint) -> socket.socket:
    path = endpoint.path
    name = f"unix socket {path!r}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked_folder(path, name):
            _remove_stale(path, name)
            if endpoint.mode is not None:
                os.fchmod(listener.fileno(), endpoint.mode)  # bind() makes the file with it, less the umask
            listener.bind(path)
            try:
                _set_access(endpoint)  # nobody can connect yet: it does not listen
            except OSError:
                os.unlink(path)
                raise
            # Within the lock: a socket that is bound and does not listen yet looks stale to everybody else.
            listener.listen(endpoint.backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno is None:  # Python's own check of the length
            text = "the path is too long for a Unix socket (at most 107 octets)"
        else:
            text = error.strerror or os.strerror(error.errno)
        raise CannotListen(f"cannot listen on {name}: {text}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def unix_identity(path: str) -> Identity | None:
    """Device and inode of a socket file, to be remembered right after :func:`open_listener` for :func:`release_unix`.

    :returns: None for a name in the abstract namespace, or where there is no such file.
    """
    if path.startswith("\0"):
        return None
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def release_unix(path: str, identity: Identity | None) -> bool:
    """Remove our own socket file, if it is still ours.

    To be called while the socket is still open: that keeps its inode number from being given to another file, and no
    client meets a file that nobody listens on.

    :param path: as given to :func:`open_listener`.
    :param identity: as returned by :func:`unix_identity` then.
    :returns: whether the file was removed.
    """
    if identity is None:
        return False
    try:
        with _locked_folder(path, f"unix socket {path!r}"):
            if unix_identity(path) != identity:
                return False
            os.unlink(path)
    except (OSError, CannotListen):
        return False  # a stale file is left behind; the next start removes it
    return True


def _remove_stale(path: str, name: str) -> None:
    """Remove a socket file that nobody listens on; anything else that lies at ``path`` is an error."""
    if path.startswith("\0"):
        return
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"cannot listen on {name}: there is something that is not a socket, it is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass  # nobody listens
        except FileNotFoundError:
            return
        except OSError as error:
            # BlockingIOError and a timeout: somebody listens and is busy. Else we cannot know, so it stays.
            raise CannotListen(f"cannot listen on {name}: it is in use, or cannot be probed ({error})") from error
        else:
            raise CannotListen(f"cannot listen on {name}: it is in use by another process")
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # somebody else was faster


@contextmanager
def _locked_folder(path: str, name: str) -> Iterator[None]:
    """Hold a lock on the folder of a socket file.

    Two starts at the same time could otherwise both find a stale file, and the second to remove it would remove the
    first one's new socket. The folder itself is locked, so that no lock file is left behind.
    """
    if path.startswith("\0"):
        yield
        return
    folder = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(folder, name)
        yield
    finally:
        os.close(folder)  # which gives up the lock


def _lock(folder: int, name: str) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise CannotListen(f"cannot listen on {name}: another process keeps its folder locked") from error
            time.sleep(_LOCK_POLL_SECONDS)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
                return  # a file system without locks: two starts at the very same time are on their own
            raise
        else:
            return
