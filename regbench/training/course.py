"""The course of one training: everything that it moves, so that it can be put down and taken up."""

import math
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from regbench.experiment.cards import RunCard
from regbench.training.contract import carried
from regbench.training.descent import momentum

Weights = dict[str, Tensor]


class Epoch(TypedDict):
    """One row of a learning curve; losses are means over the epoch's images.

    `loss_under_…` are those of `regbench.training.properties.losses`, on held-out images.
    """

    epoch: int
    learning_rate: float
    loss: float
    cross_entropy: float
    penalty: float
    validation_clean: float
    validation_ifgsm: float
    loss_under_half_fgsm: float
    loss_under_fgsm: float
    loss_under_rfgsm: float
    loss_under_ifgsm: float
    seconds: float


@dataclass
class Course:
    """Where a training stands.

    Attributes:
        model: the network, its weights and statistics.
        optimizer: with its momentum.
        noise: the stream that augmentation and losses draw from.
        order: the stream that each epoch's order is drawn from.
        order_began: its state when this epoch began.
        epoch: finished epochs.
        batch: finished steps of this epoch.
        sums: of loss, cross entropy and penalty over this epoch's images so far, (3,).
        images: how many those were.
        seconds: spent on this epoch's steps so far.
        curve: a row per finished epoch.
        best: weights of the best epoch so far.
        best_epoch: which one that was, from 1 on; 0: the untrained network.
        best_score: its validation accuracy, of the kind that picks it.
        status: `ok`, or what went wrong.
        rate: learning rate of the last step; NaN before there was any.
        loss: the training loss, for what it carries from step to step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    noise: torch.Generator
    order: torch.Generator
    order_began: Tensor
    sums: Tensor
    best: Weights
    epoch: int = 0
    batch: int = 0
    images: int = 0
    seconds: float = 0.0
    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -1.0
    status: str = "ok"
    rate: float = math.nan
    loss: object = None

    @classmethod
    def begin(
        cls, card: RunCard, model: nn.Module, device: torch.device, loss: object = None
    ) -> "Course":
        """Return the course of a training that has not begun."""
        order = torch.Generator().manual_seed(card.seed)
        return cls(
            model=model,
            optimizer=_optimizer(card, model),
            noise=torch.Generator(device).manual_seed(card.seed),
            order=order,
            order_began=order.get_state(),
            sums=torch.zeros(3, device=device),
            best=copy(model),
            loss=loss,
        )

    def new_order(self) -> torch.Generator:
        """Return the stream of orders, at the state that is this epoch's."""
        if self.batch:
            self.order.set_state(self.order_began)
        self.order_began = self.order.get_state()
        return self.order

    def pace(self, rate: float) -> None:
        """Take steps at a learning rate from now on."""
        if rate != self.rate:
            for group in self.optimizer.param_groups:
                group["lr"].fill_(rate)
        self.rate = rate

    def add(self, terms: Tensor, images: int) -> None:
        """Count one step; nothing leaves the device."""
        self.sums += images * terms
        self.images += images
        self.batch += 1

    def means(self) -> dict[str, float]:
        """Return loss, cross entropy and penalty of this epoch, per image."""
        values: list[float] = (self.sums / self.images).tolist()
        return dict(zip(("loss", "cross_entropy", "penalty"), values, strict=True))

    def hours(self) -> float:
        """Return how long the finished epochs took, the judging left out."""
        return sum(row["seconds"] for row in self.curve) / 3600

    def close(self, row: Epoch, score: float) -> None:
        """End the epoch with its row, and keep its weights if its score is the best so far."""
        self.curve.append(row)
        self.epoch += 1
        self.batch, self.images, self.seconds = 0, 0, 0.0
        self.sums.zero_()
        if not math.isfinite(row["loss"]):
            self.status = f"diverged: the loss is {row['loss']} in epoch {self.epoch}"
        elif score > self.best_score:
            self.best, self.best_epoch, self.best_score = copy(self.model), self.epoch, score

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that is needed to go on, by name."""
        moved = momentum(self.model, self.optimizer)
        parts = {"weights": self.model.state_dict(), "momentum": moved, "best": self.best}
        parts |= {"loss": carried(self.loss)}
        streams = {"noise": self.noise.get_state(), "order": self.order_began}
        streams |= {"cpu": torch.get_rng_state()}
        if self.sums.device.type == "cuda":
            streams |= {"cuda": torch.cuda.get_rng_state(self.sums.device)}
        parts |= {"streams": streams, "": {"sums": self.sums}}
        pairs = ((part, named) for part, tensors in parts.items() for named in tensors.items())
        return {f"{part}/{name}": tensor for part, (name, tensor) in pairs}

    def numbers(self) -> dict[str, Any]:
        """Return everything else that is needed to go on, as JSON has it."""
        names = ("epoch", "batch", "images", "seconds", "curve", "best_epoch", "best_score")
        return {name: getattr(self, name) for name in names}

    def take_up(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Put the course where `tensors` and `numbers`, of another process, left it."""
        for name, value in numbers.items():
            setattr(self, name, value)
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = value
        self.model.load_state_dict(parts["weights"])
        self.best = {name: value.to(self.sums.device) for name, value in parts["best"].items()}
        self.sums.copy_(parts[""]["sums"])
        for name, value in carried(self.loss).items():
            value.copy_(parts["loss"][name])
        for name, parameter in self.model.named_parameters():
            if name in parts.get("momentum", {}):
                buffer = torch.empty_like(parameter).copy_(parts["momentum"][name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        streams = parts["streams"]
        self.noise.set_state(streams["noise"])
        self.order_began = streams["order"]
        torch.set_rng_state(streams["cpu"])
        if "cuda" in streams:
            torch.cuda.set_rng_state(streams["cuda"], self.sums.device)


def _optimizer(card: RunCard, model: nn.Module) -> torch.optim.Optimizer:
    """SGD whose rate is a tensor, so that a recorded step follows it."""
    settings = card.training
    device = next(model.parameters()).device
    return torch.optim.SGD(
        model.parameters(),
        lr=torch.tensor(settings.learning_rate, device=device),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def copy(model: nn.Module) -> Weights:
    """Return the network's weights and statistics as they are now."""
    dense = torch.contiguous_format  # the only one that safetensors takes
    state = model.state_dict().items()
    return {name: tensor.detach().clone(memory_format=dense) for name, tensor in state}
