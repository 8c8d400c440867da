"""Stage 2: images + run card -> weights (best and last), learning curve, run record."""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from regbench.core.lease import leased
from regbench.core.memory import exhausted, peak
from regbench.core.network import network
from regbench.core.precision import PRECISIONS
from regbench.errors import program
from regbench.experiment.cards import RunCard
from regbench.experiment.environment import positive
from regbench.experiment.fingerprint import TRAINING, fingerprint
from regbench.prepare import Data, open_data
from regbench.step import Step
from regbench.storage.locks import sole
from regbench.storage.provenance import provenance
from regbench.training import outcome
from regbench.training.assembly import loss_of, trained
from regbench.training.course import Epoch
from regbench.training.keeper import Keeper, key
from regbench.training.loop import Trained
from regbench.training.passes import Passes, passes


def train(card: RunCard, data: Data, device: torch.device, keeper: Keeper | None = None) -> Trained:
    """Train the network of `card` on `data`; a progress bar on a terminal, plain lines in a log."""
    limit = positive("REGBENCH_TIME_LIMIT", math.inf)
    with tqdm(total=card.training.epochs, unit="epoch", disable=not sys.stderr.isatty()) as bar:

        def progress(row: Epoch) -> None:
            bar.update()
            bar.write(line(row), file=sys.stderr)

        return trained(card, data, device, progress, keeper, limit)


def line(row: Epoch) -> str:
    """Return one epoch as a line of a log."""
    return (
        f"epoch {row['epoch']:3d}  loss {row['loss']:.4f}  penalty {row['penalty']:.4f}"
        f"  validation: clean {row['validation_clean']:.2%}, I-FGSM {row['validation_ifgsm']:.2%}"
        f"  {row['seconds']:.1f} s"
    )


def code(card: RunCard) -> str:
    """Return the fingerprint of the code that decides the weights of a run."""
    return fingerprint((*TRAINING, *card.members))


def status(found: Trained, labels: Tensor) -> str:
    """Return `ok`, or what is wrong with the weights that will be judged.

    Args:
        found: what the training left.
        labels: of the validation images, (n,).
    """
    if found.status != "ok":
        return found.status
    clean = found.curve[found.best_epoch - 1]["validation_clean"]
    return outcome.status(clean, labels)


def cost(card: RunCard, data: Data, device: torch.device) -> Passes | None:
    """Count the passes of one step on a network of its own; none, if memory does not suffice."""
    noise = torch.Generator(device).manual_seed(card.seed)
    try:
        x, y = data.split("train", device, card.training.batch_size)
        start = torch.zeros((), device=device)
        precision = card.training.precision
        model = network(card, data, device, precision)
        step = Step(model, x, y, card.epsilon, noise, start)
        with PRECISIONS[precision](device):
            return passes(loss_of(card, device), step)
    except (RuntimeError, MemoryError) as error:
        if not exhausted(error):
            raise
        return None


def record(
    card: RunCard, found: Trained, data: Data, device: torch.device, seconds: float
) -> dict[str, object]:
    """Return what is worth knowing of a training besides its weights and its curve."""
    most = peak(device)  # before a step is counted, which is not part of the training
    counted = cost(card, data, device)
    return {
        "status": status(found, data.labels("validation")),
        "best_epoch": found.best_epoch,
        "train_seconds": sum(row["seconds"] for row in found.curve),
        "seconds": seconds,
        "forward_passes": counted.forward if counted else None,
        "backward_passes": counted.backward if counted else None,
        "card": card.key,
        "precision": card.training.precision,
        "data": data.seal,
        "shape": data.shape,
        "classes": data.classes,
        "code": code(card),
        **most,
        **provenance(device),
    }


def there(out: Path, card: RunCard, data: Data) -> bool:
    """Tell whether `out` holds this training, finished by today's code on these data."""
    return outcome.there(out, card, code(card), data.seal)


def main() -> None:
    """Read the command line and train one model."""
    parser = argparse.ArgumentParser(prog="python -m regbench.train", description=__doc__)
    parser.add_argument("card", help="a run card: JSON text, or the path of a card.json")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    card = RunCard.read(arguments.card)
    data = open_data(arguments.data).holding(card.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sole(arguments.out) as waited:
        if waited and there(arguments.out, card, data):
            print("the other process has finished this training")
            return
        with leased(arguments.device) as device:
            run(card, data, device, arguments.out)


def run(card: RunCard, data: Data, device: torch.device, out: Path) -> None:
    """Train and write, from where the last attempt was cut off."""
    keeper = Keeper(out / "state", key(card.key, code(card), data.seal, device))
    keeper.listen()
    started = time.perf_counter()
    found = train(card, data, device, keeper)
    seconds = time.perf_counter() - started
    told = record(card, found, data, device, seconds)
    outcome.write(out, card, found.best, found.last, found.curve, told)
    keeper.forget()


if __name__ == "__main__":
    program(main)
