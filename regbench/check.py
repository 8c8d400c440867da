"""Before anything runs: does every class that the experiment names import, and take its parameters?

Snakemake's parse must not import torch, so this is a program of its own, run once per state of the
code and the parameters: a stamp under .snakemake/regbench/ remembers what has passed.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from regbench.cards import Card
from regbench.errors import program
from regbench.fingerprint import fingerprint
from regbench.grid import Manifest
from regbench.members import build, fit, load

STAMPS = Path(".snakemake/regbench")


class Claims(Card):
    """Classes with the parameters they will be made with; networks get theirs only later."""

    built: tuple[tuple[str, dict[str, Any]], ...]
    networks: tuple[tuple[str, dict[str, Any]], ...]


def claims(manifest: Manifest) -> Claims:
    """Return each distinct class and parameters that the experiment names."""
    cards = [run.card for run in manifest.runs]
    built = [
        *((card.data.source, card.data.arguments) for card in cards),
        *((card.regularizer.loss, card.regularizer.hyperparameters) for card in cards),
        *(
            (entry.card.attack, entry.card.arguments)
            for entries in manifest.attacks.values()
            for entry in entries
        ),
    ]
    networks = [(card.model.architecture, card.model.arguments) for card in cards]
    return Claims(built=_distinct(built), networks=_distinct(networks))


def passed_before(wanted: Claims) -> bool:
    """Check `wanted` in a process of its own, unless it has passed before; tell if it holds."""
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
    """Make each class with its parameters.

    Raises:
        UserError: the first that cannot be made.
    """
    for reference, arguments in wanted.built:
        build(reference, arguments)
    for reference, arguments in wanted.networks:
        fit(reference, load(reference), ["shape", "classes", *arguments])


def _distinct(pairs: list[tuple[str, dict[str, Any]]]) -> tuple[tuple[str, dict[str, Any]], ...]:
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
