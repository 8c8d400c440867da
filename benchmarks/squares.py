"""A forward pass on images that change in a small square: a network as it is, and regbench's.

    python benchmarks/squares.py --network resnet18 --batch 128

As Square does: the same square in each image, of each size that its schedule comes to; one image in
thirty keeps it. The network is untrained and tuned, in fp32; both are called on the same images
in turn, in one process. Needs neither Snakemake nor data.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from cases import SHAPES, Case, built
from record import add_place, at_least_one, write
from torch import Tensor

from regbench.core import device as devices
from regbench.core.incremental import Incremental
from regbench.errors import UserError, program

SIZES = (13, 9, 6, 4, 3, 2, 1)
"""Pixels along a side."""

KEPT = 1 / 30
"""Share of the images."""

WARM_UP = 5
"""Passes of each size that are not counted."""


def tried(best: Tensor, size: int, count: int) -> Iterator[Tensor]:
    """Yield `count` changes of `best`, (m, C, H, W), into which those that are kept are written."""
    generator = torch.Generator().manual_seed(size)
    for _ in range(count):
        x = best.clone()
        top, left = (
            int(torch.randint(length - size + 1, (), generator=generator)) for length in x.shape[2:]
        )
        colour = torch.rand(x.shape[1], 1, 1, generator=generator).to(x.device)
        x[..., top : top + size, left : left + size] = colour
        yield x
        kept = torch.rand(len(x), generator=generator) < KEPT
        rows = kept.to(x.device)
        best[rows] = x[rows]


def milliseconds(call: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return how long one call takes, the device's work included."""
    started = time.perf_counter()
    call(x).sum().item()  # waits for a GPU
    return 1e3 * (time.perf_counter() - started)


def measured(network: str, batch: int, count: int, device: torch.device) -> list[dict[str, float]]:
    """Return a row per size of square: the median of `count` passes of either, in milliseconds.

    Raises:
        UserError: no maps are kept of so many images.
    """
    model = built(Case("ours", network, "natural", "fp32", batch, 1), device).model
    model.eval().requires_grad_(False)
    best = torch.rand(batch, *SHAPES[network], generator=torch.Generator().manual_seed(0))
    best, ours = best.to(device), Incremental(model)
    rows = []
    with torch.no_grad():
        ours(best)
        if not ours.renews:
            raise UserError(
                f"{network} keeps no maps of {batch} images, which would be too large; take fewer"
                " by --batch"
            )
        for size in (side for side in SIZES if side <= min(best.shape[2:])):
            pairs = [
                (milliseconds(model, x), milliseconds(ours, x))
                for x in tried(best, size, WARM_UP + count)
            ][WARM_UP:]
            whole, renewed = (median(one) for one in zip(*pairs, strict=True))
            rows.append({"side": size, "whole": whole, "renewed": renewed, "n": count})
    return rows


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="lenet_plus", choices=SHAPES)
    parser.add_argument("--batch", type=at_least_one, default=250, help="images")
    parser.add_argument("--passes", type=at_least_one, default=40, help="of each size of square")
    add_place(parser)
    return parser.parse_args()


def main() -> None:
    """Measure one network; print and write JSON."""
    asked = arguments()
    device = devices.pick(asked.device)
    rows = measured(asked.network, asked.batch, asked.passes, device)
    for row in rows:
        print(
            "{side} × {side}: {whole:.2f} ms whole, {renewed:.2f} renewed,".format(**row),
            f"{row['whole'] / row['renewed']:.2f} times as fast",
        )
    about = {"network": asked.network, "images": asked.batch}
    write(asked.out / f"squares-{asked.network}-{asked.batch}.json", device, {**about, "ms": rows})


if __name__ == "__main__":
    program(main)
