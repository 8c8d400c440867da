"""The grid: what the config chooses of what the rules declare, as cells with card and path."""

from collections import defaultdict
from collections.abc import Iterator

from regbench.errors import UserError, did_you_mean
from regbench.experiment import cells
from regbench.experiment.cards import DiagnosisCard, SuiteCard
from regbench.experiment.cells import Task, task_of
from regbench.experiment.config import DataSet, Experiment, Model, Pretrained, Source, Training
from regbench.experiment.manifest import AttackEntry, Declared, Manifest, Run
from regbench.experiment.refusals import (
    refuse_borrowed_labels,
    refuse_equal_labels,
    refuse_nothing,
    refuse_taken,
    refuse_twins,
    refuse_unjudged,
    refuse_unknown_gap,
    refuse_unknown_references,
)
from regbench.experiment.suites import of_others, resolve_suites


def resolve(experiment: Experiment, declared: dict[str, Declared]) -> Manifest:
    """Return every cell of the experiment.

    Raises:
        UserError: a name that nothing declares, or two entries that ask for the same training.
    """
    refuse_unjudged(experiment)
    refuse_taken(experiment)
    refuse_unknown_references(experiment)
    runs: list[Run] = []
    sources: list[Run] = []
    attacks: dict[str, tuple[AttackEntry, ...]] = {}
    cards: dict[str, SuiteCard] = {}
    diagnoses: dict[str, DiagnosisCard] = {}
    for dataset, data in experiment.datasets.items():
        crafted_on = _crafted_on(experiment, declared, dataset)
        suites, attacks[dataset] = resolve_suites(experiment, dataset, crafted_on)
        diagnosis = _diagnosis(experiment, data)
        found = [*_cells(experiment, declared, dataset, suites, diagnosis)]
        refuse_nothing(dataset, found)
        cards |= {
            run.verdicts[suite]: card
            for run in found
            for suite, card in of_others(suites, run.card).items()
        }
        diagnoses |= {run.diagnosis: diagnosis for run in found if run.diagnosis and diagnosis}
        runs += found
        sources += crafted_on.values()
    refuse_twins(runs)
    labels: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for run in runs:
        labels[run.dataset, run.model][run.regularizer] = run.label
    for of_task in labels.values():
        refuse_equal_labels("the regularizers", of_task)
    refuse_borrowed_labels(runs)
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


def _cells(
    experiment: Experiment,
    declared: dict[str, Declared],
    dataset: str,
    suites: dict[str, SuiteCard],
    diagnosis: DiagnosisCard | None,
) -> Iterator[Run]:
    """Every network of a data set that is judged: those of the grid, those trained elsewhere."""
    data = experiment.datasets[dataset]
    for model, network in data.models.items():
        task = task_of(dataset, model, data, network, suites, diagnosis)
        yield from _trained(experiment, declared, task)
    for name, given in data.pretrained.items():
        yield _pretrained(dataset, data, name, given, suites, diagnosis)


def _crafted_on(
    experiment: Experiment, declared: dict[str, Declared], dataset: str
) -> dict[str, Run]:
    """The networks of a data set that its attacks may craft on, by name."""
    data = experiment.datasets[dataset]
    return {
        name: _source(experiment, declared, dataset, name, source)
        for name, source in data.sources.items()
    } | {name: _pretrained(dataset, data, name, given) for name, given in data.pretrained.items()}


def _trained(experiment: Experiment, declared: dict[str, Declared], task: Task) -> Iterator[Run]:
    """Every regularizer that the experiment chooses, on one task, with each of its seeds."""
    chosen = experiment.regularizers
    for name in (*task.data.regularizers, *task.network.regularizers):
        if name not in chosen:
            raise UserError(
                f"config: datasets.{task.dataset} sets '{name}', which `regularizers:` does not"
                f" choose{did_you_mean(name, chosen)}"
            )
    for name in chosen:
        for seed in cells.seeds(experiment, task, name):
            yield cells.trained(experiment, declared, task, name, seed)


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
    network = _network(data, source)
    sections = [one.model_dump(exclude_none=True) for one in (network.training, source.training)]
    network = network.model_copy(update={"training": Training(**sections[0] | sections[1])})
    called = source.model if source.model in data.models else name
    task = task_of(dataset, called, data, network, {})
    return cells.trained(experiment, declared, task, source.regularizer, source.seed)


def _pretrained(
    dataset: str,
    data: DataSet,
    name: str,
    given: Pretrained,
    suites: dict[str, SuiteCard] | None = None,
    diagnosis: DiagnosisCard | None = None,
) -> Run:
    """The network behind an entry of `pretrained:`; of the same name only if it is the same."""
    like = given.model in data.models or ":" not in given.model
    called = given.model if like and not given.parameters else name
    task = task_of(dataset, called, data, _network(data, given), suites or {}, diagnosis)
    return cells.pretrained(task, name, given)


def _network(data: DataSet, asked: Source | Pretrained) -> Model:
    """What an entry names under `model:`, an entry of `models:` or a class, with its parameters."""
    named = data.models.get(asked.model) or Model(model=asked.model)
    return Model(
        model=named.model or asked.model,
        training=named.training,
        regularizers=named.regularizers,
        **named.parameters | asked.parameters,
    )
