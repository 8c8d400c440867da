"""The grid: what the config chooses of what the rules declare, as cells with card and path."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from regbench.errors import UserError, did_you_mean
from regbench.experiment import paths
from regbench.experiment.cards import (
    DataCard,
    DiagnosisCard,
    ModelCard,
    RegularizerCard,
    RunCard,
    SuiteCard,
    TrainingCard,
)
from regbench.experiment.config import (
    DataSet,
    Experiment,
    Model,
    Regularizer,
    Source,
    Training,
)
from regbench.experiment.manifest import AttackEntry, Declared, Manifest, Run
from regbench.experiment.members import reference
from regbench.experiment.refusals import (
    refuse_equal_labels,
    refuse_twins,
    refuse_unjudged,
    refuse_unknown_gap,
    refuse_unknown_references,
    telling,
)
from regbench.experiment.suites import of_others, resolve_suites
from regbench.experiment.values import canonical

PAPER_TRAINING = {
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": [0.25, 0.5, 0.75],
    "decay": 0.2,
    "crop_padding": 0,
    "flip": False,
    "selection_steps": 3,
    "precision": "fp32",
    "compiled": False,
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
    diagnosis: DiagnosisCard | None = None

    @property
    def data_path(self) -> str:
        return paths.data(self.dataset, self.data_card.key)


def resolve(experiment: Experiment, declared: dict[str, Declared]) -> Manifest:
    """Return every cell of the experiment.

    Raises:
        UserError: a name that nothing declares, or two entries that ask for the same training.
    """
    refuse_unjudged(experiment)
    refuse_unknown_references(experiment)
    runs: list[Run] = []
    sources: list[Run] = []
    attacks: dict[str, tuple[AttackEntry, ...]] = {}
    cards: dict[str, SuiteCard] = {}
    diagnoses: dict[str, DiagnosisCard] = {}
    for dataset, data in experiment.datasets.items():
        crafted_on = {
            name: _source(experiment, declared, dataset, name, source)
            for name, source in data.sources.items()
        }
        suites, attacks[dataset] = resolve_suites(experiment, dataset, crafted_on)
        diagnosis = _diagnosis(experiment, data)
        cells = [
            run
            for model, network in data.models.items()
            for task in [_task(dataset, model, data, network, suites, diagnosis)]
            for run in _cells(experiment, declared, task)
        ]
        cards |= {
            run.verdicts[suite]: card
            for run in cells
            for suite, card in of_others(suites, run.card).items()
        }
        diagnoses |= {run.diagnosis: diagnosis for run in cells if run.diagnosis and diagnosis}
        runs += cells
        sources += crafted_on.values()
    refuse_twins(runs)
    labels: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for run in runs:
        labels[run.dataset, run.model][run.regularizer] = run.label
    for of_task in labels.values():
        refuse_equal_labels("the regularizers", of_task)
    refuse_unknown_gap(experiment, attacks)
    return Manifest(
        experiment=experiment.experiment,
        runs=tuple(runs),
        sources=tuple({run.folder: run for run in sources}.values()),
        attacks=attacks,
        suites=cards,
        diagnoses=diagnoses,
    )


def _diagnosis(experiment: Experiment, data: DataSet) -> DiagnosisCard | None:
    """What is measured of a data set's networks; nothing, without a radius to measure within."""
    asked = experiment.diagnostics
    if asked is None or data.epsilon == 0:
        return None
    judged = experiment.evaluation.model_dump(exclude={"images", "precision"})
    return DiagnosisCard(**judged, **asked.model_dump(), epsilon=data.epsilon)


def _task(
    dataset: str,
    model: str,
    data: DataSet,
    network: Model,
    suites: dict[str, SuiteCard],
    diagnosis: DiagnosisCard | None = None,
) -> _Task:
    with telling(f"datasets.{dataset}"):
        data_card = DataCard(
            source=reference("data", data.dataset or dataset),
            arguments=data.parameters,
            validation=data.validation,
            split_seed=data.split_seed,
        )
    with telling(f"datasets.{dataset}, the network '{model}'"):
        model_card = _model_card(model, network)
    return _Task(dataset, model, data, network, data_card, model_card, suites, diagnosis)


def _model_card(model: str, network: Model) -> ModelCard:
    for name in ("shape", "classes"):
        if name in network.parameters:
            raise UserError(f"sets '{name}', which the data set gives; drop it")
    return ModelCard(
        architecture=reference("models", network.model or model), arguments=network.parameters
    )


def _cells(experiment: Experiment, declared: dict[str, Declared], task: _Task) -> Iterator[Run]:
    """Every regularizer that the experiment chooses, on one task, with each of its seeds."""
    chosen = experiment.regularizers
    for name in (*task.data.regularizers, *task.network.regularizers):
        if name not in chosen:
            raise UserError(
                f"config: datasets.{task.dataset} sets '{name}', which `regularizers:` does not"
                f" choose{did_you_mean(name, chosen)}"
            )
    for name in chosen:
        levels = _levels(experiment, task, name)
        seeds = next((one.seeds for one in reversed(levels) if one.seeds), experiment.seeds)
        rule = _declared(declared, name, levels)
        for seed in seeds:
            yield _run(experiment, task, name, rule, levels, seed)


def _source(
    experiment: Experiment,
    declared: dict[str, Declared],
    dataset: str,
    name: str,
    source: Source,
) -> Run:
    """The training behind an entry of `sources:`; a cell of the grid, if it is the same."""
    data = experiment.datasets[dataset]
    if "regularizers" in source.parameters:
        raise UserError(
            f"config: datasets.{dataset}.sources.{name} sets 'regularizers', but a source is"
            " trained with one: `regularizer: NAME`"
        )
    own = source.model in data.models
    network = data.models[source.model] if own else Model(model=source.model)
    sections = [one.model_dump(exclude_none=True) for one in (network.training, source.training)]
    network = Model(
        model=network.model,
        training=Training(**sections[0] | sections[1]),
        regularizers=network.regularizers,
        **network.parameters | source.parameters,
    )
    task = _task(dataset, source.model if own else name, data, network, {})
    levels = _levels(experiment, task, source.regularizer)
    rule = _declared(declared, source.regularizer, levels)
    return _run(experiment, task, source.regularizer, rule, levels, source.seed)


def _levels(experiment: Experiment, task: _Task, name: str) -> list[Regularizer]:
    """Return a regularizer's entries: the experiment's, the data set's, the network's."""
    levels = (experiment.regularizers, task.data.regularizers, task.network.regularizers)
    return [entries[name] for entries in levels if name in entries]


def _declared(declared: dict[str, Declared], name: str, levels: list[Regularizer]) -> Declared:
    rule = next((one.regularizer for one in levels if one.regularizer), name)
    if rule not in declared:
        raise UserError(
            f"config: no rule declares the regularizer '{rule}'{did_you_mean(rule, declared)}"
            " (a regularizer is declared in rules/regularizers/NAME.smk)"
        )
    return declared[rule]


def _run(
    experiment: Experiment,
    task: _Task,
    name: str,
    rule: Declared,
    levels: list[Regularizer],
    seed: int,
) -> Run:
    hyperparameters = {key: canonical(key, value) for key, value in rule.hyperparameters.items()}
    with telling(f"the regularizer '{name}' on {task.dataset}"):
        for level in levels:
            hyperparameters |= level.parameters
    sections = (experiment.training, task.data.training, task.network.training)
    training = _training([*sections, *(level.training for level in levels)], task.dataset, name)
    card = RunCard(
        data=task.data_card,
        model=task.model_card,
        regularizer=RegularizerCard(loss=rule.loss, hyperparameters=hyperparameters),
        epsilon=task.data.epsilon,
        training=training,
        seed=seed,
    )
    folder = paths.run(task.dataset, task.model, rule.name, f"{seed}-{card.key}")
    return Run(
        dataset=task.dataset,
        model=task.model,
        regularizer=name,
        rule=rule.name,
        label=_label(rule, name, levels),
        seed=seed,
        cost=_cost(rule, hyperparameters, training.batch_size),
        folder=folder,
        data=task.data_path,
        verdicts={
            suite: paths.verdicts(folder, suite, one)
            for suite, one in of_others(task.suites, card).items()
        },
        card=card,
        diagnosis=paths.diagnosis(folder, task.diagnosis) if task.diagnosis else None,
        gallery=paths.gallery(folder, task.diagnosis) if task.diagnosis else None,
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
            f" {hyperparameters}: {type(error).__name__}: {error}; is one of these of the wrong"
            " kind in the config, or the cost wrong in the rule?"
        ) from error
