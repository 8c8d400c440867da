"""One cell: what each level of the config says of it, resolved to a card and a path."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from regbench.errors import UserError, did_you_mean
from regbench.experiment import paths
from regbench.experiment.cards import (
    AnyCard,
    DataCard,
    DiagnosisCard,
    ModelCard,
    PretrainedCard,
    RegularizerCard,
    RunCard,
    SuiteCard,
    TrainingCard,
)
from regbench.experiment.config import (
    DataSet,
    Experiment,
    Model,
    Pretrained,
    Regularizer,
    Training,
)
from regbench.experiment.manifest import Declared, Run
from regbench.experiment.members import reference
from regbench.experiment.refusals import telling
from regbench.experiment.suites import of_others
from regbench.experiment.values import canonical

PAPER_TRAINING = {
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": [0.25, 0.5, 0.75],
    "decay": 0.2,
    "cyclic": 0,
    "crop_padding": 0,
    "flip": False,
    "selection": "ifgsm",
    "selection_steps": 3,
    "precision": "fp32",
    "compiled": False,
}
"""arXiv:2002.00614's, for what no level of the config sets."""

NOT_CYCLIC = {"milestones": [], "decay": 1}
"""What a cyclic rate is without, as its card has it."""


@dataclass(frozen=True)
class Task:
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
        """Where its prepared images lie."""
        return paths.data(self.dataset, self.data_card.key)


def task_of(
    dataset: str,
    model: str,
    data: DataSet,
    network: Model,
    suites: dict[str, SuiteCard],
    diagnosis: DiagnosisCard | None = None,
) -> Task:
    """Return a data set with one of its networks, their cards made.

    Args:
        dataset: as the config calls it.
        model: likewise.
        data: the data set's entry.
        network: the network's.
        suites: that judge its cells, by name.
        diagnosis: what is measured of them.

    Raises:
        UserError: a class that there is not, or a parameter that is the data set's.
    """
    with telling(f"datasets.{dataset}"):
        data_card = DataCard(
            source=reference("data", data.dataset or dataset),
            arguments=data.parameters,
            validation=data.validation,
            split_seed=data.split_seed,
        )
    with telling(f"datasets.{dataset}, the network '{model}'"):
        model_card = _model_card(model, network)
    return Task(dataset, model, data, network, data_card, model_card, suites, diagnosis)


def _model_card(model: str, network: Model) -> ModelCard:
    for name in ("shape", "classes"):
        if name in network.parameters:
            raise UserError(f"sets '{name}', which the data set gives; drop it")
    return ModelCard(
        architecture=reference("models", network.model or model), arguments=network.parameters
    )


def seeds(experiment: Experiment, task: Task, name: str) -> list[int]:
    """Return the seeds of a regularizer: the innermost level's that sets them.

    Raises:
        UserError: none does.
    """
    own = [level.seeds for level in _levels(experiment, task, name)]
    found = [one for one in (experiment.seeds, *own) if one]
    if not found:
        raise UserError(f"config: 'seeds' is missing, for {name} on {task.dataset}")
    return found[-1]


def trained(
    experiment: Experiment, declared: dict[str, Declared], task: Task, name: str, seed: int
) -> Run:
    """Return the cell of a training.

    Args:
        experiment: the config.
        declared: what the rules declare, by name.
        task: the data set and the network.
        name: of the regularizer, as the config calls it.
        seed: of every random stream.

    Raises:
        UserError: no rule declares it, or what it needs is set nowhere.
    """
    levels = _levels(experiment, task, name)
    rule = _declared(declared, name, levels)
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
    cost = _cost(rule, hyperparameters, training.batch_size)
    return _cell(task, card, name, rule=rule.name, label=_label(rule, name, levels), cost=cost)


def pretrained(task: Task, name: str, given: Pretrained) -> Run:
    """Return the cell of a network that was trained elsewhere.

    Args:
        task: the data set and the network.
        name: the entry's.
        given: the entry.
    """
    card = PretrainedCard(
        data=task.data_card,
        model=task.model_card,
        epsilon=task.data.epsilon,
        weights=given.sha256,
    )
    label = given.label or name
    return _cell(task, card, name, rule=paths.PRETRAINED, label=label, weights=given.weights)


def _cell(
    task: Task,
    card: AnyCard,
    name: str,
    *,
    rule: str,
    label: str,
    cost: float | None = None,
    weights: str | None = None,
) -> Run:
    folder = paths.run(task.dataset, task.model, rule, f"{card.seed}-{card.key}")
    return Run(
        dataset=task.dataset,
        model=task.model,
        regularizer=name,
        rule=rule,
        label=label,
        seed=card.seed,
        cost=cost,
        folder=folder,
        data=task.data_path,
        verdicts={
            suite: paths.verdicts(folder, suite, one)
            for suite, one in of_others(task.suites, card).items()
        },
        card=card,
        diagnosis=paths.diagnosis(folder, task.diagnosis) if task.diagnosis else None,
        gallery=paths.gallery(folder, task.diagnosis) if task.diagnosis else None,
        weights=weights,
    )


def _levels(experiment: Experiment, task: Task, name: str) -> list[Regularizer]:
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


def _label(rule: Declared, name: str, levels: list[Regularizer]) -> str:
    own = [one.label for one in reversed(levels) if one.label]
    return own[0] if own else rule.label if name == rule.name else name


def _training(sections: list[Training], dataset: str, name: str) -> TrainingCard:
    """Merge the sections, the later ones winning, over the paper's values."""
    merged: dict[str, Any] = dict(PAPER_TRAINING)
    for section in sections:
        told = section.model_dump(exclude_none=True)
        if merged["cyclic"] and "cyclic" not in told and told.keys() & NOT_CYCLIC:
            raise UserError(
                f"config: {name} on {dataset} has {' and '.join(sorted(told.keys() & NOT_CYCLIC))}"
                " of its own, which a cyclic rate, set on a level above, knows not; write"
                " `cyclic: 0` beside it"
            )
        merged |= told
    if merged["cyclic"]:
        merged |= NOT_CYCLIC
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
