"""WideResNet-28-10, RobustBench's own class, without dropout."""

from robustbench.model_zoo.architectures.wide_resnet import WideResNet
from torch import nn

from regbench.models._robustbench import refuse_others

__all__ = ["wrn_28_10"]


def wrn_28_10(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a WideResNet-28-10 (Zagoruyko 2016) for images of `shape` (3, 32, 32)."""
    refuse_others("wrn_28_10", shape)
    return WideResNet(depth=28, widen_factor=10, num_classes=classes)  # type: ignore[no-any-return]
