"""A kernel's first result of each kind is held against PyTorch's, where it is to run.

Tests run a GPU's kernels by an interpreter; what a compiler makes of any for the device, driver and
version at hand shows only there.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from regbench.core.memory import exhausted

TOLERANCE = 1e-2
"""PyTorch's operation may be in TF32, the kernel is in float32."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


def proved_by(
    plain: Callable[Given, Result], images: int = 1
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Have a kernel take only what it has done once as `plain` does it; else `plain`, and warn.

    Tensors of the same shapes, layouts and types are of one kind; the number of images counts to
    the next power of two: an attack's batches shrink by a few. What is zero throughout, infinite or
    NaN proves nothing, and is left to `plain`.

    Args:
        plain: the same by operations of PyTorch.
        images: so many of the first arguments are one thing for each image.
    """

    def proving(kernel: Callable[Given, Result]) -> Callable[Given, Result]:
        right: dict[tuple[object, ...], bool] = {}

        @wraps(kernel)
        def call(*given: Given.args, **options: Given.kwargs) -> Result:
            kind = (
                *map(_of_images, given[:images]),
                *map(_kind, given[images:]),
                *map(_kind, options.values()),
            )
            if kind not in right:
                expected = plain(*given, **options)
                if not all(map(_telling, tree_leaves((given[:images], expected)))):
                    return expected
                wrong = _wrong(lambda: kernel(*given, **options), expected)
                right[kind] = not wrong
                if wrong:
                    warnings.warn(
                        f"the kernel {kernel.__name__} {wrong} here; PyTorch's operations"
                        " are taken instead, which are slower",
                        RuntimeWarning,
                        stacklevel=2,
                    )
            return (kernel if right[kind] else plain)(*given, **options)

        return call

    return proving


def _kind(given: object) -> object:
    if isinstance(given, Tensor):
        return given.shape, given.stride(), given.dtype, given.device
    return given


def _of_images(given: object) -> object:
    if not isinstance(given, Tensor):
        return given
    count, *shape = given.shape
    return count.bit_length(), *shape, given.stride(), given.dtype, given.device


def _telling(x: object) -> bool:
    """Tell whether a kernel can be wrong on `x` and be seen to be."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return True
    if x.is_cuda and torch.cuda.is_current_stream_capturing():  # nothing is computed yet
        return False
    return bool(x.isfinite().all()) and bool(x.any())


def _wrong(kernel: Callable[[], object], expected: object) -> str:
    """Return what is wrong with a kernel's result; nothing, if it is what is expected."""
    try:
        result = kernel()
    except Exception as error:
        if isinstance(error, (RuntimeError, MemoryError)) and exhausted(error):
            raise
        # without a C compiler, say, Triton cannot start any
        return f"fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return "" if agree(result, expected) else "gives other numbers than PyTorch"


def agree(one: object, other: object) -> bool:
    """Tell whether the tensors in either are the same, within `TOLERANCE`.

    That is of the largest number; of whole numbers, which say where a maximum stood, it is the
    share that may differ, since of two that differ in their last digit rounding chooses. What is
    infinite or NaN has to stand in the same places.
    """
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(mine is theirs or _close(mine, theirs) for mine, theirs in pairs)


def _close(mine: Tensor, theirs: Tensor) -> bool:
    if mine.shape != theirs.shape or mine.dtype is not theirs.dtype:
        return False
    if not mine.is_floating_point():
        return int((mine != theirs).sum()) <= TOLERANCE * mine.numel()
    most = theirs[theirs.isfinite()].abs()
    margin = TOLERANCE * float(most.max()) if most.numel() else 0.0
    return torch.allclose(mine, theirs, rtol=0, atol=margin, equal_nan=True)
