"""A process of its own for each structure, so that neither lives with the other's allocator.

fp32 is fp32 in both: the plain structure too runs with TF32 turned off, which PyTorch would allow
convolutions on CUDA.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import checkout  # noqa: F401 - puts regbench on the path
import plain
import torch
from launches import COUNTS, Count, Work
from torch import Tensor, nn
from torch.utils.data import DataLoader

from regbench.core import device as devices
from regbench.core.memory import peak
from regbench.core.network import network
from regbench.core.precision import PRECISIONS
from regbench.experiment.cards import DataCard, ModelCard, RegularizerCard, RunCard, TrainingCard
from regbench.experiment.grid import PAPER_TRAINING
from regbench.experiment.members import build
from regbench.prepare import Data, Split
from regbench.training.descent import TrainingLoss
from regbench.training.loop import Epoch, Trained, fit

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "natural": {},
    "fgsm_at": {},
    "sat_r1": {"weight": 0.2, "steps": 10},
    "sat_r2": {"weight": 5.0, "alpha": 0.01, "projected": False},
    "sat_r3": {
        "weight": 1.0, "tau": 0.4, "alpha": 0.01,
        "epsilon_low": 0.1, "epsilon_high": plain.EPSILON, "projected": False,
    },
    "pgd_at": {"steps": plain.STEPS, "step_size": plain.STEP_SIZE},
    "trades": {"weight": 1.0, "steps": plain.STEPS, "step_size": plain.STEP_SIZE},
}  # fmt: skip
"""Those of plain.py."""

SHAPES = {
    "lenet_plus": (1, 28, 28), "small_cnn": (1, 8, 8),
    "resnet18": (3, 32, 32), "wrn_28_10": (3, 32, 32),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is timed: `steps` training steps of one method on one network.

    Attributes:
        structure: `ours` or `plain`.
        network: a file of regbench/models/.
        method: a file of regbench/regularizers/.
        precision: of regbench.core.precision; the plain structure knows fp32 only.
        batch: images per step, m.
        steps: per block that is timed.
        width: of the small CNN.
    """

    structure: str
    network: str
    method: str
    precision: str
    batch: int
    steps: int
    width: int | None = None


class Window(NamedTuple):
    """When steps began and ended, in seconds of the clock that all processes share."""

    began: float
    ended: float


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


def _images(case: Case, steps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = case.batch * steps
    x = torch.rand(count, *SHAPES[case.network], generator=generator)
    return x, torch.randint(10, (count,), generator=generator)


class Built(NamedTuple):
    """A case as regbench has it: card, untrained network, loss."""

    card: RunCard
    model: nn.Module
    loss: TrainingLoss


def built(case: Case, device: torch.device) -> Built:
    """Return what our structure makes of a case."""
    run = card(case)
    model = network(run, Data(Path(), SHAPES[case.network], 10, 1), device)
    return Built(run, model, build(run.regularizer.loss, run.regularizer.hyperparameters))


def card(case: Case) -> RunCard:
    """Return a run card of two epochs: the paper's optimizer, no augmentation, one image held out.

    The second epoch is the one that is timed.
    """
    own = {} if case.width is None else {"width": case.width}
    training = PAPER_TRAINING | {"selection_steps": 1, "precision": case.precision}
    return RunCard(
        data=DataCard(source="regbench.data.digits", arguments={}, validation=1, split_seed=0),
        model=ModelCard(architecture=f"regbench.models.{case.network}", arguments=own),
        regularizer=RegularizerCard(
            loss=f"regbench.regularizers.{case.method}",
            hyperparameters=HYPERPARAMETERS[case.method],
        ),
        epsilon=plain.EPSILON,
        training=TrainingCard(epochs=2, batch_size=case.batch, learning_rate=0.01, **training),
        seed=0,
    )


def add_case(parser: argparse.ArgumentParser, method: str, steps: int) -> None:
    """Let the command line name one case of ours; `method` and `steps` if it does not."""
    parser.add_argument("--network", default="lenet_plus", choices=plain.NETWORKS)
    parser.add_argument("--method", default=method, choices=HYPERPARAMETERS)
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=64, help="images per step")
    parser.add_argument("--steps", type=int, default=steps, help="per block")


def case_of(asked: argparse.Namespace) -> Case:
    """Return the case that a command line names."""
    return Case("ours", asked.network, asked.method, asked.precision, asked.batch, asked.steps)


def _plain_device(name: str) -> torch.device:
    """The device as public code takes it, but for TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(name)


Ready = Callable[[], object]


class Structure(Protocol):
    """A case, built."""

    def block(self, ready: Ready) -> Window:
        """Take the steps of a block; `ready` is called right before those that are timed."""

    def launches(self, count: Count) -> int:
        """Return what `count` counts in one step."""


class Ours:
    """`regbench.training.loop.fit` of two epochs: the second, as its curve has it, is timed."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self._case, self._device = case, device
        self._built = built(case, device)
        self._train = self._split(case.steps)

    def block(self, ready: Ready) -> Window:
        """See `Structure.block`."""
        starts: list[float] = []

        def progress(row: Epoch) -> None:
            if row["epoch"] == 1:
                ready()
                starts.append(time.perf_counter())

        trained = self.run(progress)
        return Window(starts[0], starts[0] + trained.curve[-1]["seconds"])

    def run(self, progress: Callable[[Epoch], None]) -> Trained:
        """Train for two epochs; `progress` hears of each."""
        return self._fit(self._train, progress)

    def launches(self, count: Count) -> int:
        """See `Structure.launches`: what two epochs of three steps have more than two of two."""
        few, more = (count(self._work(self._split(steps))) for steps in (2, 3))
        return (more - few) // 2

    def _work(self, train: Split) -> Work:
        return lambda: self._fit(train, _unheard)

    def _split(self, steps: int) -> Split:
        return Split(*(one.to(self._device) for one in _images(self._case, steps)))

    def _fit(self, train: Split, progress: Callable[[Epoch], None]) -> Trained:
        run, model, loss = self._built
        held_out = Split(train.x[:1], train.y[:1])
        trained = fit(run, model, loss, train, held_out, progress)
        if trained.status != "ok":
            raise RuntimeError(trained.status)
        return trained


class Plain:
    """Steps as public code takes them."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self._case, self._device = case, device
        self._model = plain.NETWORKS[case.network]().to(device)
        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )
        images = plain.Images(*_images(case, case.steps))
        self._loader = DataLoader(images, batch_size=case.batch, shuffle=True)

    def block(self, ready: Ready) -> Window:
        """See `Structure.block`."""
        ready()
        began = time.perf_counter()
        for x, y in self._loader:
            self._step(x.to(self._device), y.to(self._device))
        return Window(began, time.perf_counter())

    def launches(self, count: Count) -> int:
        """See `Structure.launches`; the loading of the images is not counted."""
        x, y = (one.to(self._device) for one in next(iter(self._loader)))
        return count(lambda: self._step(x, y))

    def _step(self, x: Tensor, y: Tensor) -> float:
        value = plain.LOSSES[self._case.method](self._model, x, y)
        self._optimizer.zero_grad()
        value.backward()
        self._optimizer.step()
        return value.item()


def at_once() -> None:
    """Nobody is waited for."""


def _unheard(row: Epoch) -> None:
    """Progress that nobody looks at."""


STRUCTURES: dict[str, Callable[[Case, torch.device], Structure]] = {"ours": Ours, "plain": Plain}
DEVICES: dict[str, Callable[[str], torch.device]] = {"ours": devices.pick, "plain": _plain_device}
