"""The referee: runs an attack on a trained model and judges each image itself."""

import time
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.ascent import project
from regbench.attacks import Attack
from regbench.prepare import Split
from regbench.validation import right


class Verdicts(NamedTuple):
    """What an attack did to each of n images; every tensor is (n,).

    Attributes:
        prediction: label given to the adversarial image; to the image, if that is wrong already.
        correct: whether it is the true label, so that the mean is the (robust) accuracy.
        distance: L∞ distance of the adversarial image, at most ε.
        loss: cross entropy there: of the try that fooled the model, else the highest.
        warnings: what the attack warned of, each once.
        seconds: wall time.
    """

    prediction: Tensor
    correct: Tensor
    distance: Tensor
    loss: Tensor
    warnings: tuple[str, ...]
    seconds: float


def judge(
    model: nn.Module,
    attack: Attack,
    images: Split,
    batch_size: int,
    seed: int,
    source: nn.Module | None = None,
) -> Verdicts:
    """Return the verdicts of `attack` on `images`.

    The attack's proposal is clipped to the ε-ball and to [0, 1] and classified here; a pixel that
    is NaN counts as left alone, a logit that is NaN as wrong. Images that the model gets wrong
    already are not attacked; a restart tries only those that withstood so far.

    Args:
        model: frozen and in eval mode.
        attack: what to try.
        images: n images and labels, on the model's device.
        batch_size: images per call of the attack.
        seed: of the attack's random stream.
        source: the network that the attack is given in place of `model`: black-box transfer.
    """
    started = time.perf_counter()
    generator = torch.Generator(images.x.device).manual_seed(seed)
    state = _seen(model, images.x, images.y, images.x, batch_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        for _ in range(attack.restarts):
            left = state["correct"].nonzero().squeeze(1)
            size = max(len(left), 1) if attack.whole else batch_size
            for rows in torch.split(left, size) if len(left) else ():
                x, y = images.x[rows], images.y[rows]
                proposed = attack(source or model, x.clone(), y.clone(), generator).detach()
                x_adv = project(torch.where(proposed.isnan(), x, proposed), x, attack.epsilon)
                _keep_worst(state, rows, _seen(model, x_adv, y, x, batch_size))
    heard = tuple(sorted({str(one.message) for one in caught}))
    return Verdicts(**state, warnings=heard, seconds=time.perf_counter() - started)


def _seen(
    model: nn.Module, x_adv: Tensor, y: Tensor, x: Tensor, batch_size: int
) -> dict[str, Tensor]:
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(x_adv, batch_size)])
    return {
        "prediction": logits.argmax(1),
        "correct": right(logits, y),
        "distance": (x_adv - x).abs().flatten(1).amax(1),
        "loss": F.cross_entropy(logits, y, reduction="none"),
    }


def _keep_worst(state: dict[str, Tensor], rows: Tensor, now: dict[str, Tensor]) -> None:
    """Overwrite `state` where the model is now fooled, or where its loss has grown."""
    worse = ~now["correct"] | (now["loss"] > state["loss"][rows]) | now["loss"].isnan()
    for name, values in state.items():
        values[rows[worse]] = now[name][worse]
