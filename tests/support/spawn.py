"""Become another program that dies with its parent: ``spawn.py PARENT NOFILE PROGRAM [ARGUMENT ...]``.

Done by a program of its own because code between fork and exec is not safe in a parent with threads.
PARENT is the parent's process ID; NOFILE limits the open descriptors, 0 leaves the limit as it is.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, nofile: int, argv: list[str]) -> None:
    """Set up and exec."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask for the signal
        sys.exit(1)
    if nofile:
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
