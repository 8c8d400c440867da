"""The attacks of a data set: each suite's card, and how each attack is called."""

from collections.abc import Iterator

from regbench.errors import UserError, did_you_mean
from regbench.experiment.cards import AnyCard, AttackCard, SuiteCard
from regbench.experiment.config import Attack, Experiment, Suite
from regbench.experiment.manifest import AttackEntry, Run
from regbench.experiment.members import reference
from regbench.experiment.paths import DIAGNOSTICS, GALLERY
from regbench.experiment.refusals import refuse_equal_labels, telling
from regbench.experiment.values import canonical, written


def resolve_suites(
    experiment: Experiment, dataset: str, sources: dict[str, Run]
) -> tuple[dict[str, SuiteCard], tuple[AttackEntry, ...]]:
    """Return the suites that every trained network of `dataset` is judged by, and their attacks.

    Args:
        experiment: the config.
        dataset: one of its data sets.
        sources: the networks that an attack may craft on.

    Raises:
        UserError: two attacks of one name or label, or a source that there is not.
    """
    data = experiment.datasets[dataset]
    entries: dict[str, AttackEntry] = {}
    suites = experiment.attacks if data.attacks is None else data.attacks
    for suite, attacks in suites.items():
        if suite in (DIAGNOSTICS, GALLERY):
            raise UserError(f"config: no suite can be called '{suite}'; give it another name")
        for entry in _entries(experiment, dataset, sources, suite, attacks):
            if entry.name in entries:
                raise UserError(
                    f"config: the attack '{entry.name}' of suite '{suite}' is already in suite"
                    f" '{entries[entry.name].suite}'; give one of them another name"
                )
            entries[entry.name] = entry
    refuse_equal_labels(f"the attacks on {dataset}", {n: e.label for n, e in entries.items()})
    judged = experiment.evaluation.model_dump(exclude={"images"})
    cards = {
        suite: SuiteCard(
            attacks={name: one.card for name, one in entries.items() if one.suite == suite},
            **judged,
        )
        for suite in dict.fromkeys(one.suite for one in entries.values())
    }
    return cards, tuple(entries.values())


def of_others(suites: dict[str, SuiteCard], judged: AnyCard) -> dict[str, SuiteCard]:
    """Return the suites without attacks crafted on the judged network itself: these transfer not.

    Args:
        suites: of a data set, by name; one that has nothing left is left out.
        judged: the network.
    """
    left = {
        suite: {name: attack for name, attack in card.attacks.items() if attack.source != judged}
        for suite, card in suites.items()
    }
    return {
        suite: suites[suite].model_copy(update={"attacks": attacks})
        for suite, attacks in left.items()
        if attacks
    }


def _entries(
    experiment: Experiment, dataset: str, sources: dict[str, Run], suite: str, attacks: Suite
) -> Iterator[AttackEntry]:
    data, images = experiment.datasets[dataset], experiment.evaluation.images
    for name, attack in attacks.items():
        if attack.source is not None and attack.source not in sources:
            raise UserError(
                f"config: the attack '{name}' names the source '{attack.source}', which"
                f" datasets.{dataset} has neither among `sources` nor among `pretrained`"
                f"{did_you_mean(attack.source, sources)}"
            )
        if attack.source is not None and attack.parameters.get("early_stop"):
            raise UserError(
                f"config: the attack '{name}' stops early on its source '{attack.source}', where"
                " images that barely fool it transfer less than they could; drop `early_stop`"
            )
        source = sources[attack.source] if attack.source else None
        epsilon = data.epsilon if attack.epsilon is None else attack.epsilon
        with telling(f"the attack '{name}' on {dataset}"):
            member = reference("attacks", attack.attack or name)
            arguments = {**attack.parameters, "epsilon": epsilon}
        card = AttackCard(
            attack=member,
            arguments=arguments,
            images=attack.images or images,
            source=None if source is None else source.card,
            pieces=attack.pieces,
        )
        if card.pieces > (card.images or card.pieces):
            raise UserError(
                f"config: the attack '{name}' has {card.images} images, which cannot be cut into"
                f" {card.pieces} pieces; ask for fewer `pieces`"
            )
        entry = AttackEntry(
            name=name, label=attack.label or name, suite=suite, card=card, source=attack.source
        )
        yield from _swept(entry, attack) if attack.sweep else [_told(entry, attack)]


def _told(entry: AttackEntry, attack: Attack) -> AttackEntry:
    """The entry; its radius in the label, if that differs from the data set's and is not there."""
    if attack.label or attack.epsilon is None:
        return entry
    return entry.model_copy(update={"label": f"{entry.name} (ε = {written(attack.epsilon)})"})


def _swept(entry: AttackEntry, attack: Attack) -> Iterator[AttackEntry]:
    """One attack for each value of the parameter that is swept."""
    [(parameter, values)] = (attack.sweep or {}).items()
    if parameter in attack.parameters or (parameter == "epsilon" and attack.epsilon is not None):
        raise UserError(
            f"config: the attack '{entry.name}' sets '{parameter}' and sweeps it; drop one of them"
        )
    for value in values:
        arguments = {**entry.card.arguments, parameter: canonical(parameter, value)}
        update = {
            "name": f"{entry.name}@{value:.4g}",
            "label": f"{entry.label}, {_told_value(parameter, value)}",
            "card": entry.card.model_copy(update={"arguments": arguments}),
            "sweep": parameter,
            "value": value,
            "family": entry.label,
        }
        yield entry.model_copy(update=update)


def _told_value(parameter: str, value: float) -> str:
    return f"ε = {written(value)}" if parameter == "epsilon" else f"{parameter} = {value:.4g}"
