"""AutoAttack as it is usually called against ours, on one trained model, image by image.

    python benchmarks/evaluation.py results/…/0-1a2b3c4d5e --data results/mnist/data-….safetensors

The plain call gives AutoAttack the network as it is usually written (LeNet+ with its ReLU before
the pooling, which is the same number): contiguous, its weights asking for gradients. Ours is
regbench.evaluation.verdicts on the tuned, frozen network. AutoAttack's code is the same. Each has a
process of its own, since ours changes how memory is kept. The images are dealt to rounds; in each,
once warmed up, both take the same ones, plain first in every other round.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from autoattack import AutoAttack as Ensemble
from plain import NETWORKS
from record import add_place, at_least_one, write
from safetensors.torch import load_file
from structures import DEVICES
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.attacks.autoattack import AutoAttack
from regbench.core import device as devices
from regbench.core.network import plain
from regbench.core.weights import trained
from regbench.evaluation.verdicts import judge
from regbench.experiment.cards import RunCard
from regbench.prepare import Data, Split, open_data

SEED = 0

Judged = tuple[list[bool], float]
"""Whether each image withstands, and the seconds that it took to know."""


def plain_network(run: Path, data: Data) -> nn.Module:
    """Return the network of a run as public code would write it."""
    card = RunCard.read(str(run / "card.json"))
    usual = NETWORKS.get(card.model.architecture.rpartition(".")[2])
    model = usual() if usual else plain(card.model, data.shape, data.classes)
    model.load_state_dict(load_file(run / "best.safetensors"))
    return model.eval()


def plainly(model: nn.Module, images: Split, epsilon: float) -> Tensor:
    """Return whether each image withstands AutoAttack, called as its README says."""
    ensemble = Ensemble(model, norm="Linf", eps=epsilon, seed=SEED, device=images.x.device)
    x_adv = ensemble.run_standard_evaluation(images.x, images.y, bs=len(images.y))
    with torch.no_grad():
        return (model(x_adv).argmax(1) == images.y).cpu()


def ours(model: nn.Module, images: Split, epsilon: float) -> Tensor:
    """Return whether each image withstands AutoAttack, as a suite of regbench judges it."""
    attack = AutoAttack(epsilon=epsilon, batch_size=len(images.y))
    return judge(model, attack, images, len(images.y), SEED).correct.cpu()


def warm_up(model: nn.Module, images: Split) -> None:
    """Do untimed what AutoAttack does most, so that nobody's first pass is timed."""
    for _ in range(3):
        x = images.x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(x), images.y), x)
        with torch.no_grad():
            model(x)


def tuned_network(run: Path, data: Data) -> nn.Module:
    """Return the network of a run as regbench judges it."""
    return trained(run, data, "best", torch.device("cpu"))


STRUCTURES = {"plain": (plain_network, plainly), "ours": (tuned_network, ours)}


@cache
def begun(
    name: str, run: Path, data: Path, device: str, count: int
) -> tuple[nn.Module, Split, float]:
    """Return a structure's network, the first `count` test images and ε, once in each process."""
    place, opened = DEVICES[name](device), open_data(data)
    model = STRUCTURES[name][0](run, opened).to(place)
    epsilon = RunCard.read(str(run / "card.json")).epsilon
    return model, opened.split("test", place, count), epsilon


def timed(
    name: str, run: Path, data: Path, device: str, count: int, part: tuple[int, int]
) -> Judged:
    """Judge the images of `part`, first and past the last, by one structure."""
    model, images, epsilon = begun(name, run, data, device, count)
    dealt = Split(images.x[slice(*part)], images.y[slice(*part)])
    warm_up(model, dealt)
    started = time.perf_counter()
    stood = STRUCTURES[name][1](model, dealt, epsilon)
    return stood.tolist(), time.perf_counter() - started


def compare(
    judges: dict[str, Callable[[tuple[int, int]], Judged]], count: int, rounds: int
) -> dict[str, object]:
    """Return seconds of each round, the speedup over all, and the verdicts, counted.

    Args:
        judges: of `plain` and `ours`; takes a part of the images, first and past the last.
        count: images.
        rounds: that they are dealt to.
    """
    seconds: dict[str, list[float]] = {name: [] for name in judges}
    verdicts: dict[str, list[bool]] = {name: [] for name in judges}
    order = list(judges)
    edges = [count * place // rounds for place in range(rounds + 1)]
    for part in pairwise(edges):
        for name in order:
            stood, took = judges[name](part)
            verdicts[name] += stood
            seconds[name].append(took)
        order.reverse()
    differ = sum(a != b for a, b in zip(verdicts["plain"], verdicts["ours"], strict=True))
    return {
        "withstand": {name: sum(one) for name, one in verdicts.items()},
        "verdicts_that_differ": differ,
        "seconds": seconds,
        "speedup": sum(seconds["plain"]) / sum(seconds["ours"]),
    }


def main() -> None:
    """Time both on the same images, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--images", type=at_least_one, default=64)
    parser.add_argument(
        "--rounds", type=at_least_one, default=2, help="that the images are dealt to"
    )
    add_place(parser)
    asked = parser.parse_args()
    device, spawn = devices.pick(asked.device), get_context("spawn")
    about = (asked.run, asked.data, device.type, asked.images)
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as one,
        ProcessPoolExecutor(1, mp_context=spawn) as other,
    ):
        judges = {
            name: lambda part, name=name, pool=pool: pool.submit(timed, name, *about, part).result()
            for name, pool in (("plain", one), ("ours", other))
        }
        told = compare(judges, asked.images, asked.rounds)
    told = {"network": asked.run.parts[-3:], "images": asked.images, **told}
    print(json.dumps(told, indent=2))
    write(asked.out / "evaluation.json", device, told)


if __name__ == "__main__":
    main()
