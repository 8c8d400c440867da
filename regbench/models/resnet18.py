"""ResNet-18 for 32×32 images, RobustBench's own class."""

from robustbench.model_zoo.architectures.resnet import BasicBlock, ResNet
from torch import nn

from regbench.models._robustbench import refuse_others

__all__ = ["resnet18"]


def resnet18(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a ResNet-18 (He 2016) with a 3×3 stem, for images of `shape` (3, 32, 32)."""
    refuse_others("resnet18", shape)
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)  # type: ignore[no-any-return]
