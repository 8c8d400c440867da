"""One step of SGD on a training loss; on a GPU recorded once and replayed as a CUDA graph.

A small network's step is hundreds of kernels of microseconds, which Python launches more slowly
than the GPU runs them. A graph launches them all at once. The author of a loss writes plain
PyTorch: what cannot be recorded, or does not give the same step when replayed, is taken eagerly.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regbench.precision import Precision
from regbench.step import Objective, Step

TrainingLoss = Callable[[Step], Objective]
Replay = Callable[[], object]
Recorder = Callable[[Callable[[], None], torch.Generator], Replay]

WARM_UP = 3
TOLERANCE = 1e-2
"""Of the weights' change in one step: how far a replayed step may lie from an eager one."""


class Descent:
    """A step of SGD on `loss`: the objective, its gradients, the update.

    Args:
        model: what is trained.
        loss: the training loss.
        optimizer: of the model's parameters.
        precision: that the objective is computed in.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: TrainingLoss,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self._loss = loss
        self._precision = precision

    def __call__(self, step: Step) -> Tensor:
        """Take the step; return loss, cross entropy and penalty, (3,), on the device."""
        with self._precision(step.x.device):
            objective = self._loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        objective.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        terms = (objective.total, objective.cross_entropy, objective.penalty)
        return torch.stack(terms).detach()


class Recorded:
    """A `Descent` whose full batches are replayed; a batch of another size is taken eagerly."""

    def __init__(self, descent: Descent, record: Recorder) -> None:
        self._descent = descent
        self._record = record
        self._static: Step | None = None
        self._replay: Replay | None = None
        self._terms = torch.zeros(3)

    def __call__(self, step: Step) -> Tensor:
        """Take the step, as `Descent` would."""
        if self._static is None:
            return self._first(step)
        if self._replay is None or len(step.y) != len(self._static.y):
            return self._descent(step)
        self._static.x.copy_(step.x)
        self._static.y.copy_(step.y)
        self._replay()
        return self._terms.clone()

    def _first(self, step: Step) -> Tensor:
        """Record the step and check it against an eager one; leave the state after one step."""
        before = _State.of(self._descent, step.generator)
        self._static = Step(
            step.model, step.x.clone(), step.y.clone(), step.epsilon, step.generator
        )
        try:
            replay = self._recorded(self._static)
            agree = self._agree(step, replay, before)
        except RuntimeError as error:
            return self._eagerly(step, before, f"cannot be recorded ({error})")
        if not agree:
            return self._eagerly(step, before, "is not the same when replayed")
        self._replay = replay
        return self._terms.clone()

    def _recorded(self, static: Step) -> Replay:
        def take() -> None:
            self._terms = self._descent(static)

        for _ in range(WARM_UP):
            take()
        return self._record(take, static.generator)

    def _agree(self, step: Step, replay: Replay, before: "_State") -> bool:
        """Tell whether a replayed step goes where an eager one goes; the replayed one counts."""
        before.restore(self._descent, step.generator)
        start = _flat(self._descent.model)
        self._descent(step)
        eager = _flat(self._descent.model)
        before.restore(self._descent, step.generator)
        replay()
        apart = (_flat(self._descent.model) - eager).norm()
        return bool(apart <= TOLERANCE * (eager - start).norm())

    def _eagerly(self, step: Step, before: "_State", why: str) -> Tensor:
        before.restore(self._descent, step.generator)
        told = " ".join(why.split())[:200]
        warnings.warn(f"this training step {told}; it is taken eagerly", stacklevel=3)
        return self._descent(step)


class _State(NamedTuple):
    """All that a step moves: weights, statistics, momentum, noise."""

    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    noise: Tensor

    @classmethod
    def of(cls, descent: Descent, generator: torch.Generator) -> "_State":
        weights = {name: value.clone() for name, value in descent.model.state_dict().items()}
        moved = momentum(descent.model, descent.optimizer)
        return cls(
            weights, {name: value.clone() for name, value in moved.items()}, generator.get_state()
        )

    def restore(self, descent: Descent, generator: torch.Generator) -> None:
        """Put everything back in place; momentum that there was none of becomes zero, its like."""
        with torch.no_grad():
            for name, value in descent.model.state_dict().items():
                value.copy_(self.weights[name])
            for name, value in momentum(descent.model, descent.optimizer).items():
                value.copy_(self.momentum.get(name, torch.zeros_like(value)))
        generator.set_state(self.noise)


def momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what momentum the optimizer has, by the name of the parameter that it moves."""
    states = {name: optimizer.state[one] for name, one in model.named_parameters()}
    return {
        name: state["momentum_buffer"]
        for name, state in states.items()
        if "momentum_buffer" in state
    }


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def cuda_graph(take: Callable[[], None], generator: torch.Generator) -> Replay:
    """Record `take`, which draws from `generator`, as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        take()
    return graph.replay
