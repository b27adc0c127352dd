"""Options of the worker process that a node passes on: ``options.extra`` of the worker item."""

from pathlib import Path
from typing import Annotated, Any

from autobahn.wamp.types import ComponentConfig

from proxy.config.fields import StrictModel, integer
from proxy.config.loading import checked
from proxy.config.worker import WorkerConfig
from proxy.plane import THREADS_MAX

__all__ = ["ExtraOptions", "extra_options"]


class ExtraOptions(StrictModel):
    """What ``options.extra`` may hold.

    :ivar threads: data threads; None: one for each core that the process may use.
    :ivar shutdown_timeout: how long sessions may take to end when the worker ends, ms. The node kills a worker that
        needs more than about 20 s.
    """

    threads: Annotated[int, integer(1, THREADS_MAX)] | None = None
    shutdown_timeout: Annotated[int, integer(1, 600_000, "ms")] = WorkerConfig.model_fields["shutdown_timeout"].default


def extra_options(config: ComponentConfig | None) -> ExtraOptions:
    """The options of a worker.

    :param config: as its constructor gets it; None: it runs alone.
    :raises ConfigError: an unknown key, or a value out of range.
    """
    item: Any = getattr(config.extra, "extra", None) if config is not None else None
    options: ExtraOptions
    options, _ = checked(ExtraOptions, item or {}, Path())
    return options
