"""The precision that a network is trained in: part of the card, since it is part of the result."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

Precision = Callable[[torch.device], AbstractContextManager[object]]


def fp32(device: torch.device) -> AbstractContextManager[object]:  # noqa: ARG001
    """Single precision throughout; regbench.device has turned TF32 off."""
    return nullcontext()


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:  # noqa: ARG001
    """On CUDA, products of float32 rounded to TF32's 10 bits; a CPU has none: there it is fp32."""
    _allow_tf32(True)
    try:
        yield
    finally:
        _allow_tf32(False)


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def bf16(device: torch.device) -> AbstractContextManager[object]:
    """Convolutions and matrix products in bfloat16; weights, losses and the first layer float32.

    bfloat16 has the range of float32, so no gradient underflows to 0; float16, which does that
    to most input gradients unless the loss is scaled, is not offered.
    """
    return torch.autocast(device.type, torch.bfloat16)


PRECISIONS: dict[str, Precision] = {"fp32": fp32, "tf32": tf32, "bf16": bf16}
