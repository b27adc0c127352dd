"""HAProxy, in front of the proxy."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.process import Child, wait_until

_GLOBAL = """\
global
    nbthread 1
    maxconn 100
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
"""


def find_haproxy() -> str | None:
    """Path of the program."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def haproxy(program: str, folder: Path, sections: str, ports: Sequence[int]) -> Iterator[Child]:
    """A running HAProxy.

    :param folder: for its configuration.
    :param sections: what follows ``global`` and ``defaults``.
    :param ports: where it listens.
    """
    path = folder / "haproxy.cfg"
    path.write_text(_GLOBAL + sections)
    child = Child("haproxy", [program, "-db", "-f", str(path)])
    try:
        for port in ports:
            wait_until(lambda port=port: _answers(port), f"HAProxy listens\n{child.output}")
        yield child
    finally:
        child.kill()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
