"""What the data sets that torchvision publishes share."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regbench.data import Images
from regbench.errors import UserError

NOTHING: Mapping[str, str] = {}


def images(
    source: Any,
    root: Path,
    download: bool,
    folder: str,
    *,
    sha256: Mapping[str, str] = NOTHING,
    md5: Mapping[str, str] = NOTHING,
) -> Images:
    """Return the two parts of a torchvision data set.

    Args:
        source: a class of `torchvision.datasets` with `data` and `targets`.
        root: the data root that torchvision gets.
        download: fetch what is not there.
        folder: under `root`, where the files lie.
        sha256: of each file that torchvision checks only as it downloads.
        md5: of each that it checks itself, not telling which one is damaged.

    Raises:
        UserError: the files are not there, or not whole.
    """
    # before torchvision sees them: what is there it does not download, damaged or not
    early = {name for name in sha256 if (root / folder / name).is_file()}
    _refuse_damaged(root / folder, sha256, "sha256")
    try:
        train = source(root, train=True, download=download)
        test = source(root, train=False, download=download)
    except Exception as error:  # a damaged file fails wherever it is read
        _refuse_damaged(root / folder, md5, "md5")
        raise UserError(
            f"{source.__name__} is not whole under '{root}' ({error}); set data_root in the config"
            " or REGBENCH_DATA to where it lies, or `download: true` to fetch it"
        ) from error
    fetched = {name: told for name, told in sha256.items() if name not in early}
    _refuse_damaged(root / folder, fetched, "sha256")
    return Images(
        _nchw(train.data), np.asarray(train.targets, np.int64),
        _nchw(test.data), np.asarray(test.targets, np.int64),
        scale=255, classes=len(train.classes),
    )  # fmt: skip


def _refuse_damaged(folder: Path, digests: Mapping[str, str], algorithm: str) -> None:
    """Refuse a file that is there and is not as it was published."""
    for name, expected in digests.items():
        file = folder / name
        if not file.is_file():
            continue
        found = hashlib.new(algorithm, file.read_bytes(), usedforsecurity=False).hexdigest()
        if found != expected:
            raise UserError(
                f"'{file}' is damaged: its {algorithm} is {found}, the published file's is"
                f" {expected}; delete it and fetch it anew"
            )


def _nchw(pixels: Any) -> NDArray[np.uint8]:
    array = np.asarray(pixels, np.uint8)
    return array[:, None] if array.ndim == 3 else np.ascontiguousarray(array.transpose(0, 3, 1, 2))
