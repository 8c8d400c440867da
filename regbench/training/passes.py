"""What a training step costs, counted: images that pass forward and backward through the network.

A measure of cost that knows no machine. An image passes forward when the network computes its
logits, and backward when a gradient comes back to them, be it on to the image or to the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from regbench.step import Step
from regbench.training.descent import TrainingLoss


class Passes(NamedTuple):
    """Passes per image of the mini-batch, of one step.

    Attributes:
        forward: at least 0.
        backward: likewise.
    """

    forward: float
    backward: float


class Count:
    """Rows of logits that a network has given, and that a gradient has come back to."""

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0

    def _seen(self, _module: nn.Module, _images: tuple[Tensor, ...], logits: Tensor) -> None:
        self.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._back)  # type: ignore[no-untyped-call]

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@contextmanager
def counting(model: nn.Module) -> Iterator[Count]:
    """Count what passes through `model` meanwhile, forward and backward."""
    count = Count()
    handle = model.register_forward_hook(count._seen)
    try:
        yield count
    finally:
        handle.remove()


def passes(loss: TrainingLoss, step: Step) -> Passes:
    """Count the passes of one step of `loss`, all but the update.

    Args:
        loss: the training loss.
        step: a mini-batch and a network of its own, whose gradients and statistics are moved.
    """
    with counting(step.model) as count:
        loss(step).total.backward()  # type: ignore[no-untyped-call]
    return Passes(count.forward / len(step.y), count.backward / len(step.y))
