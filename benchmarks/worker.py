"""A process of its own for each structure, so that neither lives with the other's allocator."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import plain
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from regbench import device as devices
from regbench.cards import DataCard, ModelCard, RegularizerCard, RunCard, TrainingCard
from regbench.descent import TrainingLoss
from regbench.grid import PAPER_TRAINING
from regbench.members import build
from regbench.memory import peak
from regbench.network import network
from regbench.prepare import Data, Split
from regbench.training import Epoch, fit

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

SHAPES = {"lenet_plus": (1, 28, 28), "resnet18": (3, 32, 32), "small_cnn": (1, 8, 8)}


@dataclass(frozen=True)
class Case:
    """What is timed: `steps` training steps of one method on one network.

    Attributes:
        structure: `ours` or `plain`.
        network: a file of regbench/models/.
        method: a file of regbench/regularizers/.
        precision: of regbench.precision; the plain structure knows fp32 only.
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


class Worker:
    """A process that prepares one case and times blocks of its steps."""

    def __init__(self, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, device, threads), daemon=True)
        self._process.start()

    def prepare(self, case: Case) -> None:
        """Build the case and take a first block of steps, untimed."""
        self._ask(case)

    def seconds(self) -> float:
        """Return the seconds of one block."""
        return float(self._ask("seconds"))

    def memory(self) -> int:
        """Return the bytes that the case has added to the process, or to the GPU, at the most."""
        return int(self._ask("memory"))

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    def _ask(self, question: Case | str) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()


def _serve(pipe: Connection, name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    case: Case = pipe.recv()
    before = _peak_memory(name)
    device = devices.pick(name) if case.structure == "ours" else torch.device(name)
    block = STRUCTURES[case.structure](case, device)
    block()
    answers = {"seconds": block, "memory": lambda: _peak_memory(name) - before}
    pipe.send(None)
    while True:
        pipe.send(answers[pipe.recv()]())


def _peak_memory(device: str) -> int:
    held = peak(torch.device(device))
    return held.get("peak_gpu_memory", held["peak_memory"])


def _images(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = case.batch * case.steps
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


def ours(case: Case, device: torch.device) -> Callable[[], float]:
    """Return a block of `regbench.training.fit`: its second epoch, as the learning curve has it."""
    x, y = (one.to(device) for one in _images(case))
    run, model, loss = built(case, device)

    def block() -> float:
        trained = fit(run, model, loss, Split(x, y), Split(x[:1], y[:1]), _unheard)
        return trained.curve[-1]["seconds"]

    return block


def plainly(case: Case, device: torch.device) -> Callable[[], float]:
    """Return a block of steps as public code takes them."""
    model = plain.NETWORKS[case.network]().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(plain.Images(*_images(case)), batch_size=case.batch, shuffle=True)

    def block() -> float:
        started = time.perf_counter()
        for x, y in loader:
            _plain_step(model, optimizer, plain.LOSSES[case.method], x.to(device), y.to(device))
        return time.perf_counter() - started

    return block


def _plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: plain.Loss, x: Tensor, y: Tensor
) -> float:
    value = loss(model, x, y)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item()


def _unheard(row: Epoch) -> None:
    """Progress that nobody looks at."""


STRUCTURES = {"ours": ours, "plain": plainly}
