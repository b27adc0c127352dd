"""The service ``cgi``: programs of a folder, each run by a processor for one request (RFC 3875)."""

import os
import re
import shutil
import stat
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.process import reapAllProcesses
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from proxy import __version__
from proxy.config.web import CgiConfig
from proxy.errors import InvalidConfiguration
from proxy.web.base import WebService
from proxy.web.cgi_program import Program
from proxy.web.pages import ErrorPage

__all__ = ["CgiService"]

REAP_SECONDS: Final = 0.1
"""How often programs that were run are looked after: a worker has no SIGCHLD handler, which is its node's business."""

# Of this worker's environment; what else is in it may be a secret.
_PASSED: Final = ("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR")
# Programs take a variable HTTP_PROXY for a proxy of theirs; the last two have variables of their own.
_NOT_PASSED: Final = frozenset({"proxy", "proxy-authorization", "content-type", "content-length"})
_FIELD: Final = re.compile(r"[A-Za-z0-9\-]+")
_SHELL: Final = "/bin/sh"
# The folder is changed in the child: Twisted forks (a copy of this process) where it is to change it.
_RUN: Final = 'cd -- "$1" || exit 127; shift; exec "$@"'


@dataclass(frozen=True)
class _Script:
    """A program, and what the path names behind it."""

    path: str
    name: bytes
    info: bytes


class CgiService(WebService):
    """Programs below a folder."""

    TYPE: ClassVar[str] = "cgi"
    config: CgiConfig

    def start(self) -> "Deferred[None]":
        """Look whether what is needed is there."""
        if not os.path.isdir(self.config.directory):
            raise InvalidConfiguration(f'directory: "{self.config.directory}": expected a folder')
        processor = shutil.which(self.config.processor)
        if processor is None:
            raise InvalidConfiguration(f'processor: "{self.config.processor}": expected a program that can be run')
        self.processor = os.path.abspath(processor)
        self.programs: set[Program] = set()
        self._reaper: Any = None  # IDelayedCall
        self.resource = _Scripts(self)
        return succeed(None)

    def run(self, request: Any, script: _Script) -> None:
        """Have a program answer."""
        argv = [_SHELL, "-c", _RUN, "sh", os.path.dirname(script.path), self.processor, script.path]
        environment = {
            os.fsencode(name): os.fsencode(value.replace("\0", ""))
            for name, value in self._environment(request, script).items()
        }
        program = Program(self.site.reactor, request, self.label, self.config.timeout / 1000, self._ended)
        self.site.reactor.spawnProcess(program, _SHELL, [os.fsencode(word) for word in argv], env=environment)
        self.programs.add(program)
        self._look_after()

    def _ended(self, program: Program) -> None:
        self.programs.discard(program)

    def _look_after(self) -> None:
        if self._reaper is None:
            self._reaper = self.site.reactor.callLater(REAP_SECONDS, self._reap)

    def _reap(self) -> None:
        self._reaper = None
        reapAllProcesses()
        if self.programs:
            self._look_after()

    def _environment(self, request: Any, script: _Script) -> dict[str, str]:
        """The program's environment (RFC 3875 section 4.1)."""
        config = self.config
        passed = {name: os.environ[name] for name in (*_PASSED, *config.environment) if name in os.environ}
        passed.update({name: value for name, value in os.environ.items() if name.startswith("LC_")})
        made = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": f"wamp-proxy/{__version__}",
            "SERVER_PROTOCOL": _text(request.clientproto),
            "SERVER_NAME": _text(request.getRequestHostname()),
            "SERVER_PORT": str(getattr(request.getHost(), "port", 0) or (443 if request.isSecure() else 80)),
            "REQUEST_METHOD": _text(request.method),
            "REQUEST_URI": _text(request.uri),
            "QUERY_STRING": _text(request.uri.partition(b"?")[2]),
            "SCRIPT_NAME": _text(script.name),
            "SCRIPT_FILENAME": script.path,
            "REMOTE_ADDR": getattr(request.getClientAddress(), "host", None) or "",
            "REMOTE_PORT": str(getattr(request.getClientAddress(), "port", "")),
            "CONTENT_LENGTH": str(_length(request.content)),
            "CONTENT_TYPE": _text(request.getHeader(b"content-type") or b""),
            # PHP runs nothing without it, so that nobody asks its processor for files directly.
            "REDIRECT_STATUS": "200",
        }
        if script.info:
            made["PATH_INFO"] = _text(script.info)
        if request.isSecure():
            made["HTTPS"] = "on"
        fields = {f"HTTP_{name.replace('-', '_').upper()}": value for name, value in _fields(request)}
        return {**passed, **fields, **made}


def _fields(request: Any) -> list[tuple[str, str]]:
    """Header fields that go into the environment: a name with an underscore could pass for one with a dash."""
    found = []
    for raw, values in request.requestHeaders.getAllRawHeaders():
        name = raw.decode("latin-1").lower()
        if name not in _NOT_PASSED and _FIELD.fullmatch(name):
            found.append((name, ("; " if name == "cookie" else ", ").join(map(_text, values))))
    return found


def _text(octets: bytes) -> str:
    """As the environment has octets that are no text."""
    return os.fsdecode(octets)


def _length(content: Any) -> int:
    content.seek(0, os.SEEK_END)
    length: int = content.tell()
    content.seek(0)
    return length


class _Scripts(Resource):
    """Everything at and below the path."""

    isLeaf = True

    def __init__(self, service: CgiService) -> None:
        super().__init__()
        self._service = service

    def render(self, request: Any) -> Any:
        """Run the program that the path names."""
        service = self._service
        script = self._find(request)
        if script is None:
            return ErrorPage(404).render(request)
        if len(service.programs) >= service.config.max_processes:
            return ErrorPage(503, headers={b"retry-after": b"1"}).render(request)
        service.run(request, script)
        return NOT_DONE_YET

    def _find(self, request: Any) -> _Script | None:
        """The first file on the way; what follows it in the path is its PATH_INFO."""
        path = self._service.config.directory
        segments = request.postpath
        for index, segment in enumerate(segments):
            name = os.fsdecode(segment)
            if not name or name.startswith(".") or "/" in name or "\0" in name:
                return None  # hidden files are no programs, nor do paths lead upwards
            path = os.path.join(path, name)
            try:
                mode = os.stat(path).st_mode
            except OSError:
                return None
            if stat.S_ISREG(mode):
                parts = request.uri.partition(b"?")[0].split(b"/")
                rest = len(segments) - index - 1
                above = b"/".join(parts[: len(parts) - rest] if rest else parts)
                return _Script(path, above, b"".join(b"/" + one for one in segments[index + 1 :]))
            if not stat.S_ISDIR(mode):
                return None
        return None
