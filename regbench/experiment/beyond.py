"""Lengths of a training that go beyond the radius that it is for: allowed, and rarely meant."""

from collections.abc import Iterable
from typing import get_type_hints

from regbench.experiment.cards import RunCard
from regbench.experiment.manifest import Run
from regbench.experiment.members import load
from regbench.experiment.values import written
from regbench.lengths import Length, StepSize


def beyond(runs: Iterable[Run]) -> list[str]:
    """Return a line for each loss whose lengths, of its declared types, are larger than ε."""
    lines = {
        f"{run.label} on {run.dataset} is trained with {', '.join(found)}, more than"
        f" ε = {written(run.card.epsilon)}"
        for run in runs
        if (found := _lengths(run))
    }
    return sorted(lines)


def _lengths(run: Run) -> list[str]:
    if not isinstance(run.card, RunCard):
        return []
    loss = run.card.regularizer
    try:
        kinds = get_type_hints(load(loss.loss), include_extras=True)
    except (NameError, TypeError):  # annotated for people alone
        return []
    return [
        f"{name} = {written(value)}"
        for name, value in loss.hyperparameters.items()
        if kinds.get(name) in (Length, StepSize) and value > run.card.epsilon
    ]
