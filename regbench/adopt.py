"""Stage 2b: weights from elsewhere + the card of their network -> the files of a training."""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from regbench.core import validation
from regbench.core.lease import leased
from regbench.core.memory import DoesNotFitError, fitting
from regbench.core.misfit import refuse_misfit
from regbench.core.network import laid_out, plain
from regbench.errors import UserError, program
from regbench.experiment import paths
from regbench.experiment.cards import PretrainedCard
from regbench.experiment.fingerprint import ADOPTING, fingerprint
from regbench.prepare import Data, Split, open_data
from regbench.storage.foreign import fill, weights_of
from regbench.storage.locks import sole
from regbench.storage.provenance import provenance
from regbench.training import outcome
from regbench.training.course import copy

UNKNOWN = ("best_epoch", "train_seconds", "forward_passes", "backward_passes")
"""What a training tells of itself."""


def code(card: PretrainedCard) -> str:
    """Return the fingerprint of the code that decides what becomes of a file of weights."""
    return fingerprint((*ADOPTING, *card.members))


def adopt(card: PretrainedCard, weights: Path, data: Data, device: torch.device, out: Path) -> None:
    """Write the network of `card` to `out` as a training would leave it, best and last alike.

    It is tried on the validation images first, which it may have been trained on: at chance there,
    it is called collapsed. That catches a network for images from 0 to 255; one whose normalisation
    was left out may do better.

    Raises:
        UserError: the file is missing or another one; the weights are not the network's; the
            network is not for these data, or does not fit in memory.
    """
    started = time.perf_counter()
    torch.manual_seed(card.seed)  # a class may draw what its file leaves out
    model = plain(card.model, data.shape, data.classes)
    fill(model, weights_of(weights, card.weights), weights)
    found = copy(model)
    model = laid_out(model, device, shape=data.shape)
    refuse_misfit(model, card.model.architecture, data.shape, data.classes, device)
    held_out = data.split("validation", device)
    clean = _accuracy(model, held_out)
    record = {
        "status": outcome.status(clean, held_out.y),
        "validation_clean": clean,
        "file": weights.name,
        **dict.fromkeys(UNKNOWN),
        "seconds": time.perf_counter() - started,
        "card": card.key,
        "data": data.seal,
        "shape": data.shape,
        "classes": data.classes,
        "code": code(card),
        **provenance(device),
    }
    outcome.write(out, card, found, found, [], record)


def _accuracy(model: nn.Module, split: Split) -> float:
    try:
        return fitting(partial(validation.accuracy, model, split), validation.BATCH)[0]
    except DoesNotFitError as error:
        raise UserError(f"the network does not fit in memory: {error}") from error


def main() -> None:
    """Read the command line and adopt one network."""
    parser = argparse.ArgumentParser(prog="python -m regbench.adopt", description=__doc__)
    parser.add_argument(
        "card", help="a pretrained network's card: JSON text, or the path of a card.json"
    )
    parser.add_argument(
        "--weights", required=True, help="the file of weights; a relative path is under the root"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=paths.data_root(),
        help="where it lies (default: $REGBENCH_DATA, else data)",
    )
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    card = PretrainedCard.read(arguments.card)
    data = open_data(arguments.data).holding(card.data)
    weights = arguments.data_root / arguments.weights
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sole(arguments.out) as waited:
        if waited and outcome.there(arguments.out, card, code(card), data.seal):
            print("the other process has adopted this network")
            return
        with leased(arguments.device) as device:
            adopt(card, weights, data, device, arguments.out)


if __name__ == "__main__":
    program(main)
