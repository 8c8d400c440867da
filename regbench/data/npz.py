"""A data set of the user's own: one .npz file with a checksum."""

import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from regbench.data import Images
from regbench.digests import Sha256
from regbench.errors import ForeignFileError
from regbench.storage.seals import checked

__all__ = ["NPZ"]

KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class NPZ:
    """Arrays x_train, y_train, x_test, y_test in a .npz file, as `numpy.savez` writes it.

    Images are uint8, (n, H, W), (n, H, W, C) with C of 1 or 3, or (n, C, H, W) likewise; labels are
    whole numbers, 0 to K − 1.

    Attributes:
        path: of the file; a relative path is under the data root.
        sha256: of the file, 64 hexadecimal digits.
    """

    path: str
    sha256: Sha256

    def __call__(self, root: Path, download: bool) -> Images:  # noqa: ARG002
        """Return the images.

        Raises:
            UserError: the file is missing.
            ForeignFileError: it is not the one that the checksum is of, or not such a file.
        """
        file = root / self.path
        arrays = self._arrays(file)
        x_train, x_test = (_nchw(arrays[f"x_{part}"], file) for part in ("train", "test"))
        y_train = _labels(arrays["y_train"], len(x_train), file)
        y_test = _labels(arrays["y_test"], len(x_test), file)
        classes = int(y_train.max()) + 1
        absent = sorted({*range(classes)} - {*y_train.tolist()})
        if absent:
            raise ForeignFileError(
                f"'{file}': no image to train on is of class {absent[0]}; expected labels from 0 to"
                f" K − 1, each of them there, got {y_train.min()} to {classes - 1}"
            )
        if x_train.max() <= 1:
            raise ForeignFileError(
                f"'{file}': the highest pixel to train on is {x_train.max()} of 255; if images are"
                " in [0, 1], multiply by 255 before they are stored as uint8"
            )
        if y_test.max() >= classes:
            raise ForeignFileError(
                f"'{file}': labels up to {y_test.max()}, but only {classes} classes to train on"
            )
        if x_train.shape[1:] != x_test.shape[1:]:
            raise ForeignFileError(
                f"'{file}': images to test on have shape {x_test.shape[1:]}, those to train on"
                f" {x_train.shape[1:]}"
            )
        _refuse_sorted(y_test, classes, file)
        return Images(x_train, y_train, x_test, y_test, scale=255, classes=classes)

    def _arrays(self, file: Path) -> dict[str, NDArray[np.generic]]:
        content = checked(file, self.sha256)
        try:
            return _opened(content)
        except Exception as error:  # a foreign file fails wherever it is read
            raise ForeignFileError(
                f"'{file}' is no .npz with {', '.join(KEYS)}: {error}"
            ) from error


def _refuse_sorted(y_test: NDArray[np.int64], classes: int, file: Path) -> None:
    """Refuse a test set whose first images, which a short attack sees alone, are of one class."""
    if len(y_test) > classes > 1 and (np.diff(y_test) >= 0).all():
        raise ForeignFileError(
            f"'{file}': the images to test on are sorted by class, so that attacks on the first of"
            " them would see few classes; shuffle x_test and y_test by one permutation"
        )


def _opened(content: bytes) -> dict[str, NDArray[np.generic]]:
    if content.startswith(MAGIC_PREFIX):
        raise TypeError("it holds one array without a name; numpy.savez writes several")
    # numpy's own words would advise to load what is no archive unsafely
    if not zipfile.is_zipfile(BytesIO(content)):
        raise TypeError("it is no zip archive")
    with np.load(BytesIO(content), allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in KEYS}
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):  # of what is no .npy, numpy returns the bytes
            raise TypeError(f"its {key} is no array of numpy")
    return arrays


def _nchw(x: NDArray[np.generic], file: Path) -> NDArray[np.uint8]:
    if x.dtype != np.uint8 or x.ndim not in {3, 4} or x.size == 0:
        raise ForeignFileError(
            f"'{file}': images must be uint8, (n, H, W), (n, H, W, C) or (n, C, H, W), none"
            f" of these 0; got {x.dtype} of shape {x.shape}"
        )
    pixels = x.astype(np.uint8, copy=False)
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.shape[3] in {1, 3}:
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    if pixels.shape[1] not in {1, 3}:
        raise ForeignFileError(
            f"'{file}': images must be of 1 or 3 channels, (n, H, W), (n, H, W, C) or (n, C, H, W);"
            f" got shape {x.shape}"
        )
    return pixels


def _labels(y: NDArray[np.generic], count: int, file: Path) -> NDArray[np.int64]:
    if not np.issubdtype(y.dtype, np.integer):
        raise ForeignFileError(f"'{file}': labels must be whole numbers, got {y.dtype}")
    labels = y.astype(np.int64)
    if labels.shape != (count,) or labels.min() < 0:
        least = f", the least {labels.min()}" if labels.size else ""
        raise ForeignFileError(
            f"'{file}': expected one label from 0 on per image, got {count} images and labels of"
            f" shape {labels.shape}{least}"
        )
    return labels
