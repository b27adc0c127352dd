"""The command line with which a Crossbar.io node starts a worker, up to the point where the worker runs.

``wamp-proxy-worker`` takes what the node's own worker program takes, so that one key in the node's configuration
(``options.python``) makes the node start ours.
"""

import argparse
import binascii
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import cbor2

from proxy.imports import leave_out_ubjson
from proxy.nodelog import LEVELS, announce, install_node_log, set_log_level

__all__ = ["main", "parse"]

log = logging.getLogger(__name__)

REACTORS: Final = ("epoll", "poll", "select")
NODE_PATH: Final = "WAMP_PROXY_NODE_PATH"
USAGE: Final = """\
wamp-proxy-worker is started by a Crossbar.io node, in place of its own program for proxy workers. In config.json:

    {"type": "proxy", "options": {"python": "<absolute path of wamp-proxy-worker>"}, ...}

A proxy without a node is started with "wamp-proxy run"."""
EXIT_FAILED: Final = 1
EXIT_UNUSABLE: Final = 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the log, where the node's operator looks."""

    def error(self, message: str) -> NoReturn:
        log.critical("cannot be started with this command line: %s", message)
        raise SystemExit(EXIT_UNUSABLE)


def _extra(text: str) -> Any:
    try:
        return cbor2.loads(binascii.unhexlify(text))
    except (ValueError, cbor2.CBORDecodeError):
        raise argparse.ArgumentTypeError("expected CBOR in hexadecimal digits") from None


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the command line apart.

    :param argv: without the program's own name.
    :returns: the options, named as Crossbar.io's workers know them, and the arguments that nobody here knows.
    :raises SystemExit: something is missing or has a value that cannot be used; it is logged.
    """
    # Abbreviations would make an argument of a future node mean one of today's.
    parser = _Parser("wamp-proxy-worker", add_help=False, allow_abbrev=False)
    for name, meaning in (("cbdir", "folder"), ("node", "ID"), ("worker", "ID of the worker"), ("realm", "realm")):
        parser.add_argument(f"-{name[0]}", f"--{name}", required=True, help=f"{meaning} of the node")
    parser.add_argument("-e", "--extra", type=_extra, help="options.extra of the worker")
    parser.add_argument("--title", help="title of the process")
    parser.add_argument("--loglevel", default="info", choices=list(LEVELS))
    parser.add_argument("--reactor", choices=REACTORS)
    parser.add_argument("--debug-lifecycle", action="store_true", help="say on the terminal what happens")
    # What the node starts its own program with, and what means nothing here.
    for name in ("-u", "--vmprof", "--debug-programflow"):
        parser.add_argument(name, action="store_true")
    for names in (("-m",), ("-p", "--personality"), ("-k", "--klass"), ("--shutdown",), ("--restart",)):
        parser.add_argument(*names)
    for name in ("--expose_controller", "--expose_shared"):
        parser.add_argument(name)
    return parser.parse_known_args(argv)


def own_folders(node_path: str) -> list[str]:
    """What is the operator's in the PYTHONPATH that a node gives: ``options.pythonpath``, and the node's own.

    The rest is the standard library and the packages of the node's interpreter, which begin with its ``pythonXY.zip``.

    :param node_path: the variable's value.
    :returns: folders, in their order. None of them has packages that were installed for the node.
    """
    folders: list[str] = []
    for folder in node_path.split(os.pathsep):
        path = Path(folder)
        if path.suffix == ".zip" and path.name.startswith("python"):
            return folders
        # The folder of the node's own program is among them, too.
        if path.is_absolute() and path.name != "bin" and not {"site-packages", "dist-packages"} & set(path.parts):
            folders.append(folder)
    return []


def main() -> NoReturn:
    """Run a worker for the node that started this process."""
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        print(USAGE)
        sys.exit(EXIT_UNUSABLE if not sys.argv[1:] else 0)
    # The first that the node reads; everything that takes time comes after it.
    announce()
    handler = install_node_log("info")
    status = EXIT_FAILED
    try:
        options, unknown = parse(sys.argv[1:])
        set_log_level(options.loglevel)
        if unknown:
            log.warning("arguments of the command line that are not known here, and ignored: %s", " ".join(unknown))
        # Behind everything of ours: what the operator has there may add to it, and replaces nothing.
        sys.path += [folder for folder in own_folders(os.environ.pop(NODE_PATH, "")) if folder not in sys.path]
        leave_out_ubjson()
        from proxy.node import run

        status = run(options)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_FAILED
    except BaseException:
        log.critical("the worker cannot run", exc_info=True)
    handler.close()
    sys.stdout.flush()
    sys.exit(status)


if __name__ == "__main__":
    main()
