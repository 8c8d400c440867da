"""Fashion-MNIST, in torchvision's layout under the data root."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torchvision import datasets

from regbench.data import Images, Size
from regbench.data._torchvision import images

__all__ = ["FashionMNIST"]

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True)
class FashionMNIST:
    """Fashion-MNIST (Xiao 2017): 60,000 + 10,000 images, 1×28×28."""

    size: ClassVar = Size(60_000, 10_000, (1, 28, 28), 10)

    def __call__(self, root: Path, download: bool) -> Images:
        """Return the images found in `root`/FashionMNIST/raw, or downloaded there."""
        return images(datasets.FashionMNIST, root, download, "FashionMNIST/raw", sha256=SHA256)
