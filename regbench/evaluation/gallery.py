"""A few images as a trained network sees them: clean, under FGSM and under PGD."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.ascent import logits, project
from regbench.attacks.clean import Clean
from regbench.attacks.fgsm import FGSM
from regbench.attacks.pgd import PGD
from regbench.core.validation import right
from regbench.experiment.cards import DiagnosisCard
from regbench.prepare import Split

SCHEMA = pa.schema(
    [
        ("image", pa.int32()),
        ("label", pa.int16()),
        ("under", pa.dictionary(pa.int8(), pa.string())),
        ("epsilon", pa.float64()),
        ("prediction", pa.int16()),
        ("confidence", pa.float32()),
        ("correct", pa.bool_()),
        ("channels", pa.int16()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("pixels", pa.binary()),
    ]
)

STEPS = 50
"""Of PGD, by its defaults: 2.5 ε/50 each, from a uniform start in the ball."""


def attacks(epsilon: float) -> dict[str, Clean | FGSM | PGD]:
    """Return what the images are shown under, by name; the radius is ε."""
    return {
        "clean": Clean(),
        "FGSM": FGSM(epsilon=epsilon),
        f"PGD-{STEPS}": PGD(epsilon=epsilon, steps=STEPS),
    }


def gallery(card: DiagnosisCard, model: nn.Module, images: Split, batch_size: int) -> pa.Table:
    """Return one row per image that is shown and attack: what the network takes it for.

    Every image is attacked, those too that the network gets wrong already, and by one try. `pixels`
    are C · H · W bytes, rounded to 1/255; the network saw them unrounded.

    Args:
        card: radius, seed, and how many images of those that are given.
        model: frozen, in eval mode.
        images: n images and labels, on the model's device.
        batch_size: images per batch.
    """
    chosen = first_of_each_class(images.y, card.gallery)
    batches = [chosen[first : first + batch_size] for first in range(0, len(chosen), batch_size)]
    rows = [
        row
        for name, attack in attacks(card.epsilon).items()
        for row in _shown(name, attack, card.seed, model, images, batches)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def first_of_each_class(y: Tensor, count: int) -> Tensor:
    """Return the places of `count` labels in `y`, (n,): the first of each class, then the second, …

    The same images for every network; fewer, if there are no more.
    """
    place = F.one_hot(y).cumsum(0).gather(1, y[:, None]).squeeze(1)
    return place.argsort(stable=True)[:count]


def _shown(
    name: str,
    attack: Clean | FGSM | PGD,
    seed: int,
    model: nn.Module,
    images: Split,
    batches: list[Tensor],
) -> Iterator[dict[str, object]]:
    generator = torch.Generator(images.x.device).manual_seed(seed)
    for places in batches:
        x, y = images.x[places], images.y[places]
        x_adv = project(attack(model, x, y, generator), x, attack.epsilon)
        with torch.no_grad():
            z = logits(model, x_adv)
        confidence, prediction = z.softmax(1).max(1)
        columns = {
            "image": places,
            "label": y,
            "prediction": prediction,
            "confidence": confidence,
            "correct": right(z, y),
        }
        told = zip(*(column.tolist() for column in columns.values()), strict=True)
        for values, image in zip(told, x_adv.cpu().numpy(), strict=True):
            yield {
                **dict(zip(columns, values, strict=True)),
                "under": name,
                "epsilon": attack.epsilon,
                **dict(zip(("channels", "height", "width"), image.shape, strict=True)),
                "pixels": (255 * image).round().astype(np.uint8).tobytes(),
            }
