"""What is timed: methods, networks and sizes, as regbench's own cards and networks."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import checkout  # noqa: F401 - puts regbench on the path
import plain
import torch
from record import at_least_one
from torch import Tensor, nn

from regbench.core.network import network
from regbench.core.precision import PRECISIONS
from regbench.experiment.cards import DataCard, ModelCard, RegularizerCard, RunCard, TrainingCard
from regbench.experiment.cells import PAPER_TRAINING
from regbench.experiment.members import build
from regbench.prepare import Data
from regbench.training.descent import TrainingLoss

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "natural": {},
    "fgsm_at": {},
    "fgsm_rs": {"relative_step": 1.25},
    "n_fgsm": {"relative_noise": 2.0, "relative_step": 1.0},
    "grad_align": {"weight": 0.2},
    "sat_r1": {"weight": 0.2, "steps": 10},
    "sat_r2": {"weight": 5.0, "alpha": 0.01, "projected": False},
    "sat_r3": {
        "weight": 1.0, "tau": 0.4, "alpha": 0.01,
        "epsilon_low": 0.1, "epsilon_high": plain.EPSILON, "projected": False,
    },
    "pgd_at": {"steps": plain.STEPS, "step_size": plain.STEP_SIZE},
    "trades": {"weight": 1.0, "steps": plain.STEPS, "step_size": plain.STEP_SIZE},
}  # fmt: skip
"""Those of plain.py."""

SHAPES = {
    "lenet_plus": (1, 28, 28), "small_cnn": (1, 8, 8),
    "resnet18": (3, 32, 32), "wrn_28_10": (3, 32, 32),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What is timed: `steps` training steps of one method on one network.

    Attributes:
        structure: `ours` or `plain`.
        network: a file of regbench/models/.
        method: a file of regbench/regularizers/.
        precision: of regbench.core.precision; the plain structure knows fp32 only.
        batch: images per step, m.
        steps: per block that is timed.
        width: of the small CNN.
    """

    structure: str
    network: str
    method: str
    precision: str
    batch: int
    steps: int
    width: int | None = None


def images(case: Case, steps: int) -> tuple[Tensor, Tensor]:
    """Return images of noise, (m · steps, C, H, W), with labels."""
    generator = torch.Generator().manual_seed(0)
    count = case.batch * steps
    x = torch.rand(count, *SHAPES[case.network], generator=generator)
    return x, torch.randint(10, (count,), generator=generator)


class Built(NamedTuple):
    """A case as regbench has it: card, untrained network, loss."""

    card: RunCard
    model: nn.Module
    loss: TrainingLoss


def built(case: Case, device: torch.device) -> Built:
    """Return what our structure makes of a case."""
    run = card(case)
    data = Data(Path(), SHAPES[case.network], 10, 1)
    model = network(run, data, device, run.training.precision)
    return Built(run, model, build(run.regularizer.loss, run.regularizer.hyperparameters))


def card(case: Case) -> RunCard:
    """Return a run card of two epochs: the paper's optimizer, no augmentation, one image held out.

    The second epoch is the one that is timed.
    """
    own = {} if case.width is None else {"width": case.width}
    training = PAPER_TRAINING | {"selection_steps": 1, "precision": case.precision}
    return RunCard(
        data=DataCard(source="regbench.data.digits", arguments={}, validation=1, split_seed=0),
        model=ModelCard(architecture=f"regbench.models.{case.network}", arguments=own),
        regularizer=RegularizerCard(
            loss=f"regbench.regularizers.{case.method}",
            hyperparameters=HYPERPARAMETERS[case.method],
        ),
        epsilon=plain.EPSILON,
        training=TrainingCard(epochs=2, batch_size=case.batch, learning_rate=0.01, **training),
        seed=0,
    )


def add_case(parser: argparse.ArgumentParser, method: str, steps: int) -> None:
    """Let the command line name one case of ours; `method` and `steps` if it does not."""
    parser.add_argument("--network", default="lenet_plus", choices=plain.NETWORKS)
    parser.add_argument("--method", default=method, choices=HYPERPARAMETERS)
    parser.add_argument("--precision", default="bf16", choices=PRECISIONS)
    parser.add_argument("--batch", type=at_least_one, default=64, help="images per step")
    parser.add_argument("--steps", type=at_least_one, default=steps, help="per block")


def case_of(asked: argparse.Namespace) -> Case:
    """Return the case that a command line names."""
    return Case("ours", asked.network, asked.method, asked.precision, asked.batch, asked.steps)
