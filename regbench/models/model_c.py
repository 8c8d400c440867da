"""Model C of Ensemble Adversarial Training, a source of black-box attacks on MNIST."""

from torch import nn

__all__ = ["ModelC"]


class ModelC(nn.Sequential):
    """conv3×3-128, tanh, max-pool, conv3×3-64, tanh, max-pool, fc 128, fc K (arXiv:1705.07204).

    Args:
        shape: (C, H, W) of an image.
        classes: K.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        channels, *sides = shape
        height, width = (((side - 2) // 2 - 2) // 2 for side in sides)
        super().__init__(
            nn.Conv2d(channels, 128, 3),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 64, 3),
            nn.Tanh(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * height * width, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
