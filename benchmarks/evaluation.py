"""AutoAttack as it is usually called against ours, on one trained model, image by image.

    python benchmarks/evaluation.py results/…/0-1a2b3c4d5e --data results/mnist/data-….safetensors

The plain call gives AutoAttack the network as it was trained: contiguous, its weights asking for
gradients. Ours is regbench.verdicts on the tuned, frozen network. AutoAttack's code is the same.
The images are dealt to rounds; in each, once warmed up, both take the same ones, plain first in
every other round.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from autoattack import AutoAttack as Ensemble
from record import RESULTS, write
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from regbench import device as devices
from regbench.attacks.autoattack import AutoAttack
from regbench.cards import RunCard
from regbench.network import plain
from regbench.prepare import Data, Split, open_data
from regbench.verdicts import judge
from regbench.weights import trained

SEED = 0


def plain_network(run: Path, data: Data) -> nn.Module:
    """Return the network of a run as RobustBench would hold it."""
    card = RunCard.read(str(run / "card.json"))
    model = plain(card.model, data.shape, data.classes)
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


CALLS: dict[str, Callable[[nn.Module, Split, float], Tensor]] = {"plain": plainly, "ours": ours}


def warm_up(model: nn.Module, images: Split) -> None:
    """Do untimed what AutoAttack does most, so that nobody's first pass is timed."""
    for _ in range(3):
        x = images.x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(x), images.y), x)
        with torch.no_grad():
            model(x)


def dealt(images: Split, rounds: int) -> list[Split]:
    """Return the images in `rounds` parts, as equal as can be."""
    parts = zip(images.x.tensor_split(rounds), images.y.tensor_split(rounds), strict=True)
    return [Split(x, y) for x, y in parts]


def compare(
    models: dict[str, nn.Module], images: Split, epsilon: float, rounds: int
) -> dict[str, object]:
    """Return seconds of each round, the speedup over all, and the verdicts, counted."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    verdicts: dict[str, list[Tensor]] = {name: [] for name in models}
    order = list(models)
    for part in dealt(images, rounds):
        for name in order:
            warm_up(models[name], part)
        for name in order:
            started = time.perf_counter()
            verdicts[name].append(CALLS[name](models[name], part, epsilon))
            seconds[name].append(time.perf_counter() - started)
        order.reverse()
    stood = {name: torch.cat(one) for name, one in verdicts.items()}
    return {
        "withstand": {name: int(one.sum()) for name, one in stood.items()},
        "verdicts_that_differ": int((stood["plain"] != stood["ours"]).sum()),
        "seconds": seconds,
        "speedup": sum(seconds["plain"]) / sum(seconds["ours"]),
    }


def main() -> None:
    """Time both on the same images, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2, help="that the images are dealt to")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    device, data = devices.pick(asked.device), open_data(asked.data)
    card = RunCard.read(str(asked.run / "card.json"))
    images = data.split("test", device, asked.images)
    models = {
        "plain": plain_network(asked.run, data).to(device),
        "ours": trained(asked.run, data, "best", device),
    }
    told = {
        "run": str(asked.run),
        "images": len(images.y),
        **compare(models, images, card.epsilon, asked.rounds),
    }
    print(json.dumps(told, indent=2))
    write(asked.out / "evaluation.json", device, told)


if __name__ == "__main__":
    main()
