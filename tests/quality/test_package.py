"""What is shipped: a source distribution that is complete, and a wheel that runs without compiler and sources."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from quality import sources

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


def test_wheel_runs_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    """In a clean environment with nothing else on PATH; only the dependencies are lent."""
    venv.create(tmp_path / "venv", with_pip=False)
    site = tmp_path / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    lent = sysconfig.get_path("purelib")
    environment = {"PATH": str(tmp_path / "venv" / "bin"), "PYTHONPATH": f"{site}{os.pathsep}{lent}"}
    code = "import proxy._relay as r; print(r.__file__, r.build_mode)"
    python = str(tmp_path / "venv" / "bin" / "python")
    file, mode = run([python, "-c", code], env=environment, cwd=tmp_path).split()
    assert Path(file).parent.parent == site
    assert mode == "release"
    assert "quickstart" in run([python, "-m", "proxy", "--help"], env=environment, cwd=tmp_path)
    classes = "import proxy; print(*(getattr(proxy, name).__name__ for name in proxy.__all__ if name[0].isupper()))"
    assert run([python, "-c", classes], env=environment, cwd=tmp_path).split() == [
        "ProxyConnection", "ProxyController", "ProxyRoute", "ProxyTransport", "ProxyWorkerProcess",
    ]  # fmt: skip


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
