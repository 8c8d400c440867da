"""Stage 2: images + run card -> weights (best and last), learning curve, run record."""

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from regbench import device as devices
from regbench.cards import RunCard
from regbench.course import Epoch
from regbench.errors import program
from regbench.fingerprint import TRAINING, fingerprint
from regbench.keeper import Keeper, key
from regbench.members import build
from regbench.network import network
from regbench.prepare import Data, open_data
from regbench.provenance import provenance
from regbench.training import Trained, fit


def train(card: RunCard, data: Data, device: torch.device, keeper: Keeper | None = None) -> Trained:
    """Train the network of `card` on `data`; a progress bar on a terminal, plain lines in a log."""
    model = network(card, data, device)
    loss = build(card.regularizer.loss, card.regularizer.hyperparameters)
    train_split, held_out = data.split("train", device), data.split("validation", device)
    with tqdm(total=card.training.epochs, unit="epoch", disable=not sys.stderr.isatty()) as bar:

        def progress(row: Epoch) -> None:
            bar.update()
            bar.write(line(row), file=sys.stderr)

        return fit(card, model, loss, train_split, held_out, progress, keeper)


def line(row: Epoch) -> str:
    """Return one epoch as a line of a log."""
    return (
        f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  penalty {row['penalty']:.4f}"
        f"  validation: clean {row['validation_clean']:.2%}, I-FGSM {row['validation_ifgsm']:.2%}"
        f"  {row['seconds']:.1f} s"
    )


def code(card: RunCard) -> str:
    """Return the fingerprint of the code that decides the weights of a run."""
    return fingerprint((*TRAINING, card.regularizer.loss, card.model.architecture))


def record(
    card: RunCard, trained: Trained, device: torch.device, seconds: float
) -> dict[str, object]:
    """Return what is worth knowing of a training besides its weights and its curve."""
    return {
        "status": trained.status,
        "best_epoch": trained.best_epoch,
        "train_seconds": sum(row["seconds"] for row in trained.curve),
        "seconds": seconds,
        "code": code(card),
        **provenance(device),
    }


def write(out: Path, card: RunCard, trained: Trained, record: dict[str, object]) -> None:
    """Write card.json, best.safetensors, last.safetensors, curve.csv and run.json under `out`."""
    (out / "card.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    save_file(trained.best, out / "best.safetensors")
    save_file(trained.last, out / "last.safetensors")
    pd.DataFrame(trained.curve).to_csv(out / "curve.csv", index=False)
    (out / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and train one model."""
    parser = argparse.ArgumentParser(prog="python -m regbench.train", description=__doc__)
    parser.add_argument("card", help="a run card: JSON text, or the path of a card.json")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    card, device = RunCard.read(arguments.card), devices.pick(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(arguments.out / "state", key(card.key, code(card), device))
    keeper.listen()
    started = time.perf_counter()
    trained = train(card, open_data(arguments.data), device, keeper)
    seconds = time.perf_counter() - started
    write(arguments.out, card, trained, record(card, trained, device, seconds))
    keeper.forget()


if __name__ == "__main__":
    program(main)
