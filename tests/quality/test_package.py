"""What is shipped: a source distribution that is complete, and a wheel that runs without compiler and sources."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from conftest import missing
from quality import sources
from support.certificates import Certificates
from support.process import Child
from support.proxies import READY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "node_modules", "*.so", "*.egg-info", "__pycache__", ".*_cache"
)
# of the run of the tests, which may be on another build
NOT_INHERITED = ("PROXY_BUILD", "PYTHONPATH", "LD_PRELOAD")


def run(command: list[str], **options: object) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


def static_openssl() -> bool:
    """Whether OpenSSL can be put into the extension here, as it is in wheels that are handed out."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    found = [run([*compiler, f"-print-file-name=lib{name}.a"]).strip() for name in ("ssl", "crypto")]
    return all(os.path.isabs(path) for path in found)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from a copy of the tree."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(sources.ROOT, folder / "tree", ignore=NOT_SOURCES)
    run([sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(folder)], cwd=folder / "tree")
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source distribution alone."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = (path for path in folder.iterdir() if path.is_dir())
    environment = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
    environment |= {"PROXY_OPENSSL": "static" if static_openssl() else "shared"}
    run([sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(folder)], cwd=tree, env=environment)
    return next(folder.glob("*.whl"))


def test_sdist_has_all_sources(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [path for path in sources.SRC.glob("**/*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = [path for path in wanted if path.suffix != ".so" and not path.parent.name.endswith(".egg-info")]
    assert [str(path) for path in wanted if path.relative_to(sources.ROOT).as_posix() not in names] == []
    assert {"LICENSE", "Makefile", "setup.py", "pyproject.toml"} <= names


def test_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.relative_to(sources.SRC).as_posix() for path in sources.modules()}
    extra = {name for name in names if ".dist-info/" not in name and ".data/scripts/" not in name} - modules
    assert modules <= set(names)
    assert extra == {f"proxy/_relay{sysconfig.get_config_var('EXT_SUFFIX')}", "proxy/_relay.pyi", "proxy/py.typed"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, str]]:
    """The wheel in a clean environment with nothing else on PATH; only the dependencies are lent.

    :returns: its Python, where the wheel is, and the variables to run it with.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    site = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    lent = sysconfig.get_path("purelib")
    environment = {"PATH": str(folder / "venv" / "bin"), "PYTHONPATH": f"{site}{os.pathsep}{lent}"}
    return str(folder / "venv" / "bin" / "python"), site, environment


def test_wheel_runs_without_a_compiler(installed: tuple[str, Path, dict[str, str]], tmp_path: Path) -> None:
    python, site, environment = installed
    code = "import proxy._relay as r; print(r.__file__, r.build_mode)"
    file, mode = run([python, "-c", code], env=environment, cwd=tmp_path).split()
    assert Path(file).parent.parent == site
    assert mode == "release"
    assert "quickstart" in run([python, "-m", "proxy", "--help"], env=environment, cwd=tmp_path)
    classes = "import proxy; print(*(getattr(proxy, name).__name__ for name in proxy.__all__ if name[0].isupper()))"
    assert run([python, "-c", classes], env=environment, cwd=tmp_path).split() == [
        "ProxyConnection", "ProxyController", "ProxyRoute", "ProxyTransport", "ProxyWorkerProcess",
    ]  # fmt: skip


def test_wheel_brings_its_own_openssl(wheel: Path, tmp_path: Path) -> None:
    """And keeps it to itself: Python's own OpenSSL, another version perhaps, is in the same process."""
    if not static_openssl():
        missing("OpenSSL's static libraries", "apt install libssl-dev")
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so"))
    extension = zipfile.ZipFile(wheel).extract(name, tmp_path)
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run(["readelf", "--dynamic", extension]))
    assert "libc.so.6" in needed or any(name.startswith("libc.musl") for name in needed)
    assert [name for name in needed if re.match("lib(ssl|crypto)", name)] == []
    symbols = {line.split()[-1] for line in run(["readelf", "--dyn-syms", "--wide", extension]).splitlines() if line}
    assert "PyInit__relay" in symbols
    assert [name for name in symbols if re.match("(SSL|BIO|EVP|X509|OPENSSL|ERR)_", name)] == []


def test_wheel_speaks_tls(installed: tuple[str, Path, dict[str, str]], tmp_path: Path) -> None:
    python, _, environment = installed
    certificates = Certificates(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    endpoint = {"type": "tcp", "interface": "127.0.0.1", "port": port, "tls": certificates.server.tls}
    transport = {"type": "websocket", "id": "web", "endpoint": endpoint, "auth": {"anonymous": {"type": "static"}}}
    (tmp_path / "proxy.json").write_text(json.dumps({"type": "proxy", "transports": [transport]}), encoding="utf-8")
    child = Child("proxy", [python, "-m", "proxy", "run", "proxy.json"], cwd=tmp_path, env=environment)
    try:
        child.wait_line(READY)
        context = ssl.create_default_context(cafile=str(certificates.ca))
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        with plain, context.wrap_socket(plain, server_hostname="localhost") as client:
            assert client.version() == "TLSv1.3"
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(64).startswith(b"HTTP/1.1 ")
    finally:
        child.stop()


def test_wheel_has_the_commands(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
    commands = configparser.ConfigParser()
    commands.read_string(archive.read(name).decode())
    assert set(commands["console_scripts"]) == {"wamp-proxy"}
    (program,) = (name for name in archive.namelist() if ".data/scripts/" in name)
    assert program.endswith("/wamp-proxy-worker")
    # What an installer puts its own interpreter in place of.
    assert archive.read(program).startswith(b"#!python\n")
