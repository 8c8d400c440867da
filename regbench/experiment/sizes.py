"""How large a data set is, read only where its class does not say."""

from functools import cache

from regbench.data import Size
from regbench.experiment import paths
from regbench.experiment.cards import DataCard
from regbench.experiment.members import build, load


def size(card: DataCard) -> Size:
    """Return how many images a data set has, of what shape, in how many classes.

    Raises:
        UserError: its class does not say, and the data set is not here.
    """
    return _size(card.text())


@cache
def _size(text: str) -> Size:
    card = DataCard.read(text)
    known = getattr(load(card.source), "size", None)
    if isinstance(known, Size):
        return known
    images = build(card.source, card.arguments)(paths.data_root(), False)
    shape = images.x_train.shape[1:]
    return Size(len(images.x_train), len(images.x_test), shape, images.classes)
