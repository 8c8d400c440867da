"""A process of its own for each structure, so that neither lives with the other's allocator."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from cases import Case
from launches import COUNTS
from structures import DEVICES, STRUCTURES, Structure, Window, at_once

from regbench.core.memory import peak


class NotMeasuredError(Exception):
    """A case that cannot be built or run here, and why, in one line."""


SPAWN = multiprocessing.get_context("spawn")


class Worker:
    """A process that prepares one case and times blocks of its steps.

    Each method raises `NotMeasuredError` where that fails.
    """

    def __init__(self, device: str, threads: int, together: Barrier) -> None:
        self._together = together
        self._pipe, other = SPAWN.Pipe()
        arguments = (other, device, threads, together)
        self._process = SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def prepare(self, case: Case) -> int:
        """Build the case, take a first block of steps, untimed.

        Return the bytes that this has added, at the most, to the process; on CUDA, those that
        PyTorch has reserved on the GPU: a recorded step keeps its memory to itself.
        """
        return int(self._ask("prepare", case))

    def window(self) -> Window:
        """Return when the steps of one block began and ended; workers `together` begin at once."""
        return Window(*self._ask("window"))

    def launches(self) -> int:
        """Return what one step launches, as `launches.COUNTS` counts it."""
        return int(self._ask("launches"))

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)
        self._process.terminate()
        self._process.join()

    def _ask(self, question: str, *arguments: Case) -> Any:
        try:
            self._pipe.send((question, *arguments))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._together.abort()  # nobody is to wait for it
            raise NotMeasuredError("its process died") from error
        if isinstance(answer, NotMeasuredError):
            raise answer
        return answer


@contextmanager
def started(
    count: int, device: str, threads: int, *, together: bool = False
) -> Iterator[list[Worker]]:
    """Give `count` workers and end them; `together`, they time their blocks at the same time."""
    # one that fails breaks its barrier: of those that time by themselves each has its own
    shared = SPAWN.Barrier(count) if together else None
    workers = [Worker(device, threads, shared or SPAWN.Barrier(1)) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def _serve(pipe: Connection, device: str, threads: int, together: Barrier) -> None:
    torch.set_num_threads(threads)
    served = _Served(device, together)
    with suppress(EOFError):  # the pipe is closed: nothing more is asked
        while True:
            question, *arguments = pipe.recv()
            try:
                answer = getattr(served, question)(*arguments)
            except Exception as error:  # whatever it is, the other cases go on
                together.abort()
                told = " ".join(f"{type(error).__name__}: {error}".split())
                answer = NotMeasuredError(told[:200])
            pipe.send(answer)


class _Served:
    """What a worker's process answers with."""

    def __init__(self, device: str, together: Barrier) -> None:
        self._device, self._together = device, together
        self._structure: Structure
        self._before = _peak_memory(device)

    def prepare(self, case: Case) -> int:
        self._structure = STRUCTURES[case.structure](case, DEVICES[case.structure](self._device))
        self._structure.block(at_once)
        # of one training: the next one's recorded step would find a pool that is not yet given back
        return _peak_memory(self._device) - self._before

    def window(self) -> Window:
        return self._structure.block(self._together.wait)

    def launches(self) -> int:
        return self._structure.launches(COUNTS[self._device])


def _peak_memory(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    return peak(torch.device(device))["peak_memory"]
