"""Stage 3: weights + suite card -> one verdict per attack and image, as a parquet file."""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from regbench.core.lease import leased
from regbench.errors import UserError, did_you_mean, program
from regbench.evaluation.parts import Parts
from regbench.evaluation.trial import Trial
from regbench.experiment.cards import SuiteCard
from regbench.prepare import Data, open_data
from regbench.storage.seals import digest_of, write_table


def parts_key(
    card: SuiteCard, data: Data, run: Path, sources: Sequence[Path], device: torch.device
) -> str:
    """Return what the verdicts of a suite depend on, besides the code of each attack."""
    weights = [digest_of(folder / f"{card.checkpoint}.safetensors") for folder in (run, *sources)]
    versions = [torch.__version__, version("pyautoattack")]
    return " ".join([card.text(), data.seal, *weights, *versions, device.type])


def asked(card: SuiteCard, name: str, index: str) -> tuple[str, int]:
    """Return the piece of an attack that a command line asks for.

    Raises:
        UserError: the suite has no such piece.
    """
    if name not in card.attacks:
        raise UserError(f"--piece: no attack '{name}' here{did_you_mean(name, card.attacks)}")
    pieces = card.attacks[name].pieces
    if index not in map(str, range(pieces)):
        raise UserError(f"--piece: '{name}' has the pieces 0 to {pieces - 1}, got '{index}'")
    return name, int(index)


def main() -> None:
    """Read the command line and attack one trained model."""
    parser = argparse.ArgumentParser(prog="python -m regbench.attack", description=__doc__)
    parser.add_argument("card", help="a suite card: JSON text, or the path of a JSON file")
    parser.add_argument("--run", type=Path, required=True, help="folder of regbench.train")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument(
        "--source",
        type=Path,
        nargs="*",
        default=[],
        help="folders of the networks that attacks of the suite craft on",
    )
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument(
        "--piece",
        nargs=2,
        metavar=("ATTACK", "INDEX"),
        help="judge this piece of an attack alone, and leave its verdicts for the suite",
    )
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    card, out, data = SuiteCard.read(arguments.card), arguments.out, open_data(arguments.data)
    piece = asked(card, *arguments.piece) if arguments.piece else None
    with Parts.locked(out, piece) as waited, leased(arguments.device) as device:
        if waited and piece is None and out.exists():
            print("the other process has finished this suite")
            return
        parts = Parts(out, parts_key(card, data, arguments.run, arguments.source, device))
        trial = Trial(card, arguments.run, data, device, arguments.source, parts)
        if piece:
            trial.piece(*piece)
            return
        write_table(out, *trial.table())
        parts.forget()


if __name__ == "__main__":
    program(main)
