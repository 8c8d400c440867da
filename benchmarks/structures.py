"""The two structures that are timed: ours, and the one that public code has.

fp32 is fp32 in both: the plain structure too runs with TF32 turned off, which PyTorch would allow
convolutions on CUDA.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import plain
import torch
from cases import Case, built, images
from launches import Count, Work
from torch import Tensor
from torch.utils.data import DataLoader

from regbench.core import device as devices
from regbench.prepare import Split
from regbench.training.loop import Epoch, Trained, fit


class Window(NamedTuple):
    """When steps began and ended, in seconds of the clock that all processes share."""

    began: float
    ended: float


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
        return Split(*(one.to(self._device) for one in images(self._case, steps)))

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
        noise = plain.Images(*images(case, case.steps))
        self._loader = DataLoader(noise, batch_size=case.batch, shuffle=True)

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
