"""The file of the node's key: read, made, and refused."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from autobahn.wamp.types import ComponentConfig
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from twisted.internet.task import Clock

from proxy.controller import ProxyController
from proxy.errors import CannotStart
from proxy.nodekey import NodeKey
from support.planes import FakePlane

PRIVATE = "5e" * 32
PUBLIC = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(PRIVATE)).public_key().public_bytes_raw().hex()
TAGS = {
    "creator": "somebody@host",
    "created-at": "2026-01-01T00:00:00.000Z",
    "machine-id": "0123",
    "public-key-ed25519": PUBLIC,
    "public-adr-eth": "0xabc",
    "private-key-ed25519": PRIVATE,
    "private-key-eth": "01",
}


def save(path: Path, tags: dict[str, str], mode: int = 0o600, more: str = "") -> Path:
    """Write a file as a node of Crossbar.io does."""
    lines = "".join(f"{tag}: {value}\n" for tag, value in tags.items())
    path.write_text(f"Crossbar.io node private key - KEEP THIS SAFE!\n\n{lines}{more}")
    path.chmod(mode)
    return path


def without(tag: str) -> dict[str, str]:
    return {name: value for name, value in TAGS.items() if name != tag}


def test_a_key_of_a_node(tmp_path: Path) -> None:
    key = NodeKey.load(save(tmp_path / "key.priv", TAGS))
    assert key.public == PUBLIC
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(PUBLIC)).verify(key.sign(b"octets"), b"octets")
    assert PRIVATE not in repr(key)


def test_a_key_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / ".crossbar" / "key.priv"
    before = os.umask(0)
    try:
        key = NodeKey.load_or_create(path, "node7")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path], "nothing else is left"
    assert "node-authid: node7" in path.read_text()
    assert NodeKey.load_or_create(path, "node7").public == key.public
    other = NodeKey.load_or_create(tmp_path / "other" / "key.priv", "node7")
    assert other.public != key.public


def test_crossbar_can_read_it(tmp_path: Path) -> None:
    """Its parser takes what follows the first empty line, these tags only, each once, and insists on five of them."""
    path = tmp_path / "key.priv"
    key = NodeKey.load_or_create(path, "node7")
    _, empty, *lines = path.read_text().splitlines()
    assert empty == ""
    tags = dict(line.split(": ", 1) for line in lines)
    assert set(tags) == (set(TAGS) - {"public-adr-eth", "private-key-eth"}) | {"node-authid"}
    assert tags["public-key-ed25519"] == key.public
    assert all(tags.values())


MAKE = """
import sys
from pathlib import Path
from proxy.nodekey import NodeKey
sys.stdin.read()
print(NodeKey.load_or_create(Path(sys.argv[1]), "node7").public)
"""


def test_processes_that_begin_together_have_one_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKE, str(tmp_path / "key.priv")]
    workers = [Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.stdin = None
    keys = {worker.communicate(timeout=30)[0] for worker in workers}
    assert len(keys) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "key.priv"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read(tmp_path: Path, mode: int) -> None:
    with pytest.raises(CannotStart, match=f"expected mode 0600, has {mode:04o}"):
        NodeKey.load(save(tmp_path / "key.priv", TAGS, mode))


@pytest.mark.parametrize(
    ("tags", "more", "expected"),
    [
        ({}, "", "creator is missing"),
        (without("public-key-ed25519"), "", "public-key-ed25519 is missing"),
        (without("private-key-ed25519"), "", "private-key-ed25519 is missing"),
        (TAGS | {"private-key-ed25519": PRIVATE[2:]}, "", "expected 64 hexadecimal digits"),
        (TAGS | {"private-key-ed25519": "no" * 32}, "", "expected 64 hexadecimal digits"),
        (TAGS | {"public-key-ed25519": "00" * 32}, "", "does not belong to"),
        (TAGS, "creator: again\n", "each tag once"),
        (TAGS, PRIVATE, "lines like tag: value"),
    ],
)
def test_what_is_no_key(tmp_path: Path, tags: dict[str, str], more: str, expected: str) -> None:
    path = save(tmp_path / "key.priv", tags, more=more)
    with pytest.raises(CannotStart, match=expected) as caught:
        NodeKey.load(path)
    assert str(path) in str(caught.value)
    assert PRIVATE not in str(caught.value)
    assert PRIVATE[2:] not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "key.priv"
    with pytest.raises(CannotStart, match="cannot be read"):
        NodeKey.load(path)
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(CannotStart, match="UTF-8"):
        NodeKey.load(path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(CannotStart, match="expected a file"):
        NodeKey.load(path)
    with pytest.raises(CannotStart, match=str(tmp_path)):
        NodeKey.load(tmp_path)


def test_a_link_that_leads_nowhere_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "key.priv"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotStart, match="cannot be read"):
        NodeKey.load_or_create(path, "node7")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="cannot be made"):
        NodeKey.load_or_create(tmp_path / "file" / "key.priv", "node7")


# --- the worker's ---


def make_controller(folder: Path, *, node: str | None) -> ProxyController:
    extra = Namespace(node=node, worker="worker001", cbdir=str(folder)) if node else None
    controller = ProxyController(ComponentConfig("crossbar", extra), Clock(), plane=FakePlane(), node_id="node7")
    controller.cbdir = folder
    return controller


def test_the_nodes_key_is_read_once(tmp_path: Path) -> None:
    controller = make_controller(tmp_path, node="node1")
    path = save(tmp_path / "key.priv", TAGS)
    controller.on_node_key(PUBLIC)
    key = controller.require_node_key()
    path.unlink()
    assert controller.require_node_key() is key
    assert controller.identity == ("node1", PUBLIC)


def test_under_a_node_no_key_is_made(tmp_path: Path) -> None:
    controller = make_controller(tmp_path, node="node1")
    with pytest.raises(CannotStart, match="cannot be read"):
        controller.require_node_key()
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_not_the_nodes(tmp_path: Path) -> None:
    controller = make_controller(tmp_path, node="node1")
    save(tmp_path / "key.priv", TAGS)
    controller.on_node_key("00" * 32)
    with pytest.raises(CannotStart, match="expected the key of public key 0000"):
        controller.require_node_key()


def test_alone_a_key_is_made(tmp_path: Path) -> None:
    controller = make_controller(tmp_path, node=None)
    key = controller.require_node_key()
    assert NodeKey.load(tmp_path / ".crossbar" / "key.priv").public == key.public
    assert controller.identity == ("node7", key.public)


def test_a_connection_does_not_start_without_its_key(tmp_path: Path) -> None:
    controller = make_controller(tmp_path, node="node1")
    item = {
        "transport": {"type": "rawsocket", "endpoint": {"type": "tcp", "host": "127.0.0.1", "port": 1}},
        "auth": {"cryptosign-proxy": None},
    }
    failures: list[Any] = []
    controller.start_proxy_connection("router1", item).addErrback(failures.append)
    assert failures[0].check(CannotStart)
    assert "key.priv" in failures[0].value.message
    save(tmp_path / "key.priv", TAGS)
    shown: list[Any] = []
    controller.start_proxy_connection("router2", item).addCallback(shown.append)
    assert shown[0]["config"] == item
