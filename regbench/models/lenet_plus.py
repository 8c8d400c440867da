"""LeNet+, the paper's network for MNIST."""

from torch import nn

__all__ = ["LeNetPlus"]


class LeNetPlus(nn.Sequential):
    """conv5×5-32, ReLU, max-pool, conv5×5-64, ReLU, max-pool, fc 1024, fc K (val-iisc/SAT-Rx).

    Pooled before the ReLU, which is the same number and a quarter of the ReLU's work.

    Args:
        shape: (C, H, W) of an image; H and W divisible by 4.
        classes: K.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        channels, height, width = shape
        super().__init__(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 1024),
            nn.ReLU(),
            nn.Linear(1024, classes),
        )
