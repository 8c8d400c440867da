"""Model A of Ensemble Adversarial Training, a source of black-box attacks on MNIST."""

from torch import nn

__all__ = ["ModelA"]


class ModelA(nn.Sequential):
    """conv5×5-64, conv5×5-64, dropout ¼, fc 128, dropout ½, fc K (arXiv:1705.07204, table 5).

    Args:
        shape: (C, H, W) of an image.
        classes: K.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        channels, height, width = shape
        super().__init__(
            nn.Conv2d(channels, 64, 5),
            nn.ReLU(),
            nn.Conv2d(64, 64, 5),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * (height - 8) * (width - 8), 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, classes),
        )
