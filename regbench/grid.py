"""The grid: what the config chooses of what the rules declare, as cells with card and path.

Paths: results/DATASET/data-KEY.safetensors, results/DATASET/MODEL/RULE/SEED-KEY/ and, in there,
SUITE-KEY.parquet. KEY is the hash of the card, so experiments share the cells they agree on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from regbench.cards import (
    AttackCard,
    DataCard,
    ModelCard,
    RegularizerCard,
    RunCard,
    SuiteCard,
    TrainingCard,
)
from regbench.config import (
    Attack,
    DataSet,
    Experiment,
    Model,
    Regularizer,
    Training,
    canonical,
)
from regbench.errors import UserError, did_you_mean
from regbench.manifest import AttackEntry, Declared, Manifest, Run
from regbench.members import reference
from regbench.refusals import refuse_equal_labels, refuse_twins, refuse_unknown_gap

RESULTS = "results"

PAPER_TRAINING = {
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": [0.25, 0.5, 0.75],
    "decay": 0.2,
    "crop_padding": 0,
    "flip": False,
    "selection_steps": 3,
    "precision": "fp32",
}
"""arXiv:2002.00614's, for what no level of the config sets."""


@dataclass(frozen=True)
class _Task:
    """A data set with one of its networks, resolved as far as all its regularizers share it."""

    dataset: str
    model: str
    data: DataSet
    network: Model
    data_card: DataCard
    model_card: ModelCard
    suites: dict[str, SuiteCard]

    @property
    def data_path(self) -> str:
        return f"{RESULTS}/{self.dataset}/data-{self.data_card.key}.safetensors"


def resolve(experiment: Experiment, declared: dict[str, Declared]) -> Manifest:
    """Return every cell of the experiment.

    Raises:
        UserError: a name that nothing declares, or two entries that ask for the same training.
    """
    tasks = [
        _task(experiment, dataset, model)
        for dataset, data in experiment.datasets.items()
        for model in data.models
    ]
    runs = [
        run
        for task in tasks
        for name, levels in _levels(experiment, task).items()
        for run in _runs(experiment, task, name, _declared(declared, name, levels), levels)
    ]
    refuse_twins(runs)
    refuse_equal_labels("the regularizers", {run.regularizer: run.label for run in runs})
    attacks = {task.dataset: _attack_entries(experiment, task) for task in tasks}
    refuse_unknown_gap(experiment, attacks)
    return Manifest(
        experiment=experiment.experiment,
        runs=tuple(runs),
        attacks=attacks,
        suites={
            run.verdicts[suite]: task.suites[suite]
            for task in tasks
            for run in runs
            if (run.dataset, run.model) == (task.dataset, task.model)
            for suite in task.suites
        },
    )


def _task(experiment: Experiment, dataset: str, model: str) -> _Task:
    data = experiment.datasets[dataset]
    network = data.models[model]
    data_card = DataCard(
        source=reference("data", data.dataset or dataset),
        arguments=data.parameters,
        validation=data.validation,
        split_seed=data.split_seed,
    )
    architecture = reference("models", network.model or model)
    for name in ("shape", "classes"):
        if name in network.parameters:
            raise UserError(
                f"config: datasets.{dataset}.models.{model} sets '{name}', which the data set gives"
            )
    suites = {
        suite: SuiteCard(
            attacks={
                name: _attack_card(data, name, attack, experiment.evaluation.images)
                for name, attack in attacks.items()
            },
            **experiment.evaluation.model_dump(exclude={"images"}),
        )
        for suite, attacks in (data.attacks or experiment.attacks).items()
    }
    return _Task(
        dataset, model, data, network, data_card,
        ModelCard(architecture=architecture, arguments=network.parameters), suites,
    )  # fmt: skip


def _attack_card(data: DataSet, name: str, attack: Attack, images: int | None) -> AttackCard:
    where = reference("attacks", attack.attack or name)
    epsilon = data.epsilon if attack.epsilon is None else attack.epsilon
    arguments = {**attack.parameters, "epsilon": epsilon}
    return AttackCard(attack=where, arguments=arguments, images=attack.images or images)


def _levels(experiment: Experiment, task: _Task) -> dict[str, list[Regularizer]]:
    """Return each chosen regularizer's entries: the experiment's, the data set's, the model's."""
    chosen = experiment.regularizers
    levels = {name: [entry] for name, entry in chosen.items()}
    for entries in (task.data.regularizers, task.network.regularizers):
        for name, entry in entries.items():
            if name not in chosen:
                raise UserError(
                    f"config: datasets.{task.dataset} sets '{name}', which `regularizers:` does not"
                    f" choose{did_you_mean(name, chosen)}"
                )
            levels[name].append(entry)
    return levels


def _declared(declared: dict[str, Declared], name: str, levels: list[Regularizer]) -> Declared:
    rule = next((one.regularizer for one in levels if one.regularizer), name)
    if rule not in declared:
        raise UserError(
            f"config: no rule declares the regularizer '{rule}'{did_you_mean(rule, declared)}"
            " (a regularizer is declared in rules/regularizers/NAME.smk)"
        )
    return declared[rule]


def _runs(
    experiment: Experiment,
    task: _Task,
    name: str,
    rule: Declared,
    levels: list[Regularizer],
) -> Iterator[Run]:
    """The cells of one regularizer on one task: one per seed."""
    hyperparameters = {key: canonical(key, value) for key, value in rule.hyperparameters.items()}
    for level in levels:
        hyperparameters |= level.parameters
    sections = (experiment.training, task.data.training, task.network.training)
    training = _training([*sections, *(level.training for level in levels)], task.dataset, name)
    for seed in next((one.seeds for one in reversed(levels) if one.seeds), experiment.seeds):
        card = RunCard(
            data=task.data_card,
            model=task.model_card,
            regularizer=RegularizerCard(loss=rule.loss, hyperparameters=hyperparameters),
            epsilon=task.data.epsilon,
            training=training,
            seed=seed,
        )
        folder = f"{RESULTS}/{task.dataset}/{task.model}/{rule.name}/{seed}-{card.key}"
        yield Run(
            dataset=task.dataset,
            model=task.model,
            regularizer=name,
            label=_label(rule, name, levels),
            seed=seed,
            cost=_cost(rule, hyperparameters, training.batch_size),
            folder=folder,
            data=task.data_path,
            verdicts={
                suite: f"{folder}/{suite}-{one.key}.parquet" for suite, one in task.suites.items()
            },
            card=card,
        )


def _label(rule: Declared, name: str, levels: list[Regularizer]) -> str:
    own = [one.label for one in reversed(levels) if one.label]
    return own[0] if own else rule.label if name == rule.name else name


def _training(sections: list[Training], dataset: str, name: str) -> TrainingCard:
    """Merge the sections, the later ones winning, over the paper's values."""
    merged: dict[str, Any] = dict(PAPER_TRAINING)
    for section in sections:
        merged |= section.model_dump(exclude_none=True)
    try:
        return TrainingCard.model_validate(merged)
    except ValidationError as error:
        key = error.errors()[0]["loc"][0]
        raise UserError(
            f"config: training.{key} is set nowhere for {name} on {dataset}; set it under"
            " `training:`"
        ) from error


def _cost(rule: Declared, hyperparameters: dict[str, Any], batch_size: int) -> float:
    try:
        return float(rule.cost(hyperparameters, batch_size))
    except Exception as error:  # it is the user's own function
        raise UserError(
            f"rules/regularizers/{rule.name}.smk: its cost cannot be computed from"
            f" {hyperparameters}: {type(error).__name__}: {error}"
        ) from error


def _attack_entries(experiment: Experiment, task: _Task) -> tuple[AttackEntry, ...]:
    suites = task.data.attacks or experiment.attacks
    entries: dict[str, AttackEntry] = {}
    for suite, attacks in suites.items():
        for name, attack in attacks.items():
            if name in entries:
                raise UserError(
                    f"config: the attack '{name}' of suite '{suite}' is already in suite"
                    f" '{entries[name].suite}'; give one of them another name"
                )
            card = task.suites[suite].attacks[name]
            own = "" if attack.epsilon is None else f" (ε = {attack.epsilon:.4g})"
            label = attack.label or name + own
            entries[name] = AttackEntry(name=name, label=label, suite=suite, card=card)
    refuse_equal_labels(f"the attacks on {task.dataset}", {n: e.label for n, e in entries.items()})
    return tuple(entries.values())
