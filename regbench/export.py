"""A trained network for use outside regbench: as a module, or as a file for RobustBench.

from robustbench import benchmark
from regbench.export import network_of

model = network_of("results/cifar10/resnet18/sat_r1/0-1a2b3c4d5e")
benchmark(model, dataset="cifar10", threat_model="Linf", eps=8 / 255, data_dir="data")
"""

import argparse
from pathlib import Path

import torch
from torch import nn

from regbench.core.network import plain
from regbench.core.weights import loaded
from regbench.errors import UserError, program
from regbench.experiment.cards import AnyCard, card_of
from regbench.experiment.sizes import size
from regbench.prepare import Data
from regbench.storage.seals import read_record


def network_of(run: str | Path, checkpoint: str = "best") -> nn.Module:
    """Return the network of a run, images in [0, 1] to logits, frozen, in eval mode, on the CPU.

    As its class makes it: what regbench does for speed is left out, since it holds copies of the
    weights and would not notice if these were changed through `.data`.

    Args:
        run: a run's folder, results/DATASET/MODEL/RULE/SEED-KEY.
        checkpoint: `best` or `last`.

    Raises:
        UserError: the folder holds no run, or the size of its data set cannot be known.
    """
    folder = Path(run)
    card = card_of(folder)
    data = _data(folder, card)
    return loaded(plain(card.model, data.shape, data.classes), card, folder, checkpoint)


def _data(folder: Path, card: AnyCard) -> Data:
    """What the network of a run was made for; older runs do not say, only their data set does."""
    path = folder / "run.json"
    told = read_record(path) if path.exists() else {}
    if "shape" in told:
        channels, height, width = told["shape"]
        return Data(folder, (channels, height, width), told["classes"], scale=1)
    like = size(card.data)
    return Data(folder, like.shape, like.classes, scale=1)


def main() -> None:
    """Read the command line and write one file of weights."""
    parser = argparse.ArgumentParser(
        prog="python -m regbench.export",
        description="Write a trained network's weights as a PyTorch state dict, as RobustBench's"
        " own classes (resnet18, preact_resnet18, wrn_16_1, wrn_28_10, wrn_34_10) load it.",
    )
    parser.add_argument(
        "run", type=Path, help="a run's folder, results/DATASET/MODEL/RULE/SEED-KEY"
    )
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best")
    parser.add_argument("--out", type=Path, required=True, help="the .pt file to write")
    arguments = parser.parse_args()
    model = network_of(arguments.run, arguments.checkpoint)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    try:
        torch.save(weights, arguments.out)
    except (OSError, RuntimeError) as error:
        raise UserError(f"cannot write '{arguments.out}': {error}") from error
    count = sum(value.numel() for value in weights.values())
    print(f"{arguments.out}: {count:,} numbers; torch.load(..., weights_only=True) reads them")


if __name__ == "__main__":
    program(main)
