"""CUDA's Multi-Process Service: kernels of several processes run at once, not in turns."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest.mock import patch

import torch
from worker import NotMeasuredError

from regbench.errors import UserError

CONTROL = "nvidia-cuda-mps-control"

WAIT = 30
"""Seconds that it has to answer."""


def check(device: torch.device) -> None:
    """Look whether the service can be had.

    Raises:
        UserError: not on CUDA, or not installed.
    """
    if device.type != "cuda":
        raise UserError(f"--mps needs CUDA, got {device.type}; leave it out, or use --device cuda")
    if shutil.which(CONTROL) is None:
        raise UserError(f"--mps needs {CONTROL} of NVIDIA's driver on PATH; leave it out")


@contextmanager
def service() -> Iterator[None]:
    """Start the service for the processes that are begun within; stop it in the end.

    Raises:
        NotMeasuredError: it does not start here.
    """
    with tempfile.TemporaryDirectory(prefix="mps-", ignore_cleanup_errors=True) as folder:
        # a folder of its own: a service that runs already is neither used nor stopped
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        with patch.dict(os.environ, own):
            _ask("-d")
            try:
                yield
            finally:
                with suppress(NotMeasuredError):  # what was measured counts
                    _ask(said="quit\n")


def _ask(*options: str, said: str | None = None) -> None:
    try:
        subprocess.run([CONTROL, *options], input=said, text=True, check=True, timeout=WAIT)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotMeasuredError(f"CUDA's Multi-Process Service does not start: {error}") from error
