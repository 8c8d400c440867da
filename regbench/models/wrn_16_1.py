"""WideResNet-16-1, RobustBench's own class, without dropout: 175,066 weights, for CPU cores."""

from robustbench.model_zoo.architectures.wide_resnet import WideResNet
from torch import nn

from regbench.models._robustbench import refuse_others

__all__ = ["wrn_16_1"]


def wrn_16_1(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a WideResNet-16-1 (Zagoruyko 2016) for images of `shape` (3, 32, 32)."""
    refuse_others("wrn_16_1", shape)
    return WideResNet(depth=16, widen_factor=1, num_classes=classes)  # type: ignore[no-any-return]
