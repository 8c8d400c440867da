"""What does a lower precision do to the signs of input gradients, and to the attack they make?

    python benchmarks/gradient_signs.py results/mnist/lenet_plus/*/0-* \\
        --data results/mnist/data-….safetensors

FGSM is crafted on each trained network in fp32 and in each other precision that the device has;
both are judged in fp32, on the same validation images.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from record import add_place, at_least_one, write
from steps import PRECISIONS as AT_HAND
from torch import Tensor, nn
from tqdm import tqdm

from regbench.ascent import clip, cross_entropy, input_gradient, logits
from regbench.core import device as devices
from regbench.core.precision import PRECISIONS
from regbench.core.validation import right
from regbench.core.weights import trained
from regbench.experiment.cards import RunCard
from regbench.prepare import Split, open_data

BATCH = 250


def gradient(model: nn.Module, images: Split, precision: str) -> Tensor:
    """Return ∇ₓ of the cross entropy of the images, computed in `precision`."""
    with PRECISIONS[precision](images.x.device):
        parts = zip(images.x.split(BATCH), images.y.split(BATCH), strict=True)
        return torch.cat([input_gradient(model, x, y, cross_entropy) for x, y in parts])


def judged(model: nn.Module, images: Split, slope: Tensor, epsilon: float) -> tuple[float, float]:
    """Return accuracy (%) and mean cross entropy (nats) under FGSM along the signs of `slope`."""
    z = logits(model, clip(images.x + epsilon * slope.sign()))
    return 100 * right(z, images.y).float().mean().item(), cross_entropy(z, images.y).item()


def compared(
    model: nn.Module, images: Split, epsilon: float, others: tuple[str, ...]
) -> Iterator[dict[str, object]]:
    """Yield how the signs of each other precision agree with fp32's, and what FGSM makes of both.

    A pixel whose gradient is 0 in fp32 has no sign: it is counted by itself.
    """
    exact = gradient(model, images, "fp32")
    signed = exact != 0
    accuracy, loss = judged(model, images, exact, epsilon)
    for precision in others:
        rough = gradient(model, images, precision)
        told = judged(model, images, rough, epsilon)
        yield {
            "precision": precision,
            "zero in fp32 (%)": 100 * (~signed).float().mean().item(),
            "same sign (%)": 100 * (exact.sign() == rough.sign())[signed].float().mean().item(),
            "of ∇'s L1 norm (%)": _weighted(exact, rough),
            "FGSM by fp32 (%)": accuracy,
            "FGSM by it (%)": told[0],
            "loss by fp32": loss,
            "loss by it": told[1],
        }


def _weighted(exact: Tensor, rough: Tensor) -> float:
    """The share of ‖∇ₓ‖₁ on pixels of the same sign, each image's alike: what FGSM climbs by."""
    size = exact.abs().flatten(1)
    same = (size * (exact.sign() == rough.sign()).flatten(1)).sum(1)
    whole = size.sum(1)
    return 100 * (same / whole)[whole > 0].mean().item()


def main() -> None:
    """Compare each run's signs; print a table, write it with the machine as JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--data", type=Path, required=True, help="file of regbench.prepare")
    parser.add_argument("--images", type=at_least_one, default=1000)
    add_place(parser)
    arguments = parser.parse_args()
    device, data = devices.pick(arguments.device), open_data(arguments.data)
    images = data.split("validation", device, arguments.images)
    others = tuple(name for name in AT_HAND[device.type] if name != "fp32")
    rows = []
    for run in tqdm(arguments.runs, unit="run"):
        card = RunCard.read(str(run / "card.json"))
        model = trained(run, data, "best", device)
        name = {"method": run.parent.name, "trained in": card.training.precision, "seed": card.seed}
        rows += [{**name, **row} for row in compared(model, images, card.epsilon, others)]
    table = pd.DataFrame(rows)
    text = table.to_markdown(index=False, floatfmt=".2f")
    print(text)
    write(arguments.out / "gradient_signs.json", device, {"images": len(images.y), "rows": rows})
    (arguments.out / "gradient_signs.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
