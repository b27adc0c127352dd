"""What is left out of the libraries that are imported."""

import sys

__all__ = ["leave_out_ubjson"]


def leave_out_ubjson() -> None:
    """Keep autobahn from loading its UBJSON, where that is installed.

    Nothing here uses it, it brings NumPy along, which takes longer to load than all the rest, and where the two do not
    fit each other the terminal is filled with their quarrel. To be called by programs, before autobahn is imported.
    """
    sys.modules.setdefault("bjdata", None)  # type: ignore[arg-type]
