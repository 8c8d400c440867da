"""MNIST, in torchvision's layout under the data root."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torchvision import datasets

from regbench.data import Images, Size
from regbench.data._torchvision import images

__all__ = ["MNIST"]

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True)
class MNIST:
    """LeCun's MNIST: 60,000 + 10,000 images, 1×28×28."""

    size: ClassVar = Size(60_000, 10_000, (1, 28, 28), 10)

    def __call__(self, root: Path, download: bool) -> Images:
        """Return the images found in `root`/MNIST/raw, or downloaded there."""
        return images(datasets.MNIST, root, download, "MNIST/raw", sha256=SHA256)
