"""What RobustBench's own classes have in common."""

SHAPE = (3, 32, 32)


def refuse_others(name: str, shape: tuple[int, int, int]) -> None:
    """Raise a `ValueError` unless images are of `SHAPE`, which these classes are for.

    Args:
        name: of the network.
        shape: of an image, (C, H, W).
    """
    if shape != SHAPE:
        raise ValueError(f"{name} takes images of shape {SHAPE}, got {shape}")
