"""A GPU is lent to as many processes at a time as the config says, whoever starts them.

Snakemake's `resources: gpu` plans by the same number, but a second Snakemake, or `--resources
gpu=9` on the command line, knows nothing of it; a lock does, and goes with its process.
"""

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from regbench.core import device as devices
from regbench.experiment.environment import positive
from regbench.storage.locks import taken

FOLDER = Path("/tmp/regbench-gpus")
"""Shared by all users of the machine, whatever their $TMPDIR."""

POLL = 0.5
"""Seconds between two looks for a free GPU."""


@contextmanager
def leased(name: str | None = None) -> Iterator[torch.device]:
    """Give the device of `regbench.core.device.pick`; wait until a GPU has room, and hold it.

    $REGBENCH_RUNS_PER_GPU says how many processes share one, 1 by default.

    Raises:
        UserError: of `pick`, or $REGBENCH_RUNS_PER_GPU is no number above 0.
    """
    device = devices.pick(name)
    if device.type != "cuda":
        yield device
        return
    gpus = [
        str(torch.cuda.get_device_properties(index).uuid)
        for index in range(torch.cuda.device_count())
    ]
    share = positive("REGBENCH_RUNS_PER_GPU", 1)
    with room(gpus, math.ceil(share), FOLDER) as index:
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)


@contextmanager
def room(gpus: Sequence[str], share: int, folder: Path) -> Iterator[int]:
    """Wait until fewer than `share` processes hold one of `gpus`, and hold it; give which.

    Args:
        gpus: names that no two GPUs have in common.
        share: how many processes may hold one.
        folder: where the locks lie.
    """
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)  # for every user of the machine, as the temporary folder itself
    said = False
    while (held := _first_free(gpus, share, folder)) is None:
        if not said:
            print(f"all {len(gpus)} GPUs are lent; waiting for one", file=sys.stderr)
            said = True
        time.sleep(POLL)
    index, handle = held
    try:
        yield index
    finally:
        os.close(handle)


def _first_free(gpus: Sequence[str], share: int, folder: Path) -> tuple[int, int] | None:
    """The emptiest first: a second process goes to another GPU if there is one."""
    for place in range(share):
        for index, gpu in enumerate(gpus):
            handle = _opened(folder / f"{gpu}-{place}")
            if taken(handle):
                return index, handle
            os.close(handle)
    return None


def _opened(lock: Path) -> int:
    """Open a lock, another user's too; to hold it, reading suffices."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444)
    except FileExistsError:
        # without O_CREAT, which is refused for another user's file in a folder that all write to
        return os.open(lock, os.O_RDONLY)
    os.fchmod(handle, 0o444)  # whatever the umask
    return handle
