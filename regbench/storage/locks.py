"""One process at a time: locks that the kernel drops with their process, however it ends."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole(path: Path) -> Iterator[bool]:
    """Hold the file or folder `path` alone, waiting for a process that does; give whether it did.

    A job may still be at work when whoever started it was killed.
    """
    handle = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT))
    try:
        waits = not taken(handle)
        if waits:
            print(f"another process is at work on '{path}'; waiting for it", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield waits
    finally:
        os.close(handle)


def taken(handle: int) -> bool:
    """Lock the open file `handle` if no other process has; tell whether it is ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
