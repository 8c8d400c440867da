"""The learning rate, step by step."""

import numpy as np

from regbench.experiment.cards import TrainingCard


def learning_rate(settings: TrainingCard, epoch: int, within: float = 0.0) -> float:
    """Return the rate at a point of the training.

    Multiplied by `decay` from each milestone on, which waits for the next epoch (the paper's); or
    `cyclic`, a straight line up from 0 and one down to 0 (Smith 2017, arXiv:1506.01186, one cycle).

    Args:
        settings: of the training.
        epoch: counted from 0.
        within: how much of that epoch is done, 0 to 1.
    """
    if settings.cyclic:
        done = (epoch + within) / settings.epochs
        return settings.learning_rate * float(np.interp(done, [0, settings.cyclic, 1], [0, 1, 0]))
    # rounded, as 0.55 · 100 is a little more than 55
    reached = [round(milestone * settings.epochs, 6) for milestone in settings.milestones]
    passed = sum(epoch >= one for one in reached)
    return settings.learning_rate * settings.decay**passed
