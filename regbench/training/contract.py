"""What a training loss keeps to: an objective of two scalars, and no state but in buffers.

A step is replayed on a GPU and a training is taken up again after a kill, so what a loss carries
from step to step must be known: the buffers of a `torch.nn.Module`, changed in place. What depends
on how far the training is needs no state, `step.progress` tells it.
"""

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from regbench.errors import UserError
from regbench.step import Objective


def carried(loss: object) -> dict[str, Tensor]:
    """Return what a loss carries from step to step, by name: its buffers themselves."""
    return dict(loss.named_buffers()) if isinstance(loss, nn.Module) else {}


def checked(objective: object, loss: object) -> Objective:
    """Return what `loss` returned, a number in it as a tensor.

    Raises:
        UserError: it is no `Objective` of two scalars, or one has no way back to the weights.
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
    dead = [
        name
        for name, one in objective._asdict().items()
        if isinstance(one, Tensor) and not one.requires_grad
    ]
    if dead:
        raise UserError(
            f"{_name(loss)} returned an Objective without a way back to the weights from its"
            f" {' and '.join(dead)}, which would train nothing; take logits by step.logits(x) and"
            " detach none of them (step.gradient and step.frozen_logits have no graph), and where"
            " there is no penalty write the number 0.0"
        )
    like = terms[0]
    return Objective(
        *(one if isinstance(one, Tensor) else like.new_full((), one) for one in objective)
    )


class Watch:
    """Refuses a loss that carries something from step to step, other than in its buffers.

    What the first step sets up may stay, but no buffer: those are there from the beginning.
    """

    def __init__(self, loss: object) -> None:
        self._loss = loss
        self._buffers = _identities(loss)
        self._seen: dict[str, object] | None = None

    def __call__(self) -> None:
        """Look, after a step.

        Raises:
            UserError: an attribute is another than after the first step, or a buffer another tensor
                than in the beginning.
        """
        now = _attributes(self._loss)
        if self._seen is None:
            self._seen = now
        moved = [name for name, one in now.items() if one != self._seen.get(name, _NOTHING)]
        if moved:
            raise UserError(
                f"{_name(self._loss)} keeps {', '.join(map(repr, moved))} from step to step, which"
                " an interrupted training and a replayed step would lose; use step.progress, or"
                " make the loss a torch.nn.Module and that a buffer, changed in place"
            )
        if _identities(self._loss) != self._buffers:
            raise UserError(
                f"{_name(self._loss)} has other buffers than it began with; register them when it"
                " is made, and change them in place, as by copy_ or lerp_"
            )


_NOTHING = object()


def _identities(loss: object) -> dict[str, int]:
    return {name: id(buffer) for name, buffer in carried(loss).items()}


def _attributes(loss: object) -> dict[str, object]:
    """Everything that a loss and the modules within it hold, but for buffers, by name."""
    parts = dict(loss.named_modules()) if isinstance(loss, nn.Module) else {"": loss}
    return {
        f"{part}.{name}".lstrip("."): _picture(value)
        for part, one in parts.items()
        for name, value in getattr(one, "__dict__", {}).items()
        if name not in INTERNAL
    }


INTERNAL = set(vars(nn.Module()))
"""What every module holds: buffers are known, parameters are nobody's to train here."""


PLAIN = (bool, int, float, complex, str, bytes, torch.device)


def _picture(value: object) -> object:
    """What two looks at a value that nobody changed have in common."""
    if isinstance(value, Tensor):
        return id(value), value._version
    if value is None or isinstance(value, PLAIN):
        return type(value), repr(value)  # a NaN is itself
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, Mapping):
        return type(value), [(_picture(key), _picture(one)) for key, one in value.items()]
    if isinstance(value, tuple | list | set | frozenset | deque):
        return type(value), [_picture(one) for one in value]
    return id(value)


def _name(loss: object) -> str:
    return f"the loss '{getattr(loss, '__name__', type(loss).__name__)}'"


def _told(value: object) -> str:
    kind = type(value).__name__
    return f"a {kind} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {kind}"
