"""Crossbar.io's own program with our worker in its table of native workers: for nodes whose configuration cannot name
another program, as in a webcluster.

Nothing but this module imports crossbar, and only in the process of the node's controller.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from proxy.config.loading import checked
from proxy.config.worker import WorkerConfig
from proxy.errors import FeatureUnavailable
from proxy.node import ProxyWorkerProcess

__all__ = ["install", "run_crossbar", "worker_program"]

WORKER_PROGRAM: Final = "wamp-proxy-worker"


def run_crossbar(arguments: list[str]) -> NoReturn:
    """Be the program ``crossbar``, except that proxy workers are ours.

    :param arguments: of its command line, without its own name.
    :raises FeatureUnavailable: Crossbar.io is not installed here.
    :raises SystemExit: always; with crossbar's exit code.
    """
    try:
        import crossbar  # type: ignore[import-not-found,unused-ignore]
        from autobahn.twisted.choosereactor import install_reactor
    except ImportError as error:
        raise FeatureUnavailable(
            f"Crossbar.io cannot be imported by {sys.executable}: {error}; install crossbar into the same environment, "
            f'or give the proxy workers of its config.json "options": {{"python": ".../{WORKER_PROGRAM}"}}'
        ) from error
    # As crossbar does it, and before anything imports Twisted's default one.
    install_reactor(os.environ.get("CROSSBAR_REACTOR"))
    from crossbar import personality

    install(personality)
    sys.argv = ["crossbar", *arguments]
    crossbar.run()
    raise SystemExit(0)


def install(personality: Any) -> None:
    """Have nodes of every kind start our worker as their proxy workers.

    :param personality: the module ``crossbar.personality``. The other kinds of nodes make their tables with its
        function, and are imported later.
    """
    original: Callable[[], dict[str, Any]] = personality.default_native_workers

    def default_native_workers() -> dict[str, Any]:
        workers = original()
        workers["proxy"] = _entry(workers["proxy"])
        return workers

    personality.default_native_workers = default_native_workers
    table = personality.Personality.native_workers
    table["proxy"] = _entry(table["proxy"])


def _entry(stock: Mapping[str, Any]) -> dict[str, Any]:
    """Our entry in place of the stock one."""
    from crossbar.node.worker import NativeWorkerProcess  # type: ignore[import-not-found,unused-ignore]

    from proxy.controller import ProxyController

    process = type(ProxyWorkerProcess.__name__, (ProxyWorkerProcess, NativeWorkerProcess), {})
    program = worker_program()

    def check_options(_: Any, options: dict[str, Any]) -> None:
        """Called with the options of a worker that is about to start; what is set here counts."""
        if program is not None:
            options.setdefault("python", program)

    return {
        **stock,
        "class": process,
        "process_class": process,
        "worker_class": ProxyController,
        "checkconfig_item": check_item,
        "checkconfig_options": check_options,
    }


def check_item(_: Any, item: Mapping[str, Any]) -> None:
    """Check the configuration of a worker when the node reads it.

    :raises ConfigError: with everything that is wrong with it.
    """
    options = item.get("options")
    if not (isinstance(options, Mapping) and options.get("disabled")):
        checked(WorkerConfig, item, Path.cwd())


def worker_program() -> str | None:
    """The program that runs a worker of ours, wherever it was installed; None: it was not.

    Without it the node uses its own, which can run our class, too, but imports all of crossbar for that.
    """
    folders = [Path(sys.argv[0]).parent, Path(sysconfig.get_path("scripts")), Path(sys.executable).parent]
    path = os.pathsep.join([*(str(folder.absolute()) for folder in folders), os.environ.get("PATH", "")])
    found = shutil.which(WORKER_PROGRAM, path=path)
    return None if found is None else str(Path(found).absolute())
