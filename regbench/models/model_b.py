"""Model B of Ensemble Adversarial Training, a source of black-box attacks on MNIST."""

from torch import nn

__all__ = ["ModelB"]


class ModelB(nn.Sequential):
    """dropout ⅕, conv8×8-64, conv6×6-128, conv5×5-128, dropout ½, fc K (arXiv:1705.07204, table 5).

    As val-iisc/SAT-Rx codes it: every convolution has stride 1 and no padding.

    Args:
        shape: (C, H, W) of an image.
        classes: K.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        channels, height, width = shape
        super().__init__(
            nn.Dropout(0.2),
            nn.Conv2d(channels, 64, 8),
            nn.ReLU(),
            nn.Conv2d(64, 128, 6),
            nn.ReLU(),
            nn.Conv2d(128, 128, 5),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(128 * (height - 16) * (width - 16), classes),
        )
