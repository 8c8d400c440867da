"""What a benchmark leaves: its figures with the machine that they were measured on, as JSON."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from checkout import ROOT

from regbench.storage.provenance import provenance

RESULTS = ROOT / "benchmarks/results"


def add_place(parser: argparse.ArgumentParser) -> None:
    """Let the command line name the device that is measured and the folder for the figures."""
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, default=RESULTS)


def at_least_one(text: str) -> int:
    """Return the number above 0 that a command line gives, for argparse's `type=`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def write(path: Path, device: torch.device, told: dict[str, Any]) -> None:
    """Write `told`, and what `device` is, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": provenance(device), **told}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
