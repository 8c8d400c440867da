"""Stage 1: a data set's name -> its training, validation and test images as tensors in one file."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from regbench.cards import DataCard
from regbench.errors import UserError, program
from regbench.members import build


class Split(NamedTuple):
    """Images as float32 in [0, 1], (n, C, H, W), and their labels, (n,), int64."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """A prepared data set, opened: what it is like, and where its splits lie."""

    path: Path
    shape: tuple[int, int, int]
    classes: int
    scale: int

    def split(self, name: str, device: torch.device, images: int | None = None) -> Split:
        """Return `train`, `validation` or `test`, or its first `images` images, on `device`."""
        with safe_open(self.path, framework="pt") as file:
            stop = slice(images)
            x = file.get_slice(f"x_{name}")[stop].to(device)
            y = file.get_slice(f"y_{name}")[stop].to(device)
        return Split(x.float() / self.scale, y.long())


def open_data(path: Path) -> Data:
    """Return the prepared data set in the file that this stage wrote.

    Raises:
        UserError: not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            shape = tuple(file.get_slice("x_train").get_shape()[1:])
    except Exception as error:
        raise UserError(f"'{path}' is not a data file of regbench.prepare: {error}") from error
    return Data(path, shape, int(about["classes"]), int(about["scale"]))


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
    about = {"scale": str(images.scale), "classes": str(images.classes), "card": card.text()}
    save_file(tensors, out, about)
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
        default=os.environ.get("REGBENCH_DATA", "data"),
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
