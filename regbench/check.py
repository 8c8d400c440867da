"""Before anything runs: does every class that the experiment names import, and take its parameters?

Snakemake's parse must not import torch, so this is a program of its own, run once per state of the
code and the parameters: a stamp under .snakemake/regbench/ remembers what has passed.
"""

import argparse
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from regbench.errors import ForeignFileError, UserError, program
from regbench.experiment import paths
from regbench.experiment.cards import Card, DataCard, PretrainedCard, RunCard
from regbench.experiment.fingerprint import fingerprint
from regbench.experiment.manifest import Manifest
from regbench.experiment.members import build, check_values, fit, load
from regbench.experiment.refusals import telling

if TYPE_CHECKING:
    from regbench.data import Size

STAMPS = Path(".snakemake/regbench")
Pairs = tuple[tuple[str, dict[str, Any]], ...]


class Claims(Card):
    """Classes with the parameters they will be made with; networks get two more from the data.

    `judged` has each data set, by its name in the config, with the attacks that it is judged by;
    `pretrained` each network that was trained elsewhere, with the file of its weights.
    """

    built: Pairs
    attacks: Pairs
    networks: Pairs
    judged: dict[str, tuple[DataCard, Pairs]]
    pretrained: tuple[tuple[PretrainedCard, str], ...] = ()


def claims(manifest: Manifest) -> Claims:
    """Return each distinct class and parameters that the experiment names."""
    cards = [run.card for run in (*manifest.runs, *manifest.sources)]
    by_dataset = {
        dataset: [(entry.card.attack, entry.card.arguments) for entry in entries]
        for dataset, entries in manifest.attacks.items()
    }
    attacks = [attack for those in by_dataset.values() for attack in those]
    data = [(card.data.source, card.data.arguments) for card in cards]
    losses = [
        (card.regularizer.loss, card.regularizer.hyperparameters)
        for card in cards
        if isinstance(card, RunCard)
    ]
    networks = [(card.model.architecture, card.model.arguments) for card in cards]
    return Claims(
        built=_distinct([*data, *losses, *attacks]),
        attacks=_distinct(attacks),
        networks=_distinct(networks),
        judged={
            run.dataset: (run.card.data, _distinct(by_dataset[run.dataset]))
            for run in manifest.runs
        },
        pretrained=tuple(
            (run.card, run.weights)
            for run in manifest.runs
            if isinstance(run.card, PretrainedCard) and run.weights
        ),
    )


def hold(wanted: Claims) -> bool:
    """Tell whether the claims hold, checked in a process of its own unless they did before."""
    references = [reference for reference, _ in (*wanted.built, *wanted.networks)]
    key = hashlib.sha256(f"{wanted.text()} {fingerprint(references)}".encode()).hexdigest()[:16]
    stamp = STAMPS / f"checked-{key}"
    if not stamp.exists():
        command = [sys.executable, "-W", "ignore", "-m", "regbench.check", "-"]
        done = subprocess.run(command, input=wanted.text(), text=True, check=False)
        if done.returncode:
            return False
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    return True


def check(wanted: Claims) -> None:
    """Make each class with its parameters; of a network, check only these.

    Raises:
        UserError: the first that cannot be made.
    """
    from regbench.attacks import Attack  # noqa: PLC0415 - torch, which the parse must not import

    for reference, _ in wanted.attacks:
        member = load(reference)
        if not (isinstance(member, type) and issubclass(member, Attack)):
            raise UserError(f"'{reference}' is no attack; derive it from regbench.attacks.Attack")
    for reference, arguments in wanted.built:
        with _told_of(reference):
            member = load(reference)
            _refuse_uncallable(reference, member)
            fit(reference, member, list(arguments))
            _refuse_converted(reference, member, arguments)
            build(reference, arguments)
    for reference, arguments in wanted.networks:
        with _told_of(reference):
            member = load(reference)
            fit(reference, member, ["shape", "classes", *arguments])
            check_values(reference, member, arguments)
            _refuse_converted(reference, member, arguments)
    for dataset, (data, attacks) in wanted.judged.items():
        with telling(f"datasets.{dataset}"):
            _refuse_few_images(data)
            _refuse_few_classes(data, attacks)
    for card, weights in wanted.pretrained:
        _refuse_other_weights(card, weights)


def _refuse_few_images(data: DataCard) -> None:
    """Refuse to hold out as many images as there are to train on, or more."""
    known = _size(data) if data.validation else None  # which may read it whole
    if known and data.validation >= known.train:
        raise UserError(
            f"validation: {data.validation} images asked for, but there are only {known.train} to"
            " train on; ask for fewer"
        )


def _refuse_few_classes(data: DataCard, attacks: Pairs) -> None:
    """Refuse attacks that are not defined for so few classes as the data set has."""
    members = [build(reference, arguments) for reference, arguments in attacks]
    particular = [member for member in members if hasattr(member, "refuse_classes")]
    known = _size(data) if particular else None
    if known:
        for member in particular:
            member.refuse_classes(known.classes)


def _refuse_other_weights(card: PretrainedCard, weights: str) -> None:
    """Refuse a file that is not there, not the one that is meant, or not of its network."""
    from regbench.core.network import plain  # noqa: PLC0415 - torch, as above
    from regbench.storage.foreign import fill, weights_of  # noqa: PLC0415 - likewise

    path = paths.data_root() / weights
    found, known = weights_of(path, card.weights), _size(card.data)
    if known:
        with _told_of(card.model.architecture):
            model = plain(card.model, known.shape, known.classes)
        fill(model, found, path)


def _size(data: DataCard) -> "Size | None":
    """Return how large a data set is; none, if it is not here yet: then its stage can refuse.

    Raises:
        ForeignFileError: it is here, and not what the config means.
    """
    from regbench.experiment.sizes import size  # noqa: PLC0415 - numpy, which the parse need not import

    try:
        with _told_of(data.source):
            return size(data)
    except ForeignFileError:
        raise
    except UserError:
        return None


@contextmanager
def _told_of(reference: str) -> Iterator[None]:
    """Turn what a class from anywhere raises as it is made into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"'{reference}' cannot be made: {type(error).__name__}: {error}; is it the right class?"
        ) from error


def _refuse_uncallable(reference: str, member: Any) -> None:
    """Refuse, before one is made, a class whose instances cannot be called."""
    # of any class at all, making one may do anything: subprocess.Popen runs a program
    if not (inspect.isclass(member) and any("__call__" in vars(base) for base in member.__mro__)):
        raise UserError(
            f"'{reference}' is no class with a __call__, which a loss and a data set need"
        )


def _refuse_converted(reference: str, member: Any, arguments: dict[str, Any]) -> None:
    """Refuse a value of another type, which would be converted: '10' or true for a number.

    The card would hold it as it was written, beside that of the number itself.
    """
    called = member.__init__ if inspect.isclass(member) and not is_dataclass(member) else member
    hints = get_type_hints(called, include_extras=True)
    for name, value in arguments.items():
        try:
            TypeAdapter(hints.get(name, Any)).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            told = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(f"{reference}: '{name}': {told}, got {value!r}") from error


def _distinct(pairs: list[tuple[str, dict[str, Any]]]) -> Pairs:
    seen = {json.dumps(pair, sort_keys=True): pair for pair in pairs}
    return tuple(seen[key] for key in sorted(seen))


def main() -> None:
    """Read claims as JSON and check them."""
    parser = argparse.ArgumentParser(prog="python -m regbench.check", description=__doc__)
    parser.add_argument(
        "claims", help="JSON text, the path of a JSON file, or - for standard input"
    )
    arguments = parser.parse_args()
    text = sys.stdin.read() if arguments.claims == "-" else arguments.claims
    check(Claims.read(text))


if __name__ == "__main__":
    program(main)
