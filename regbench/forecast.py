"""What a run will cost, told before its first job: trainings, attacks, diagnoses, and rough hours.

FLOPs are counted by torch's own counter, the rate is measured here in seconds. Of arithmetic,
attacks cost at most what is said: an image that is fooled early costs less. What each call costs
besides is not counted: a small network on few images may take many times as long.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from regbench.ascent import cross_entropy, input_gradient
from regbench.core import device as devices
from regbench.core.memory import fitting
from regbench.core.misfit import refuse_misfit
from regbench.core.network import laid_out, plain
from regbench.core.precision import PRECISIONS
from regbench.errors import ForeignFileError, UserError, program
from regbench.evaluation.diagnosis import diagnose
from regbench.evaluation.gallery import gallery
from regbench.experiment.beyond import beyond
from regbench.experiment.cards import DataCard, DiagnosisCard, ModelCard, RunCard, SuiteCard
from regbench.experiment.manifest import Manifest, Run
from regbench.experiment.members import build
from regbench.experiment.sizes import size
from regbench.prepare import Split
from regbench.training.passes import counting
from regbench.training.properties import PROBED

SECONDS = 1.0
"""How long a network's rate is measured."""

AT_ONCE = {"cpu": 32, "cuda": 256}
"""Images whose gradient is timed, fewer if they do not fit: on a GPU many, as launching costs."""

LONG = 86_400
"""Seconds from which on a run on a CPU is worth a second thought."""


class Work(NamedTuple):
    """What one job does on one network: forward passes' worth of arithmetic, at most.

    `unknown` attacks, which do not tell what they cost, are left out.
    """

    network: ModelCard
    data: DataCard
    passes: float
    unknown: int = 0
    precision: str = "fp32"


def trainings(manifest: Manifest, targets: set[str]) -> list[Work]:
    """Return the work of each training whose weights are among `targets`."""
    return [
        Work(
            run.card.model,
            run.card.data,
            _training(run.card, run.cost),
            precision=run.card.training.precision,
        )
        for run in _trained_now(manifest, targets)
        if isinstance(run.card, RunCard) and run.cost is not None
    ]


def _trained_now(manifest: Manifest, targets: set[str]) -> list[Run]:
    runs = {run.folder: run for run in (*manifest.sources, *manifest.runs)}
    return [run for run in runs.values() if f"{run.folder}/best.safetensors" in targets]


def attacks(manifest: Manifest, targets: set[str]) -> list[Work]:
    """Return the work of each suite whose verdicts are among `targets`."""
    return [
        Work(
            run.card.model,
            run.card.data,
            *_suite(suite.text(), run.card.data.text()),
            precision=suite.precision,
        )
        for run in manifest.runs
        for path in run.verdicts.values()
        if path in targets
        for suite in (manifest.suites[path],)
    ]


def diagnoses(manifest: Manifest, targets: set[str]) -> list[Work]:
    """Return the work of each diagnosis whose file is among `targets`."""
    return [
        Work(
            run.card.model,
            run.card.data,
            _diagnosis(manifest.diagnoses[run.diagnosis].text(), run.card.data.text()),
        )
        for run in manifest.runs
        if run.diagnosis and run.diagnosis in targets
    ]


def _training(card: RunCard, cost: float) -> float:
    """Of `cost` passes per image one reaches the weights, 3 F; the others end at the image, 2 F."""
    settings, held_out = card.training, card.data.validation
    images = size(card.data).train - held_out
    epoch = images * (2 * cost + 1) + held_out * (2 * settings.selection_steps + 2)
    epoch += min(held_out, PROBED) * (3 * 2 + 4)  # three more attacks of one step, four losses
    return settings.epochs * epoch


# every network of a data set is judged by the same suites
@cache
def _suite(suite: str, of: str) -> tuple[float, int]:
    """The passes of all attacks that tell theirs, and how many do not."""
    card = SuiteCard.read(suite)
    there = _images(card.split, of)
    members = [
        (min(one.images or there, there), build(one.attack, one.arguments))
        for one in card.attacks.values()
    ]
    told = [count * attack.passes for count, attack in members]
    known = [passes for passes in told if math.isfinite(passes)]
    return float(sum(known)), len(told) - len(known)


# likewise by the same diagnosis
@cache
def _diagnosis(diagnosis: str, of: str) -> float:
    """Counted, as all images cost the same: every diagnostic is taken of a stand-in."""
    card = DiagnosisCard.read(diagnosis)
    count = min(card.images, _images(card.split, of))
    about = size(DataCard.read(of))
    x, y = torch.full((count, *about.shape), 0.5), torch.arange(count) % about.classes
    images, stand_in = Split(x, y), _StandIn(about.classes)
    with counting(stand_in) as seen:
        diagnose(card, stand_in, images, batch_size=count)
        gallery(card, stand_in, images, batch_size=count)
    return float(seen.forward + seen.backward)


class _StandIn(nn.Module):
    """Told apart by the mean pixel: the cheapest network of so many classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.slopes = torch.linspace(-1, 1, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return f(x), (m, K)."""
        return x.flatten(1).mean(1, keepdim=True) * self.slopes


def _images(split: str, of: str) -> int:
    """How many images the split of a data set has."""
    data = DataCard.read(of)
    return size(data).test if split == "test" else data.validation


class Rate(NamedTuple):
    """Of one network on one device: FLOP of a forward pass of one image, FLOP per second."""

    flop: float
    per_second: float


@cache
def rate(network: str, data: str, precision: str, device: torch.device) -> Rate:
    """Return what a forward pass costs, counted, and how fast input gradients go, measured once.

    Args:
        network: the text of a model card.
        data: the text of a data card.
        precision: that it computes in.
        device: where to measure.

    Raises:
        DoesNotFitError: not even one image's gradient fits in memory.
        MisfitError: the network is not for this data set.
    """
    like, card = size(DataCard.read(data)), ModelCard.read(network)
    tried = laid_out(plain(card, like.shape, like.classes), device, shape=like.shape)
    refuse_misfit(tried, card.architecture, like.shape, like.classes, device)
    model = plain(card, like.shape, like.classes).eval().requires_grad_(False)
    count = 4
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(count, *like.shape))
    flop = counter.get_total_flops() / count
    model = laid_out(model, device, precision, like.shape)

    def per_image(images: int) -> float:
        x = torch.rand(images, *like.shape, device=device)
        y = torch.zeros(images, dtype=torch.int64, device=device)
        with PRECISIONS[precision](device):
            return _seconds(model, x, y) / images

    seconds, _ = fitting(per_image, AT_ONCE[device.type])
    return Rate(flop, 2 * flop / seconds)


def _seconds(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """The best time of one input gradient, of as many as fit in `SECONDS`, at least two."""
    best, began, tries = float("inf"), time.perf_counter(), 0
    while tries < 2 or time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        input_gradient(model, x, y, cross_entropy).sum().item()
        best, tries = min(best, time.perf_counter() - started), tries + 1
    return best


def forecast(works: Iterable[Work], device: torch.device) -> float:
    """Return the seconds that `works`, the unknown left out, take on `device` one by one."""
    total = 0.0
    for work in works:
        one = rate(work.network.text(), work.data.text(), work.precision, device)
        total += work.passes * one.flop / one.per_second
    return total


def duration(seconds: float) -> str:
    """Return `50 s`, `12 min`, `3.4 h` or `21 days`: what a person plans by."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{seconds / 86_400:.0f} days"


def sentence(
    trained: list[Work], judged: list[Work], diagnosed: list[Work], device: torch.device, jobs: int
) -> str:
    """Return what there is to do, how long it takes, and what to do if that is too long."""
    seconds = [forecast(works, device) / jobs for works in (trained, judged, diagnosed)]
    where = f"{jobs} at a time on the CPU"
    if device.type == "cuda":
        where = f"on {jobs} × {torch.cuda.get_device_name(device)}"
    unknown = sum(work.unknown for work in judged)
    left_out = f" ({unknown} attacks of unknown cost left out)" if unknown else ""
    way_out = ""
    if device.type == "cpu" and sum(seconds) > LONG:
        way_out = "; a GPU, fewer `seeds:` or `images:` cost less, as do smaller files of config/"
    return (
        f"regbench: {len(trained)} trainings, about {duration(seconds[0])}, {len(judged)} suites of"
        f" attacks, at most {duration(seconds[1])}{left_out}, and {len(diagnosed)} diagnoses, about"
        f" {duration(seconds[2])} of arithmetic: {where}{way_out}"
    )


def main() -> None:
    """Read the command line and print one line."""
    parser = argparse.ArgumentParser(prog="python -m regbench.forecast", description=__doc__)
    parser.add_argument("manifest", help="the experiment's manifest, a JSON file")
    parser.add_argument("--jobs", type=int, default=1, help="CPU cores, or GPUs, at work")
    parser.add_argument("--device", help="auto, cpu or cuda (default: $REGBENCH_DEVICE, else auto)")
    arguments = parser.parse_args()
    device, manifest = devices.pick(arguments.device), Manifest.read(arguments.manifest)
    targets = set(sys.stdin.read().splitlines())
    torch.set_num_threads(1)  # as each job has
    try:
        trained, judged = trainings(manifest, targets), attacks(manifest, targets)
        # all that a diagnosis asks of the data; what fails after it is a diagnostic of one's own
        for run in manifest.runs:
            if run.diagnosis in targets:
                size(run.card.data)
    except ForeignFileError:
        raise
    except UserError as error:
        print(f"regbench: the cost is not known before the data are here ({error})")
        return
    diagnosed = diagnoses(manifest, targets)
    print(sentence(trained, judged, diagnosed, device, arguments.jobs))
    for line in beyond(_trained_now(manifest, targets)):
        print(f"regbench: note: {line}")


if __name__ == "__main__":
    program(main)
