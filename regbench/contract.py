"""What a training loss keeps to: an objective of two scalars, and no state but in buffers.

A step is replayed on a GPU and a training is taken up again after a kill, so what a loss carries
from step to step must be known: the buffers of a `torch.nn.Module`, changed in place. What depends
on how far the training is needs no state, `step.progress` tells it.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from regbench.errors import UserError
from regbench.step import Objective


def carried(loss: object) -> dict[str, Tensor]:
    """Return what a loss carries from step to step, by name; the tensors themselves."""
    return dict(loss.state_dict()) if isinstance(loss, nn.Module) else {}


def checked(objective: object, loss: object) -> Objective:
    """Return what `loss` returned, a number in it as a tensor.

    Raises:
        UserError: it is no `Objective` of two scalars, or has no way back to the weights.
    """
    if not isinstance(objective, Objective):
        raise UserError(
            f"{_name(loss)} returned {_told(objective)}; return two scalars,"
            " regbench.step.Objective(cross_entropy, penalty)"
        )
    terms = [one for one in objective if isinstance(one, Tensor)]
    if not terms or any(one.ndim for one in terms):
        told = ", ".join(map(_told, objective))
        raise UserError(f"{_name(loss)} returned an Objective of {told}; expected two scalars")
    if not any(one.requires_grad for one in terms):
        raise UserError(
            f"{_name(loss)} returned an Objective without a way back to the weights; take logits by"
            " step.logits(x), and detach none of them"
        )
    like = terms[0]
    return Objective(
        *(one if isinstance(one, Tensor) else like.new_full((), one) for one in objective)
    )


class Watch:
    """Refuses a loss whose attributes change from step to step; what the first sets up may stay."""

    def __init__(self, loss: object) -> None:
        self._loss = loss
        self._calls = 0
        self._seen: dict[str, _Seen] = {}

    def __call__(self) -> None:
        """Look, after a step.

        Raises:
            UserError: an attribute is another than after the first step.
        """
        self._calls += 1
        if self._calls == 1:
            self._seen = _attributes(self._loss)
        elif self._calls == 2:
            self._compare()

    def _compare(self) -> None:
        now = _attributes(self._loss)
        moved = [name for name, one in now.items() if not one.still(self._seen.get(name))]
        if moved:
            raise UserError(
                f"{_name(self._loss)} keeps {', '.join(map(repr, moved))} from step to step, which"
                " an interrupted training and a replayed step would lose; use step.progress, or"
                " make the loss a torch.nn.Module and that a buffer, changed in place"
            )


class _Seen(NamedTuple):
    """An attribute, and how often it had been changed if it is a tensor."""

    value: Any
    version: int | None

    def still(self, before: "_Seen | None") -> bool:
        return before is not None and self.value is before.value and self.version == before.version


def _attributes(loss: object) -> dict[str, _Seen]:
    attributes = getattr(loss, "__dict__", {}).items()
    return {name: _Seen(value, getattr(value, "_version", None)) for name, value in attributes}


def _name(loss: object) -> str:
    return f"the loss '{getattr(loss, '__name__', type(loss).__name__)}'"


def _told(value: object) -> str:
    kind = type(value).__name__
    return f"a {kind} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {kind}"
