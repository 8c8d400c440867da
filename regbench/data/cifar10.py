"""CIFAR-10, in torchvision's layout under the data root."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torchvision import datasets

from regbench.data import Images, Size
from regbench.data._torchvision import images

__all__ = ["CIFAR10"]


@dataclass(frozen=True)
class CIFAR10:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images, 3×32×32."""

    size: ClassVar = Size(50_000, 10_000, (3, 32, 32), 10)

    def __call__(self, root: Path, download: bool) -> Images:
        """Return the images found in `root`/cifar-10-batches-py, or downloaded there."""
        source, meta = datasets.CIFAR10, datasets.CIFAR10.meta
        md5 = dict([*source.train_list, *source.test_list, (meta["filename"], meta["md5"])])
        return images(source, root, download, source.base_folder, md5=md5)
