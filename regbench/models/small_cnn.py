"""A small convolutional network for 8×8 images, batch-normalised."""

from pydantic import PositiveInt
from torch import nn

__all__ = ["SmallCNN"]


class SmallCNN(nn.Sequential):
    """conv3×3-w, BN, ReLU, conv3×3-2w, BN, ReLU, max-pool, fc 4w, ReLU, fc K.

    Args:
        shape: (C, H, W) of an image; H and W even.
        classes: K.
        width: w, channels of the first convolution.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: PositiveInt = 16) -> None:
        channels, height, columns = shape
        pooled = 2 * width * (height // 2) * (columns // 2)
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(pooled, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, classes),
        )
