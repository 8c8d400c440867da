"""Layers that are PyTorch's own but faster: the same weights, names and logits.

Each gives an attack the gradient with respect to its input without computing those with respect to
its weights, and can be differentiated twice.
"""

from itertools import pairwise

from torch import nn

from regbench.core.layers.image import FloatConv2d, ImageConv2d
from regbench.core.layers.joined import Joining
from regbench.core.layers.linear import LargeLinear
from regbench.core.layers.normalisation import ScalingBatchNorm2d
from regbench.core.layers.pooling import HalvingMaxPool2d

FASTER = (ImageConv2d, LargeLinear, HalvingMaxPool2d, ScalingBatchNorm2d)


def tune(model: nn.Module) -> nn.Module:
    """Return `model` itself, its layers exchanged for faster ones where there are such.

    A convolution of an image for which there is none is one that stays in float32.
    """
    for module in model.modules():
        for kind in (*FASTER, FloatConv2d):
            if kind.fits(module):
                module.__class__ = kind
    # after all classes are exchanged: a Sequential comes before what it holds
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            _flattening(module)
        if Joining.fits(module):
            Joining.join(module)
    return model


def untuned(model: nn.Module) -> nn.Module:
    """Return `model` itself, its layers PyTorch's own again, but for what stays in float32."""
    for module in model.modules():
        if isinstance(module, FASTER):
            module.__class__ = type(module).__base__  # type: ignore[assignment]
        if isinstance(module, Joining):
            Joining.part(module)
    return model


def _flattening(layers: nn.Sequential) -> None:
    """Tell a pooling of `layers` that what follows flattens it, but for what keeps the layout."""
    left = [layer for layer in layers if type(layer) is not nn.ReLU]
    for layer, after in pairwise(left):
        if isinstance(layer, HalvingMaxPool2d):
            layer.flattened = isinstance(after, nn.Flatten)
