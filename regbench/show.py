"""Where a result comes from, for a person: what stands in a file, or a run's folder, as YAML.

python -m regbench.show results/mnist/lenet_plus/sat_r1/0-1a2b3c4d5e
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from regbench.errors import UserError, program
from regbench.experiment.cards import CARD, card_of
from regbench.storage.seals import read_record, read_table

Told = dict[str, Any]


def show(path: Path) -> Told:
    """Return what is known of a run's folder, or of a file that a stage wrote.

    The files that are read are checked against their digests.

    Raises:
        UserError: it is nothing of the kind, or damaged.
    """
    if path.is_dir():
        return _run(path)
    if path.name == CARD:
        return _card(path)
    if path.suffix not in READERS:
        known = ", ".join(READERS)
        raise UserError(f"'{path}': expected a run's folder or a file in it of type {known}")
    return READERS[path.suffix](path)


def _run(folder: Path) -> Told:
    suites = sorted(folder.glob("*.parquet"))
    record, card = read_record(folder / "run.json"), _card(folder / CARD)
    key = card_of(folder).key
    if record["card"] != key:
        raise UserError(
            f"'{folder}': run.json is of the card {record['card']}, but card.json beside it is of"
            f" {key}: one of them was changed"
        )
    return {
        "run": record,
        "card": card,
        "judged": {path.name: _table(path) for path in suites},
    }


def _card(path: Path) -> Told:
    return card_of(path.parent).model_dump(mode="json")


def _table(path: Path) -> Told:
    rows, about = read_table(path)
    return {"rows": len(rows), **about}


def _tensors(path: Path) -> Told:
    from regbench.storage.tensors import Tensors  # noqa: PLC0415 - torch, which the other kinds do without

    with Tensors(path) as file:
        shapes = {name: list(file.shape(name)) for name in file.names()}
        for name in shapes:
            file.read(name)
        return {**file.about, "tensors": shapes, "seal": file.seal}


READERS: dict[str, Callable[[Path], Told]] = {
    ".json": read_record,
    ".parquet": _table,
    ".safetensors": _tensors,
}


def main() -> None:
    """Read the command line and print YAML."""
    parser = argparse.ArgumentParser(prog="python -m regbench.show", description=__doc__)
    parser.add_argument("path", type=Path, help="a run's folder, or a file in it")
    told = json.loads(json.dumps(show(parser.parse_args().path), default=str))
    print(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100), end="")


if __name__ == "__main__":
    program(main)
