"""MNIST, in torchvision's layout under the data root."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torchvision import datasets

from regbench.data import Images, Size
from regbench.data._torchvision import images

__all__ = ["MNIST"]


@dataclass(frozen=True)
class MNIST:
    """LeCun's MNIST: 60,000 + 10,000 images, 1×28×28."""

    size: ClassVar = Size(60_000, 10_000, (1, 28, 28), 10)

    def __call__(self, root: Path, download: bool) -> Images:
        """Return the images found in `root`/MNIST/raw, or downloaded there."""
        return images(datasets.MNIST, root, download)
