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
# For src/relay/double.cpp: needs nothing of the C++ library but its decimal conversions.
CXX_ONLY = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-Wconversion", "-Wshadow"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
COMPILE = {
    # line tables only: profiles and core dumps name the line, at a tenth of the size of full debug information
    # The module is one unit of many small functions: without more room, gcc stops inlining those of the hot path. Then
    # it sees through Cython's helpers for Python tuples far enough to mistake a branch that is never taken for a bug.
    "release": ["-O3", "-g1", "-fno-plt", "--param", "inline-unit-growth=100", "-Wno-array-bounds"],
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


def find_openssl() -> dict[str, list[str]]:
    """Where OpenSSL is, and how to link it.

    ``PROXY_OPENSSL=static`` puts it into the extension, for wheels that need nothing of the system that they are
    installed on. ``OPENSSL_PREFIX`` names an installation other than the system's.
    """
    prefix = os.environ.get("OPENSSL_PREFIX")
    includes = [f"{prefix}/include"] if prefix else []
    folders = [folder for folder in (f"{prefix}/lib64", f"{prefix}/lib") if Path(folder).is_dir()] if prefix else []
    if os.environ.get("PROXY_OPENSSL", "shared") != "static":
        return {"include_dirs": includes, "libraries": ["ssl", "crypto"], "link": [f"-L{folder}" for folder in folders]}
    archives = [find_archive(f"lib{name}.a", folders) for name in ("ssl", "crypto")]
    # its symbols stay inside, so that another OpenSSL in the process, Python's own for one, is not mixed up with it
    return {"include_dirs": includes, "libraries": [], "link": [*archives, "-ldl", "-Wl,--exclude-libs,ALL"]}


def find_archive(name: str, folders: list[str]) -> str:
    for folder in folders:
        if Path(folder, name).exists():
            return str(Path(folder, name))
    command = [*tool("CC", "cc"), f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not Path(path).is_absolute():
        sys.exit(f"wamp-proxy: PROXY_OPENSSL=static: no {name}; OPENSSL_PREFIX names the folder above its lib/")
    return path


MISSING = """
wamp-proxy: cannot build the extension proxy._relay: {what}.

Install a C and C++ compiler (GCC 11 or newer; Clang 14 or newer with the C++ library of GCC 11), the headers of
Python {version} and those of zlib and OpenSSL (1.1.1 or newer), then try again:
  Debian, Ubuntu   apt install build-essential zlib1g-dev libssl-dev {debian}
  Fedora, RHEL     dnf install gcc gcc-c++ zlib-devel openssl-devel {fedora}
  Alpine           apk add gcc g++ musl-dev linux-headers zlib-dev openssl-dev python3-dev
(A Python built by pyenv, uv or from source has its headers; there only the others can be missing.
A wheel of wamp-proxy needs none of them.)
"""

# What is compiled to see whether a tool is there: suffix, source, what a failure means.
PROBES = (
    (
        ".c",
        "#include <Python.h>\n#include <sys/epoll.h>\n#include <linux/errqueue.h>\nint main(void) { return 0; }\n",
        "the C compiler cannot compile a Python module",
    ),
    (".c", "#include <zlib.h>\nint main(void) { return 0; }\n", "the headers of zlib are not installed"),
    (
        ".c",
        (
            "#include <openssl/ssl.h>\n#if OPENSSL_VERSION_NUMBER < 0x10101000L\n#error too old\n#endif\n"
            "int main(void) { return 0; }\n"
        ),
        "the headers of OpenSSL 1.1.1 or newer are not installed",
    ),
    (
        ".cpp",
        """
        #include <charconv>
        int main() {
            char text[32]; double value;
            std::to_chars(text, text + 32, 0.5, std::chars_format::fixed);
            std::from_chars(text, text + 3, value);
        }
        """,
        "the C++ compiler and its library cannot convert floating point numbers (C++17 <charconv>)",
    ),
)


def missing_tool(c: list[str], cxx: list[str]) -> str | None:
    """What keeps this extension from compiling, in words; None when nothing does."""
    for name, command in (("C", c), ("C++", cxx)):
        if not command or shutil.which(command[0]) is None:
            return f"there is no {name} compiler ({command[0] if command else 'none is named, and it'} is not on PATH)"
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        return f"the headers of Python are not installed (no Python.h in {include})"
    for suffix, source, what in PROBES:
        command = [*cxx, "-std=c++17"] if suffix == ".cpp" else c
        others = [f"-I{folder}" for folder in find_openssl()["include_dirs"]]
        first = compile_error([*command, f"-I{include}", *others], suffix, source)
        if first is not None:
            return f"{what} ({first})"
    return None


def compile_error(command: list[str], suffix: str, source: str) -> str | None:
    """The first error of compiling a source text; None when it compiles."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe").with_suffix(suffix)
        path.write_text(source)
        command = [*command, "-c", str(path), "-o", str(path.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())


def tool(variable: str, otherwise: str) -> list[str]:
    """The compiler that distutils will take, with its arguments."""
    return shlex.split(os.environ.get(variable) or sysconfig.get_config_var(variable) or otherwise)


def check_tools() -> None:
    """End the build with a message that says what to install when a tool is missing."""
    what = missing_tool(tool("CC", "cc"), tool("CXX", "c++"))
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
        check_tools()  # before Cython spends its time
        self.extensions[:] = self.cythonize(self.extensions)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile C++ with flags of its own: the two languages share a list of sources, but not their options."""
        compile_one = self.compiler._compile

        def compile_by_language(obj: str, src: str, suffix: str, args: list[str], extra: list[str], pp: object) -> None:
            if suffix == ".cpp":
                extra = [*extra, *CXX_ONLY]
            compile_one(obj, src, suffix, args, extra, pp)

        self.compiler._compile = compile_by_language
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one

    def cythonize(self, extensions: list[Extension]) -> list[Extension]:
        from Cython.Build import cythonize

        names = {extension.name: extension._full_name for extension in extensions}
        folder = Path(f"build/{MODE}/c")
        generated = list(folder.glob("**/*.c"))
        for copy in folder.glob("**/*.h"):
            copy.unlink()  # Cython puts headers beside what it generates, and leaves old ones there
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
    openssl = find_openssl()
    werror = ["-Werror"] if os.environ.get("PROXY_WERROR") == "1" else []
    return Extension(
        "proxy._relay",
        ["src/_relay.pyx", "src/relay/double.cpp"],
        include_dirs=["src", *openssl["include_dirs"]],
        depends=sorted(map(str, parts)),
        define_macros=[("PROXY_BUILD_MODE", f'"{MODE}"'), *MACROS[MODE]],
        extra_compile_args=["-pthread", *WARNINGS, *COMPILE[MODE], *werror],
        libraries=["z", *openssl["libraries"]],
        extra_link_args=["-pthread", *LINK[MODE], *openssl["link"]],
    )


if MODE not in MODES:
    sys.exit(f"wamp-proxy: PROXY_BUILD={MODE}: expected one of {', '.join(MODES)}")
os.chdir(ROOT)
setup(ext_modules=[relay()], cmdclass={"build": Build, "build_py": BuildPy, "build_ext": BuildExt})
