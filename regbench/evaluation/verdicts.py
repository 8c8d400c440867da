"""The referee: runs an attack on a trained model and judges each image itself."""

import time
import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.ascent import project
from regbench.attacks import Attack, Proposal
from regbench.core.memory import fitting
from regbench.core.precision import Precision, fp32
from regbench.core.validation import right
from regbench.errors import UserError
from regbench.prepare import Split

ROUNDING = 1e-4
"""Of a proposal's distance: less than a thirtieth of a pixel's step."""


class Verdicts(NamedTuple):
    """What an attack did to each of n images; every tensor is (n,), and so is `fooled_by`.

    Attributes:
        prediction: label given to the adversarial image; to the image, if that is wrong already.
        correct: whether it is the true label, so that the mean is the (robust) accuracy.
        distance: L∞ distance of the adversarial image, at most ε.
        loss: cross entropy there: of the try that fooled the model, else the highest.
        fooled_by: which attack of an ensemble fooled the model first; none: none of them, or the
            attack is no ensemble.
        batch_size: images per batch; fewer than asked for, if memory did not suffice.
        warnings: what the attack warned of, each once.
        seconds: wall time.
    """

    prediction: Tensor
    correct: Tensor
    distance: Tensor
    loss: Tensor
    fooled_by: tuple[str | None, ...]
    batch_size: int
    warnings: tuple[str, ...]
    seconds: float


def judge(
    model: nn.Module,
    attack: Attack,
    images: Split,
    batch_size: int,
    seed: int,
    source: nn.Module | None = None,
    crafting: Precision = fp32,
) -> Verdicts:
    """Return the verdicts of `attack` on `images`.

    The attack's proposal is clipped to the ε-ball and to [0, 1] and classified here; a pixel that
    is NaN counts as left alone, a logit that is NaN as wrong. Images that the model gets wrong
    already are not attacked; a restart tries only those that withstood so far.

    Where memory does not suffice, all begins afresh with half as many images per batch: the
    verdicts are those of a configured batch of that size, and the warnings say so.

    Args:
        model: frozen and in eval mode.
        attack: what to try.
        images: n images and labels, on the model's device.
        batch_size: images per call of the attack.
        seed: of the attack's random stream.
        source: the network that the attack is given in place of `model`: black-box transfer.
        crafting: what the attack computes in; its proposal is classified in single precision, and
            an image that is fooled only in `crafting` is attacked once more in single precision,
            the attack drawing on; not so in a transfer, where the source says when to leave off.

    Raises:
        DoesNotFitError: not even one image at a time fits.
    """
    started = time.perf_counter()

    def tried(most: int) -> Verdicts:
        smaller = attack.within(most)
        return _judged(
            model, smaller, images, min(batch_size, most), seed, source or model, crafting
        )

    asked = max(batch_size, attack.own_batch_size or 1)
    verdicts, size = fitting(tried, asked)
    heard = verdicts.warnings
    if size < asked:
        heard += (f"out of memory with {asked} images at a time, judged with {size}",)
    return verdicts._replace(warnings=heard, seconds=time.perf_counter() - started)


def _judged(
    model: nn.Module,
    attack: Attack,
    images: Split,
    batch_size: int,
    seed: int,
    source: nn.Module,
    crafting: Precision,
) -> Verdicts:
    generator = torch.Generator(images.x.device).manual_seed(seed)
    match = _Match(model, attack, images, batch_size, source, generator)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        for _ in range(attack.restarts):
            left = match.state["correct"].nonzero().squeeze(1)
            size = max(len(left), 1) if attack.whole else batch_size
            for rows in torch.split(left, size) if len(left) else ():
                apparent = match.play(rows, crafting)
                if len(apparent):
                    match.play(apparent, fp32)
    return Verdicts(
        **match.state,
        fooled_by=tuple(match.fooled_by),
        batch_size=attack.own_batch_size or batch_size,
        warnings=tuple(sorted({str(one.message) for one in caught})),
        seconds=0.0,
    )


class _Match:
    """An attack against a model, so far: `state` and `fooled_by` as in `Verdicts`."""

    def __init__(
        self,
        model: nn.Module,
        attack: Attack,
        images: Split,
        batch_size: int,
        source: nn.Module,
        generator: torch.Generator,
    ) -> None:
        self._model, self._attack, self._source = model, attack, source
        self._images, self._size, self._generator = images, batch_size, generator
        self.state = self._seen(images.x, images.y, images.x)
        self.fooled_by: list[str | None] = [None] * len(images.y)

    def play(self, rows: Tensor, crafting: Precision) -> Tensor:
        """Attack images by their numbers; return those of which only `crafting` sees a success.

        The attack may have left off there, too early.
        """
        x, y = self._images.x[rows], self._images.y[rows]
        with crafting(x.device):
            answer = self._attack(self._source, x.clone(), y.clone(), self._generator)
        proposed, by = _parted(self._attack, answer)
        x_adv = _within(_numbers(self._attack, proposed, x), x, self._attack.epsilon)
        now = self._seen(x_adv, y, x)
        fooled = (~now["correct"]).nonzero().squeeze(1)
        for image, place in zip(rows[fooled].tolist(), fooled.tolist(), strict=True):
            self.fooled_by[image] = by[place]
        _keep_worst(self.state, rows, now)
        if crafting is fp32 or self._source is not self._model:
            return rows[:0]
        with crafting(x.device):
            withstands = right(self._logits(x_adv), y)
        return rows[now["correct"] & ~withstands]

    def _logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._model(part) for part in torch.split(x, self._size)])

    def _seen(self, x_adv: Tensor, y: Tensor, x: Tensor) -> dict[str, Tensor]:
        logits = self._logits(x_adv)
        return {
            "prediction": logits.argmax(1),
            "correct": right(logits, y),
            "distance": (x_adv - x).abs().flatten(1).amax(1),
            "loss": F.cross_entropy(logits, y, reduction="none"),
        }


def _parted(attack: Attack, answer: object) -> Proposal:
    """Return the images, and who fooled the model: nobody known, if the attack is no ensemble."""
    if isinstance(answer, Tensor):
        answer = Proposal(answer, [None] * len(answer))
    if not isinstance(answer, Proposal):
        kind = type(answer).__name__
        raise _no_answer(attack, f"{kind}, expected a tensor of images, or a Proposal")
    return answer._replace(x_adv=answer.x_adv.detach())


def _numbers(attack: Attack, proposed: Tensor, x: Tensor) -> Tensor:
    """Return the proposed images, the images themselves where that is no number, and say so."""
    if proposed.shape != x.shape:
        given = f"images of shape {tuple(proposed.shape)}"
        raise _no_answer(attack, f"{given}, expected those that it was given, {tuple(x.shape)}")
    lost = proposed.isnan()
    if lost.all():
        told = f"no number at all for {len(x)} images, expected pixels in [0, 1]"
        raise _no_answer(attack, told)
    if lost.any():
        warnings.warn("pixels that are no number were taken for unchanged ones", RuntimeWarning, 2)
    return torch.where(lost, x, proposed)


def _within(proposed: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """Return the proposed images, brought back into the ball, and say so.

    An attack that leaves it has other images in mind than those that it is judged by.
    """
    if (proposed - x).abs().amax() > epsilon + ROUNDING:
        warnings.warn("images further away than ε were brought back to it", RuntimeWarning, 2)
    return project(proposed, x, epsilon)


def _no_answer(attack: Attack, told: str) -> UserError:
    kind = type(attack)
    return UserError(f"'{kind.__module__}:{kind.__qualname__}' returned {told}")


def _keep_worst(state: dict[str, Tensor], rows: Tensor, now: dict[str, Tensor]) -> None:
    """Overwrite `state` where the model is now fooled, or where its loss has grown."""
    worse = ~now["correct"] | (now["loss"] > state["loss"][rows]) | now["loss"].isnan()
    for name, values in state.items():
        values[rows[worse]] = now[name][worse]
