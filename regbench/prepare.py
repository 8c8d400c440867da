"""Stage 1: a data set's name -> its training, validation and test images as tensors in one file."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from regbench.errors import UserError, program
from regbench.experiment import paths
from regbench.experiment.cards import DataCard
from regbench.experiment.members import build
from regbench.storage.tensors import Tensors, write


class Split(NamedTuple):
    """Images as float32 in [0, 1], (n, C, H, W), and their labels, (n,), int64."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """A prepared data set, opened: what it is like, and where its splits lie.

    `seal` is a SHA-256 of all that it holds, `card` what it was prepared from; none: not told.
    """

    path: Path
    shape: tuple[int, int, int]
    classes: int
    scale: int
    seal: str = ""
    card: DataCard | None = None

    def holding(self, card: DataCard) -> "Data":
        """Return it, if it is what `card` says.

        Raises:
            UserError: it was prepared from another card.
        """
        if self.card is not None and self.card != card:
            raise UserError(
                f"'{self.path}' holds {self.card.text()}, but the run's card is of {card.text()};"
                " name the file that regbench.prepare made of that"
            )
        return self

    def split(self, name: str, device: torch.device, images: int | None = None) -> Split:
        """Return `train`, `validation` or `test`, or its first `images` images, on `device`."""
        with Tensors(self.path) as file:
            x = file.read(f"x_{name}")[:images].to(device)
            y = file.read(f"y_{name}")[:images].to(device)
        return Split(x.float() / self.scale, y.long())

    def labels(self, name: str) -> Tensor:
        """Return the labels alone of `train`, `validation` or `test`, on the CPU."""
        with Tensors(self.path) as file:
            return file.read(f"y_{name}").long()


def open_data(path: Path) -> Data:
    """Return the prepared data set in the file that this stage wrote.

    Raises:
        UserError: not such a file, or a damaged one.
    """
    with Tensors(path) as file:
        about, names = file.about, file.names()
        if "x_train" not in names:
            raise UserError(f"'{path}' is no data file of regbench.prepare; it holds {names}")
        card = DataCard.model_validate(about["card"])
        channels, height, width = file.shape("x_train")[1:]
        seal = file.seal
    return Data(path, (channels, height, width), about["classes"], about["scale"], seal, card)


def prepare(card: DataCard, root: Path, download: bool, out: Path) -> None:
    """Write the data set that `card` names, split by a seeded permutation, to `out`.

    The permutation of the training images is kept in the file beside the images.

    Raises:
        UserError: the data set is not to be had, or smaller than its validation split.
    """
    images = build(card.source, card.arguments)(root, download)
    count = len(images.x_train)
    if card.validation >= count:
        raise UserError(
            f"validation: {card.validation} images asked for, but {card.source} has only"
            f" {count} to train on; ask for fewer"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(card.split_seed))
    train, validation = order[: count - card.validation], order[count - card.validation :]
    x, y = torch.from_numpy(images.x_train), torch.from_numpy(images.y_train)
    tensors = {
        "x_train": x[train],
        "y_train": y[train],
        "x_validation": x[validation],
        "y_validation": y[validation],
        "x_test": torch.from_numpy(images.x_test).contiguous(),
        "y_test": torch.from_numpy(images.y_test).contiguous(),
        "permutation": order,
    }
    about = {"scale": images.scale, "classes": images.classes, "card": card.model_dump()}
    write(out, tensors, about)
    sizes = ", ".join(
        f"{len(tensors[f'y_{part}'])} {part}" for part in ("train", "validation", "test")
    )
    print(f"{out}: {sizes} images of shape {tuple(x.shape[1:])}")


def main() -> None:
    """Read the command line and prepare one data set."""
    parser = argparse.ArgumentParser(prog="python -m regbench.prepare", description=__doc__)
    parser.add_argument("card", help="a data card: JSON text, or the path of a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument(
        "--data-root",
        type=Path,
        default=paths.data_root(),
        help="where torchvision's data sets lie (default: $REGBENCH_DATA, else data)",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        default=os.environ.get("REGBENCH_DOWNLOAD") == "1",
        help="fetch what is not there (default: if $REGBENCH_DOWNLOAD is 1)",
    )
    arguments = parser.parse_args()
    card = DataCard.read(arguments.card)
    prepare(card, arguments.data_root, arguments.download, arguments.out)


if __name__ == "__main__":
    program(main)
