"""Listening sockets: options, ports, and socket files."""

import fcntl
import grp
import os
import pwd
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy import listeners
from proxy.config import TcpEndpoint, UnixEndpoint
from proxy.errors import CannotListen
from proxy.listeners import open_listener, release_unix, unix_identity

HAS_IPV6 = Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text() != ""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def tcp(**more: Any) -> TcpEndpoint:
    return TcpEndpoint(**{"type": "tcp", "port": 0, "interface": "127.0.0.1", **more})


def unix(path: Path, **more: Any) -> UnixEndpoint:
    return UnixEndpoint(**{"type": "unix", "path": str(path), **more})


def listen(stack: ExitStack, endpoint: TcpEndpoint | UnixEndpoint, **more: Any) -> socket.socket:
    return stack.enter_context(closing(open_listener(endpoint, **more)))


def connect(stack: ExitStack, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = stack.enter_context(closing(socket.socket(listener.family, socket.SOCK_STREAM)))
    client.settimeout(10)
    client.connect(listener.getsockname())
    listener.settimeout(10)
    return client, stack.enter_context(closing(listener.accept()[0]))


def option(sock: socket.socket, level: int, name: int) -> int:
    return sock.getsockopt(level, name)


# --- TCP ---------------------------------------------------------------------------------------------------------


def test_a_tcp_listener_accepts_and_its_connections_inherit_the_options(stack: ExitStack) -> None:
    listener = listen(stack, tcp(user_timeout=5000))
    assert not listener.getblocking()
    assert not listener.get_inheritable()
    _, accepted = connect(stack, listener)
    assert option(accepted, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert option(accepted, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert option(accepted, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == listeners.KEEPALIVE_IDLE_SECONDS
    assert option(accepted, socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == listeners.KEEPALIVE_INTERVAL_SECONDS
    assert option(accepted, socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == listeners.KEEPALIVE_PROBES
    assert option(accepted, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


def test_nodelay_can_be_turned_off(stack: ExitStack) -> None:
    _, accepted = connect(stack, listen(stack, tcp(), nodelay=False))
    assert option(accepted, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


def test_no_interface_means_all(stack: ExitStack) -> None:
    assert listen(stack, tcp(interface=None)).getsockname()[0] == "0.0.0.0"


def test_localhost_is_an_interface(stack: ExitStack) -> None:
    assert listen(stack, tcp(interface="localhost")).getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
def test_version_6_leaves_version_4_alone(stack: ExitStack) -> None:
    six = listen(stack, tcp(version=6, interface=None))
    assert six.getsockname()[0] == "::"
    four = listen(stack, tcp(port=six.getsockname()[1], interface=None))
    assert four.family == socket.AF_INET
    connect(stack, four)


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")
@pytest.mark.parametrize("interface", ["::1", "[::1]"])
def test_an_ipv6_interface(stack: ExitStack, interface: str) -> None:
    listener = listen(stack, tcp(version=6, interface=interface))
    assert listener.getsockname()[0] == "::1"
    connect(stack, listener)


def test_a_port_in_use_is_said_clearly(stack: ExitStack) -> None:
    port = listen(stack, tcp()).getsockname()[1]
    with pytest.raises(CannotListen, match=rf"tcp4 interface 127\.0\.0\.1, port {port}: the port is in use"):
        open_listener(tcp(port=port))


def test_shared_lets_several_listen(stack: ExitStack) -> None:
    port = listen(stack, tcp(shared=True)).getsockname()[1]
    assert listen(stack, tcp(port=port, shared=True)).getsockname()[1] == port
    with pytest.raises(CannotListen, match="in use"):
        open_listener(tcp(port=port))


def test_a_restart_need_not_wait_for_old_connections(stack: ExitStack) -> None:
    listener = listen(stack, tcp())
    port = listener.getsockname()[1]
    client, accepted = connect(stack, listener)
    accepted.close()  # the server's end goes first and is what stays in TIME_WAIT
    client.close()
    listener.close()
    assert listen(stack, tcp(port=port)).getsockname()[1] == port


def test_portrange_takes_the_first_free_port(stack: ExitStack) -> None:
    first = listen(stack, tcp()).getsockname()[1]
    endpoint = tcp(port=None, portrange=(first, min(first + 50, 65535)))
    assert first < listen(stack, endpoint).getsockname()[1] <= first + 50


def test_portrange_without_a_free_port(stack: ExitStack) -> None:
    port = listen(stack, tcp()).getsockname()[1]
    with pytest.raises(CannotListen, match="in use"):
        open_listener(tcp(port=None, portrange=(port, port)))


@pytest.mark.parametrize(
    ("interface", "version"), [("192.0.2.1", 4), ("no such host", 4), ("::1", 4), ("127.0.0.1", 6), ("a" * 300, 4)]
)
def test_an_interface_that_is_none(interface: str, version: int) -> None:
    with pytest.raises(CannotListen, match="interface"):
        open_listener(tcp(interface=interface, version=version))


# --- Unix sockets ------------------------------------------------------------------------------------------------


def stale(path: Path) -> None:
    """A socket file that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def test_a_unix_listener_accepts_and_the_file_follows_the_umask(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    old = os.umask(0o027)
    try:
        listener = listen(stack, unix(path))
    finally:
        os.umask(old)
    assert not listener.getblocking()
    assert not listener.get_inheritable()
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    connect(stack, listener)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_stale_file_is_replaced(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale(path)
    connect(stack, listen(stack, unix(path)))


def test_a_live_socket_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    live = listen(stack, unix(path))
    with pytest.raises(CannotListen, match="in use by another process"):
        open_listener(unix(path))
    connect(stack, live)


def test_a_live_socket_with_a_full_queue_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen(stack, unix(path, backlog=1))
    while True:
        client = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            break
    with pytest.raises(CannotListen, match="in use"):
        open_listener(unix(path))
    assert path.is_socket()


def test_a_socket_of_another_kind_is_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    datagrams = stack.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
    datagrams.bind(str(path))
    with pytest.raises(CannotListen):
        open_listener(unix(path))
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling", "fifo"])
def test_what_is_not_a_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    target = tmp_path / "target"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        stale(target)
        path.symlink_to(target)
    elif kind == "dangling":
        path.symlink_to(target)
    else:
        os.mkfifo(path)
    before = path.lstat()
    with pytest.raises(CannotListen, match="not a socket, it is left alone"):
        open_listener(unix(path))
    assert path.lstat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("name", "text"), [("no/such/folder/s", "No such file or directory"), ("f/s", "Not a directory")]
)
def test_a_path_that_cannot_be(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(CannotListen, match=text):
        open_listener(unix(tmp_path / name))


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    endpoint = UnixEndpoint.model_construct(type="unix", path=str(tmp_path / ("x" * 110)), backlog=50)
    with pytest.raises(CannotListen, match="too long for a Unix socket"):
        open_listener(endpoint)


def test_of_many_that_start_at_once_one_wins_and_stays(tmp_path: Path) -> None:
    for _ in range(20):
        path = tmp_path / "s"
        path.unlink(missing_ok=True)
        stale(path)
        won: list[socket.socket] = []
        lost: list[CannotListen] = []
        gate = threading.Barrier(6)

        def start(path: Path = path, won: list[Any] = won, lost: list[Any] = lost, gate: Any = gate) -> None:
            gate.wait()
            try:
                won.append(open_listener(unix(path)))
            except CannotListen as error:
                lost.append(error)

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with ExitStack() as stack:
            for listener in won:
                stack.enter_context(closing(listener))
            assert (len(won), len(lost)) == (1, 5)
            connect(stack, won[0])


def test_a_folder_locked_by_somebody_else_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "_LOCK_SECONDS", 0.05)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(CannotListen, match="keeps its folder locked"):
            open_listener(unix(tmp_path / "s"))
    finally:
        os.close(folder)


def test_our_socket_file_is_removed_at_the_end(stack: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen(stack, unix(path))
    identity = unix_identity(str(path))
    assert release_unix(str(path), identity)
    assert not path.exists()
    assert not release_unix(str(path), identity)


@pytest.mark.parametrize("successor", ["socket", "file", "none"])
def test_a_file_that_took_our_place_is_left_alone(stack: ExitStack, tmp_path: Path, successor: str) -> None:
    path = tmp_path / "s"
    listen(stack, unix(path))
    identity = unix_identity(str(path))
    path.unlink()
    if successor == "socket":
        listen(stack, unix(path))
    elif successor == "file":
        path.write_text("precious")
    assert not release_unix(str(path), identity)
    assert path.exists() == (successor != "none")


def test_no_descriptor_is_left_open_by_failures(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / "f").touch()
    before = count()
    for endpoint in (unix(tmp_path / "f"), unix(tmp_path / "no" / "s"), tcp(interface="192.0.2.1")):
        with pytest.raises(CannotListen):
            open_listener(endpoint)
    assert count() == before


# --- who may connect ---------------------------------------------------------------------------------------------


def test_a_socket_file_has_its_mode_whatever_the_umask(stack: ExitStack, tmp_path: Path) -> None:
    before = os.umask(0o077)
    stack.callback(os.umask, before)
    listen(stack, unix(tmp_path / "a.sock", mode="0666"))
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o666
    os.umask(0)
    listen(stack, unix(tmp_path / "b.sock", mode="0600"))
    assert stat.S_IMODE((tmp_path / "b.sock").stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_a_socket_file_is_given_to_its_owner_and_group(stack: ExitStack, tmp_path: Path) -> None:
    listen(stack, unix(tmp_path / "a.sock", mode="0660", owner="nobody", group=12345))
    status = (tmp_path / "a.sock").stat()
    assert (status.st_uid, status.st_gid) == (pwd.getpwnam("nobody").pw_uid, 12345)
    assert stat.S_IMODE(status.st_mode) == 0o660
    listen(stack, unix(tmp_path / "b.sock", owner=4711))
    status = (tmp_path / "b.sock").stat()
    assert (status.st_uid, status.st_gid) == (4711, os.getgid())


def test_ones_own_group_needs_no_privilege(stack: ExitStack, tmp_path: Path) -> None:
    listen(stack, unix(tmp_path / "a.sock", owner=os.getuid(), group=grp.getgrgid(os.getgid()).gr_name))
    assert (tmp_path / "a.sock").stat().st_gid == os.getgid()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"owner": "no-such-user"}, "there is no user 'no-such-user'"),
        ({"group": "no-such-group"}, "there is no group 'no-such-group'"),
    ],
)
def test_without_its_owner_a_socket_is_not_left_behind(
    stack: ExitStack, tmp_path: Path, keys: dict[str, str], text: str
) -> None:
    with pytest.raises(CannotListen, match=text):
        listen(stack, unix(tmp_path / "a.sock", **keys))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["bind", "chown"])
def test_a_link_in_the_place_of_a_socket_file_leads_nowhere(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Who may write to the folder, as the owner of the file often may, gets no access to other files by that."""
    path, secret = tmp_path / "a.sock", tmp_path / "secret"
    secret.touch(mode=0o600)
    listener = listen(stack, unix(path))

    def swap() -> None:
        path.unlink()
        path.symlink_to(secret)

    if moment == "bind":
        swap()
        with pytest.raises(OSError, match="something else"):
            listeners.adopt_listener(listener, unix(path, mode="0666", owner=os.getuid()))
    else:
        chown = os.chown

        def swap_then(*args: Any, **keys: Any) -> None:
            chown(*args, **keys)
            swap()

        monkeypatch.setattr(os, "chown", swap_then)
        listeners.adopt_listener(listener, unix(path, mode="0666", owner=os.getuid()))
        assert path.is_symlink()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_new_group_never_has_what_the_old_one_had(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = listen(stack, unix(tmp_path / "a.sock", mode="0660"))
    modes: list[int] = []
    chown = os.chown

    def look(path: Any, *args: Any, **keys: Any) -> None:
        chown(path, *args, **keys)
        modes.append(stat.S_IMODE((tmp_path / "a.sock").stat().st_mode))

    monkeypatch.setattr(os, "chown", look)
    listeners.adopt_listener(listener, unix(tmp_path / "a.sock", mode="0600", group=os.getgid()))
    assert modes == [0o600]


def test_a_name_without_a_file_has_no_mode(stack: ExitStack) -> None:
    name = f"\0wamp-proxy-test-{os.getpid()}"
    endpoint = UnixEndpoint.model_construct(path=name, backlog=5, mode=0o600, owner=1, group="no-such-group")
    listen(stack, endpoint)


def test_a_successor_sets_its_own_mode(stack: ExitStack, tmp_path: Path) -> None:
    listener = listen(stack, unix(tmp_path / "a.sock", mode="0600"))
    listeners.adopt_listener(listener, unix(tmp_path / "a.sock", mode="0660"))
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o660
    with pytest.raises(OSError, match="there is no user"):
        listeners.adopt_listener(listener, unix(tmp_path / "a.sock", owner="no-such-user"))


@pytest.mark.parametrize("mode", ["0777", "660a", "0060", 0o170, True, "", "00660"])
def test_modes_that_make_no_sense(tmp_path: Path, mode: object) -> None:
    with pytest.raises(ValidationError, match="expected the mode of a file in octal"):
        unix(tmp_path / "a.sock", mode=mode)


@pytest.mark.parametrize("owner", [-1, "", "a b", "a:b", 2**32 - 1, False, 1.5])
def test_owners_that_make_no_sense(tmp_path: Path, owner: object) -> None:
    with pytest.raises(ValidationError, match="expected the name of a user, or its number"):
        unix(tmp_path / "a.sock", owner=owner)
    with pytest.raises(ValidationError, match="expected the name of a group, or its number"):
        unix(tmp_path / "a.sock", group=owner)
