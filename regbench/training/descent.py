"""One step of SGD on a training loss; on a GPU recorded once and replayed as a CUDA graph.

A small network's step is hundreds of kernels of microseconds, which Python launches more slowly
than the GPU runs them. A graph launches them all at once. The author of a loss writes plain
PyTorch: what cannot be recorded, or does not give the same step when replayed, is taken eagerly.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regbench.core.precision import Precision
from regbench.step import Objective, Step
from regbench.training.contract import Watch, carried, checked

TrainingLoss = Callable[[Step], Objective]
Replay = Callable[[], object]
Recorder = Callable[[Callable[[], None], torch.Generator], Replay]

WARM_UP = 3
TOLERANCE = 1e-2
"""Of the weights' change in one step: how far a replayed step may lie from an eager one."""

WAVERING = 3
"""Or so many times as far as replays lie from one another: cuDNN may take kernels that add in any
order, and a sign that turns in an attack of many steps moves an image far."""


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
        self.loss = loss
        self._precision = precision
        self._watch = Watch(loss)

    def __call__(self, step: Step) -> Tensor:
        """Take the step; return loss, cross entropy and penalty, (3,), on the device."""
        device = step.x.device
        with self._precision(device):
            objective = checked(self.loss(step), self.loss)
            self._watch()
            self.optimizer.zero_grad(set_to_none=True)
            # TF32 for the way back too; autocast has chosen its types on the way there
            with torch.autocast(device.type, enabled=False):
                objective.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        terms = (objective.total, *map(torch.as_tensor, objective))
        return torch.stack(terms).detach()


class Recorded:
    """A `Descent` whose batches of `size` images are replayed; another is taken eagerly.

    Its optimizer's rates are tensors, which a replay follows, and begin at their highest.
    """

    def __init__(self, descent: Descent, record: Recorder, size: int) -> None:
        self._descent = descent
        self._record = record
        self._size = size
        self._static: Step | None = None
        self._replay: Replay | None = None
        self._terms = torch.zeros(3)
        # not yet where a cyclic rate begins, whose steps are too short to be told from rounding
        self._highest = [group["lr"].clone() for group in descent.optimizer.param_groups]

    def __call__(self, step: Step) -> Tensor:
        """Take the step, as `Descent` would."""
        if len(step.y) != self._size:
            return self._descent(step)
        if self._static is None:
            return self._first(step)
        if self._replay is None:
            return self._descent(step)
        self._static.x.copy_(step.x)
        self._static.y.copy_(step.y)
        self._static.progress.copy_(step.progress)
        self._replay()
        return self._terms.clone()

    def _first(self, step: Step) -> Tensor:
        """Record the step and check it against an eager one; leave the state after one step."""
        before = _State.of(self._descent, step)
        own = {name: getattr(step, name).clone() for name in ("x", "y", "progress")}
        self._static = replace(step, **own)
        with self._striding():
            wrong = self._try(step, self._static, before)
        if wrong:  # not where the error was caught: its traceback holds the graph's memory
            return self._eagerly(step, before, wrong)
        before.restore(self._descent)
        return self(step)

    @contextmanager
    def _striding(self) -> Iterator[None]:
        """Take steps at the rate that the optimizer began with, meanwhile."""
        groups = self._descent.optimizer.param_groups
        rates = [group["lr"].clone() for group in groups]
        for group, highest in zip(groups, self._highest, strict=True):
            group["lr"].copy_(highest)
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"].copy_(rate)

    def _try(self, step: Step, static: Step, before: "_State") -> str:
        """Record the step and keep it if it is right when replayed; else return what is wrong."""
        try:
            replay = self._recorded(static)
            apart, wavering = self._apart(step, replay, before)
        except RuntimeError as error:
            return f"cannot be recorded ({_cause(error)})"
        if not apart <= max(TOLERANCE, WAVERING * wavering):
            return (
                f"is not the same when replayed ({apart:.2g} of the step away, replays"
                f" {wavering:.2g} from one another)"
            )
        self._replay = replay
        return ""

    def _recorded(self, static: Step) -> Replay:
        def take() -> None:
            self._terms = self._descent(static)

        for _ in range(WARM_UP):
            take()
        return self._record(take, static.generator)

    def _apart(self, step: Step, replay: Replay, before: "_State") -> tuple[float, float]:
        """Return how far from an eager step a replayed one ends, and from another replayed one.

        As shares of the step. What replays do not share among themselves is the kernels'; a number
        that the recording froze they do share.
        """
        before.restore(self._descent)
        start = _flat(self._descent.model)
        ends = []
        for take in (self._descent, lambda _: replay(), lambda _: replay()):
            before.restore(self._descent)
            take(step)
            ends.append(_flat(self._descent.model))
        eager, replayed, again = ends
        length = (eager - start).norm()
        far = [(again - one).norm() for one in (eager, replayed)]
        apart, wavering = (float(one / length) if one else 0.0 for one in far)
        return apart, wavering

    def _eagerly(self, step: Step, before: "_State", why: str) -> Tensor:
        # before anything else can fail, and nobody learns why
        told = " ".join(why.split())[:200]
        warnings.warn(f"this training step {told}; it is taken eagerly", stacklevel=3)
        self._terms = torch.zeros(3)
        self._descent.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        before.restore(self._descent)
        return self._descent(step)


def _cause(error: BaseException) -> BaseException:
    """The first error of torch's: what follows it says only that the recording broke off."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return error


class _State(NamedTuple):
    """All that a step moves: weights, statistics, what the loss carries, momentum, noise."""

    weights: dict[str, Tensor]
    carried: dict[str, Tensor]
    momentum: dict[str, Tensor]
    noise: tuple[tuple[torch.Generator, Tensor], ...]

    @classmethod
    def of(cls, descent: Descent, step: Step) -> "_State":
        weights = {name: value.clone() for name, value in descent.model.state_dict().items()}
        kept = {name: value.clone() for name, value in carried(descent.loss).items()}
        moved = momentum(descent.model, descent.optimizer)
        streams = (step.generator, _default(step.x.device))  # dropout draws from the default one
        return cls(
            weights,
            kept,
            {name: value.clone() for name, value in moved.items()},
            tuple((stream, stream.get_state()) for stream in streams),
        )

    def restore(self, descent: Descent) -> None:
        """Put everything back in place; momentum that there was none of becomes zero, its like."""
        with torch.no_grad():
            for name, value in descent.model.state_dict().items():
                value.copy_(self.weights[name])
            for name, value in carried(descent.loss).items():
                value.copy_(self.carried[name])
            for name, value in momentum(descent.model, descent.optimizer).items():
                value.copy_(self.momentum.get(name, torch.zeros_like(value)))
        for stream, state in self.noise:
            stream.set_state(state)


def _default(device: torch.device) -> torch.Generator:
    """The stream of `device` that is drawn from where none is named."""
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


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
    with _never_waiting():
        take()
    graph = torch.cuda.CUDAGraph()
    _register(graph, generator)
    torch.cuda.synchronize()
    stream = torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            take()
    except RuntimeError:
        # where a recording breaks off torch 2.11 stays on its stream, and noise counts as recorded
        torch.cuda.set_stream(stream)
        for noise in (generator, _default(stream.device)):
            noise.graphsafe_set_state(noise.clone_state())
        raise
    return graph.replay


def _register(graph: torch.cuda.CUDAGraph, generator: torch.Generator) -> None:
    """Let replays draw new noise; newer versions of torch do so by themselves, and say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        getattr(graph, "register_generator_state", lambda _: None)(generator)


@contextmanager
def _never_waiting() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the GPU, before a recording breaks off there.

    A recording that breaks off leaves torch's noise unusable in some versions.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)
