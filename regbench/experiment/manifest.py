"""An experiment resolved: every cell and attack, as the collecting stages read them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regbench.experiment.cards import AnyCard, AttackCard, Card, DiagnosisCard, SuiteCard

Cost = Callable[[dict[str, Any], int], float]


@dataclass(frozen=True)
class Declared:
    """A regularizer as its rule declares it.

    Attributes:
        name: the rule's, and the folder's under results/.
        label: how tables and figures call it.
        loss: its class, `package.module:Class`.
        hyperparameters: what the config does not set.
        cost: (hyperparameters, batch size) -> forward+backward passes per image and step.
    """

    name: str
    label: str
    loss: str
    hyperparameters: dict[str, Any]
    cost: Cost


class Run(Card):
    """One cell: a network, where it lies, and the suites that judge it.

    Attributes:
        dataset: the entry's name in the config; likewise `model` and `regularizer`.
        rule: the rule that declares the regularizer.
        label: how tables and figures call the regularizer.
        cost: forward+backward passes per image and step; none: trained elsewhere.
        folder: where the run's files lie.
        data: path of the prepared data set.
        verdicts: path of each suite's verdicts.
        card: everything that determines the weights.
        diagnosis: path of the run's diagnostics; none: none are taken.
        gallery: path of the images that are shown of it; none: likewise.
        weights: the file that they come from, as the config has it; none: trained here.
    """

    dataset: str
    model: str
    regularizer: str
    rule: str
    label: str
    seed: int
    cost: float | None
    folder: str
    data: str
    verdicts: dict[str, str]
    card: AnyCard
    diagnosis: str | None = None
    gallery: str | None = None
    weights: str | None = None


class AttackEntry(Card):
    """How one attack of the config is called, and what it is.

    Attributes:
        name: the entry's; of one point of a sweep, with `@VALUE` after it.
        label: how tables and figures call it.
        suite: the suite that it is in.
        card: everything that determines its verdicts, given the weights.
        source: the network that the images are crafted on, as the config calls it; none: the judged
            one.
        sweep: the parameter that is swept, if one is.
        value: of that parameter.
        family: the label of the whole sweep.
    """

    name: str
    label: str
    suite: str
    card: AttackCard
    source: str | None = None
    sweep: str | None = None
    value: float | None = None
    family: str | None = None


class Manifest(Card):
    """An experiment resolved: what the collecting stages read.

    Attributes:
        experiment: names reports/EXPERIMENT/.
        runs: every cell, in the config's order.
        sources: networks that adversarial images are crafted on, some of them cells too.
        attacks: per data set, every attack in the config's order.
        suites: the card behind each path of verdicts.
        diagnoses: the card behind each path of diagnostics.
    """

    experiment: str
    runs: tuple[Run, ...]
    sources: tuple[Run, ...]
    attacks: dict[str, tuple[AttackEntry, ...]]
    suites: dict[str, SuiteCard]
    diagnoses: dict[str, DiagnosisCard]

    def judged(self, run: Run) -> dict[str, str]:
        """Return where a cell's verdicts lie, by the key of each suite's card."""
        return {self.suites[path].key: path for path in run.verdicts.values()}

    def diagnosed(self, run: Run) -> str | None:
        """Return the key of the card of a cell's diagnosis, if one is asked for."""
        return self.diagnoses[run.diagnosis].key if run.diagnosis else None
