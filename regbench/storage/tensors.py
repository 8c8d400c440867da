"""Tensors in safetensors files that carry a SHA-256 of each, checked as it is read."""

import hashlib
import json
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regbench.storage.drafts import draft_of
from regbench.storage.seals import SEAL, DamagedError, MissingError, seal, unsealed


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors, from whatever device and layout, and what is told of them, which is JSON.

    Raises:
        OSError: the disk did not take it.
    """
    dense = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
    told = seal({"about": about, "digests": {name: _digest(one) for name, one in dense.items()}})
    with draft_of(path) as draft:
        draft.touch()
        usual = draft.stat().st_mode  # safetensors puts a file there that its owner alone can read
        # one entry, for safetensors writes several in an order that differs from run to run
        try:
            save_file(dense, draft, {"regbench": json.dumps(told)})
        except SafetensorError as error:
            raise OSError(f"cannot write '{path}': {error}") from error
        draft.chmod(usual)


class Tensors:
    """Such a file, open for reading.

    Raises:
        UserError: it is missing, or not as it was written; also by the methods.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = cast("Any", safe_open(path, framework="pt"))
            told = json.loads((self._file.metadata() or {}).get("regbench", "{}"))
        except FileNotFoundError as error:
            raise MissingError(path) from error
        except Exception as error:  # safetensors has an error of its own
            raise DamagedError(path, error) from error
        unsealed(path, told)
        self.about: dict[str, Any] = told["about"]
        self.seal: str = told[SEAL]
        self._digests: dict[str, str] = told["digests"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def names(self) -> list[str]:
        """Return the names of the tensors that were written."""
        return list(self._digests)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        try:
            return tuple(self._file.get_slice(name).get_shape())
        except SafetensorError as error:
            raise DamagedError(self._path, error) from error

    def read(self, name: str) -> Tensor:
        """Return a tensor, on the CPU."""
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except SafetensorError as error:
            raise DamagedError(self._path, error) from error
        if _digest(tensor) != self._digests[name]:
            raise DamagedError(self._path, f"the digest of '{name}' does not fit")
        return tensor


def read_all(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors in `path`, by name, and what is told of them.

    Raises:
        UserError: it is missing, or not as it was written.
    """
    with Tensors(path) as file:
        return {name: file.read(name) for name in file.names()}, file.about


def _digest(tensor: Tensor) -> str:
    hashed = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    hashed.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()
