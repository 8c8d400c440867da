"""PreActResNet-18 for 32×32 images, RobustBench's own class."""

from robustbench.model_zoo.architectures.resnet import PreActBlock, PreActResNet
from torch import nn

from regbench.models._robustbench import refuse_others

__all__ = ["preact_resnet18"]


def preact_resnet18(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a pre-activation ResNet-18 (He 2016b) for images of `shape` (3, 32, 32)."""
    refuse_others("preact_resnet18", shape)
    return PreActResNet(PreActBlock, [2, 2, 2, 2], num_classes=classes)  # type: ignore[no-any-return]
