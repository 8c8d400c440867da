"""What a config may name and yet not mean: each refused in one line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from regbench.errors import UserError, did_you_mean
from regbench.experiment.config import Experiment
from regbench.experiment.manifest import AttackEntry, Run


@contextmanager
def telling(place: str) -> Iterator[None]:
    """Put the place in the config, `datasets.mnist.models.lenet`, before what is refused there."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config: {place}: {str(error).removeprefix('config: ')}") from error


def refuse_unjudged(experiment: Experiment) -> None:
    """Refuse a data set without attacks, and attacks that no data set takes."""
    own = {dataset: data.attacks is not None for dataset, data in experiment.datasets.items()}
    for dataset, data in experiment.datasets.items():
        if not (data.attacks if own[dataset] else experiment.attacks):
            raise UserError(
                f"config: {dataset} has no attacks to be judged by; give some under `attacks:` or"
                f" datasets.{dataset}.attacks, at the least `white_box: {{clean: }}`"
            )
    if experiment.attacks and all(own.values()):
        raise UserError(
            "config: attacks: every data set has attacks of its own, so that these judge nothing;"
            " drop them, or those of a data set"
        )


def refuse_nothing(dataset: str, cells: Sequence[Run]) -> None:
    """Refuse a data set without a network to judge."""
    if not cells:
        raise UserError(
            f"config: datasets.{dataset} has nothing to judge; give it `models:`, and the"
            " experiment `regularizers:` to train them by, or networks under `pretrained:`"
        )


def refuse_taken(experiment: Experiment) -> None:
    """Refuse a pretrained network that is called as a regularizer, a source or a network is."""
    for dataset, data in experiment.datasets.items():
        taken = {
            "regularizers": {*experiment.regularizers},
            "sources": {*data.sources},
            "models": {*data.models, *(one.model for one in data.pretrained.values())},
        }
        for kind, names in taken.items():
            for name in sorted(data.pretrained.keys() & names):
                raise UserError(
                    f"config: datasets.{dataset}.pretrained.{name} is called as one of `{kind}:`"
                    " is; give it another name"
                )


def refuse_borrowed_labels(runs: Sequence[Run]) -> None:
    """Refuse a pretrained network that is labelled as another method is, on whichever network."""
    owners = {run.label: run.regularizer for run in runs if not run.weights}
    for run in runs:
        owner = owners.setdefault(run.label, run.regularizer)
        if run.weights and owner != run.regularizer:
            refuse_equal_labels("the methods", {owner: run.label, run.regularizer: run.label})


def refuse_twins(runs: list[Run]) -> None:
    """Refuse two entries that ask for the same training, or for the same weights."""
    seen: dict[str, Run] = {}
    for run in runs:
        same = f"{run.dataset} {run.card.key}" if run.weights else run.folder
        twin = seen.setdefault(same, run)
        if twin is not run:
            change = "" if run.weights else ", or change a hyperparameter"
            raise UserError(
                f"config: '{twin.regularizer}' and '{run.regularizer}' on {run.dataset} ask for the"
                f" same {'weights' if run.weights else 'training'}; drop one{change}"
            )


def refuse_unknown_gap(experiment: Experiment, attacks: dict[str, tuple[AttackEntry, ...]]) -> None:
    """Refuse a gap between attacks that a data set does not have, or of one with itself."""
    if experiment.gap and experiment.gap[0] == experiment.gap[1]:
        raise UserError(f"config: gap names '{experiment.gap[0]}' twice; it takes two attacks")
    for dataset, entries in attacks.items():
        known = [entry.name for entry in entries if entry.sweep is None]
        for name in experiment.gap or ():
            if name not in known:
                raise UserError(
                    f"config: gap names the attack '{name}', which {dataset} does not have"
                    f"{did_you_mean(name, known)}"
                )


def refuse_unknown_references(experiment: Experiment) -> None:
    """Refuse a reference that is no entry of `regularizers:` and no pretrained network."""
    pretrained = [name for data in experiment.datasets.values() for name in data.pretrained]
    known = [*experiment.regularizers, *pretrained]
    for name in experiment.references or ():
        if name not in known:
            raise UserError(
                f"config: references names '{name}', which `regularizers:` does not choose"
                f"{did_you_mean(name, known)}"
            )


def refuse_equal_labels(what: str, labels: dict[str, str]) -> None:
    """Refuse two names with one label, which tables and figures would mix."""
    owners: dict[str, str] = {}
    for name, label in labels.items():
        owner = owners.setdefault(label, name)
        if owner != name:
            raise UserError(
                f"config: of {what}, '{owner}' and '{name}' are both labelled '{label}', so tables"
                " would mix them; give one of them another label"
            )
