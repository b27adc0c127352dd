"""Builds ``proxy._relay``; everything else is in pyproject.toml.

``PROXY_BUILD`` selects one of four builds. Each has a folder of its own, ``build/<mode>``, for the generated C and the
object files, so that they never mix and a change of mode never installs a stale library:

release   what is shipped: optimised, no assertions
debug     assertions (``PROXY_DEBUG``), little optimisation, annotated C in ``build/debug/c``
asan      debug with AddressSanitizer and UndefinedBehaviorSanitizer
trace     line events, for coverage of the Cython parts (slow: every line takes the GIL)

``PROXY_WERROR=1`` turns warnings of the C compiler into errors.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MODES = ("release", "debug", "asan", "trace")
MODE = os.environ.get("PROXY_BUILD") or "release"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
    "freethreading_compatible": True,
}

# What is off is noise of generated code: Cython emits helpers, parameters and casts that a module may not need.
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-unused-variable",
    "-Wno-unused-but-set-variable",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
    "-Wno-sign-compare",
]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
COMPILE = {
    # line tables only: profiles and core dumps name the line, at a tenth of the size of full debug information
    "release": ["-O3", "-g1", "-fno-plt"],
    "debug": ["-Og", "-g3", "-UNDEBUG"],
    "asan": ["-O1", "-g3", "-UNDEBUG", "-fno-omit-frame-pointer", *SANITIZERS],
    "trace": ["-O1", "-g1"],
}
LINK = {"release": ["-Wl,-O1"], "debug": [], "asan": SANITIZERS, "trace": []}
MACROS: dict[str, list[tuple[str, str | None]]] = {
    "release": [],
    "debug": [("PROXY_DEBUG", "1")],
    "asan": [("PROXY_DEBUG", "1")],
    "trace": [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")],
}

MISSING = """
wamp-proxy: cannot build the extension proxy._relay: {what}.

Install a C compiler and the headers of Python {version}, then try again:
  Debian, Ubuntu   apt install build-essential {debian}
  Fedora, RHEL     dnf install gcc {fedora}
  Alpine           apk add gcc musl-dev linux-headers python3-dev
(A Python built by pyenv, uv or from source has its headers; there only the compiler can be missing.
A wheel of wamp-proxy needs neither.)
"""


def missing_tool(compiler: list[str]) -> str | None:
    """What keeps C code for this Python from compiling, in words; None when nothing does."""
    if not compiler or shutil.which(compiler[0]) is None:
        return f"there is no C compiler ({compiler[0] if compiler else 'cc'} is not on PATH)"
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        return f"the headers of Python are not installed (no Python.h in {include})"
    source = "#include <Python.h>\n#include <sys/epoll.h>\n#include <linux/errqueue.h>\nint main(void) { return 0; }\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        command = [*compiler, f"-I{include}", "-c", str(path), "-o", str(path.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
    return f"the C compiler cannot compile a Python module ({first})"


def check_tools(compiler: list[str]) -> None:
    """End the build with a message that says what to install when a tool is missing."""
    what = missing_tool(compiler)
    if what is None:
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    system = Path(sys.base_prefix) == Path("/usr")
    debian = f"python{version}-dev" if system else "python3-dev"
    fedora = f"python{version}-devel" if system else "python3-devel"
    sys.exit(MISSING.format(what=what, version=version, debian=debian, fedora=fedora))


class Build(build):
    """``build`` with one folder per mode."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = f"build/{MODE}"


class BuildPy(build_py):
    """``build_py`` that leaves no module behind which is gone from the sources (wheels take the whole folder)."""

    def run(self) -> None:
        if not self.editable_mode:
            for path in Path(self.build_lib, "proxy").glob("**/*"):
                if path.is_file() and path.suffix != ".so":
                    path.unlink()
        super().run()


class BuildExt(build_ext):
    """``build_ext`` that runs Cython per mode and says what is missing."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:
            # setuptools gives an editable build throw-away folders; ours keep it from compiling everything each time
            self.build_temp = f"build/{MODE}/temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"

    def run(self) -> None:
        # the compiler that distutils will take, before Cython spends its time
        check_tools(shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"))
        self.extensions[:] = self.cythonize(self.extensions)
        super().run()

    def cythonize(self, extensions: list[Extension]) -> list[Extension]:
        from Cython.Build import cythonize

        names = {extension.name: extension._full_name for extension in extensions}
        folder = Path(f"build/{MODE}/c")
        generated = list(folder.glob("**/*.c"))
        older = any(path.stat().st_mtime < Path("setup.py").stat().st_mtime for path in generated)
        done = cythonize(
            extensions,
            build_dir=str(folder),
            include_path=["src"],
            compiler_directives={**DIRECTIVES, "linetrace": MODE == "trace"},
            annotate=MODE == "debug",
            # sanitizer reports and debuggers name lines of the Cython sources
            emit_linenums=MODE in ("debug", "asan"),
            force=bool(self.force or older),
        )
        for extension in done:
            extension._full_name = names[extension.name]
            extension._links_to_dynamic = extension._needs_stub = False
            extension._file_name = self.get_ext_filename(extension._full_name)
            self.ext_map[extension._full_name] = extension
        return done

    def copy_extensions_to_source(self) -> None:
        # by force: the library of the other mode that is in place may be newer than this one
        force, self.force = self.force, True
        super().copy_extensions_to_source()
        self.force = force


def relay() -> Extension:
    """The one extension: ``src/_relay.pyx`` with the parts that it includes."""
    parts = [*Path("src/relay").glob("*.p*"), *Path("src/relay").glob("*.h"), Path("setup.py")]
    werror = ["-Werror"] if os.environ.get("PROXY_WERROR") == "1" else []
    return Extension(
        "proxy._relay",
        ["src/_relay.pyx"],
        include_dirs=["src"],
        depends=sorted(map(str, parts)),
        define_macros=[("PROXY_BUILD_MODE", f'"{MODE}"'), *MACROS[MODE]],
        extra_compile_args=["-pthread", *WARNINGS, *COMPILE[MODE], *werror],
        extra_link_args=["-pthread", *LINK[MODE]],
    )


if MODE not in MODES:
    sys.exit(f"wamp-proxy: PROXY_BUILD={MODE}: expected one of {', '.join(MODES)}")
os.chdir(ROOT)
setup(ext_modules=[relay()], cmdclass={"build": Build, "build_py": BuildPy, "build_ext": BuildExt})
