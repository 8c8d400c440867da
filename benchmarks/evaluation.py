"""AutoAttack as it is usually called against ours, on one trained model, image by image.

    python benchmarks/evaluation.py results/…/0-1a2b3c4d5e --data results/mnist/data-….safetensors

The plain call gives AutoAttack the network as it was trained: contiguous, its weights asking for
gradients. Ours is regbench.verdicts on the tuned, frozen network. AutoAttack's code is the same.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from autoattack import AutoAttack as Ensemble
from record import RESULTS, write
from safetensors.torch import load_file
from torch import Tensor, nn

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


def plainly(model: nn.Module, images: Split, epsilon: float, batch: int) -> Tensor:
    """Return whether each image withstands AutoAttack, called as its README says."""
    ensemble = Ensemble(model, norm="Linf", eps=epsilon, seed=SEED, device=images.x.device)
    x_adv = ensemble.run_standard_evaluation(images.x, images.y, bs=batch)
    with torch.no_grad():
        return model(x_adv).argmax(1) == images.y


def main() -> None:
    """Time both on the same images, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device, data = devices.pick(arguments.device), open_data(arguments.data)
    card = RunCard.read(str(arguments.run / "card.json"))
    images = data.split("test", device, arguments.images)
    seconds, verdicts = {}, {}
    started = time.perf_counter()
    model = plain_network(arguments.run, data).to(device)
    verdicts["plain"] = plainly(model, images, card.epsilon, arguments.images)
    seconds["plain"] = time.perf_counter() - started
    attack = AutoAttack(epsilon=card.epsilon, batch_size=arguments.images)
    started = time.perf_counter()
    model = trained(arguments.run, data, "best", device)
    verdicts["ours"] = judge(model, attack, images, arguments.images, SEED).correct
    seconds["ours"] = time.perf_counter() - started
    told = {
        "run": str(arguments.run),
        "images": arguments.images,
        "withstand": {name: int(one.sum()) for name, one in verdicts.items()},
        "verdicts_that_differ": int((verdicts["plain"] != verdicts["ours"]).sum()),
        "seconds": seconds,
        "speedup": seconds["plain"] / seconds["ours"],
    }
    print(json.dumps(told, indent=2))
    write(arguments.out / "evaluation.json", device, told)


if __name__ == "__main__":
    main()
