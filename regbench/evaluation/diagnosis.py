"""A trained network's diagnostics: each measured batch by batch, one number over the images."""

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from regbench.core.memory import DoesNotFitError, fitting, peak
from regbench.core.weights import digest, trained
from regbench.diagnostics import Diagnostic, Measured, Probe
from regbench.errors import UserError
from regbench.evaluation import gallery
from regbench.experiment.cards import DiagnosisCard
from regbench.experiment.fingerprint import DIAGNOSING, fingerprint
from regbench.experiment.members import load, names
from regbench.prepare import Data, Split
from regbench.storage.provenance import provenance

SCHEMA = pa.schema(
    [
        ("quantity", pa.dictionary(pa.int8(), pa.string())),
        ("along", pa.float64()),
        ("across", pa.float64()),
        ("value", pa.float64()),
        ("n", pa.int32()),
    ]
)

Work = Callable[[DiagnosisCard, nn.Module, Split, int], pa.Table]
"""(card, model, images, images per batch) -> rows."""


@dataclass(frozen=True)
class Diagnosis:
    """A trained network to be measured.

    Attributes:
        card: what is measured.
        run: folder of the network.
        data: where the images are.
        device: where to.
    """

    card: DiagnosisCard
    run: Path
    data: Data
    device: torch.device

    def table(self) -> tuple[pa.Table, dict[str, Any]]:
        """Return one row per quantity and point, and what is told of them.

        No rows, if not even one image at a time fits in memory.
        """
        return self._made(diagnose, SCHEMA)

    def gallery(self) -> tuple[pa.Table, dict[str, Any]]:
        """Return one row per image that is shown and attack, and what is told of them.

        No rows, if not even one image at a time fits in memory.
        """
        return self._made(gallery.gallery, gallery.SCHEMA)

    @cached_property
    def _model(self) -> nn.Module:
        return trained(self.run, self.data, self.card.checkpoint, self.device)

    @cached_property
    def _images(self) -> Split:
        return self.data.split(self.card.split, self.device, self.card.images)

    def _made(self, work: Work, schema: pa.Schema) -> tuple[pa.Table, dict[str, Any]]:
        model, images = self._model, self._images
        began = time.perf_counter()
        try:
            rows, size = fitting(
                lambda most: work(self.card, model, images, most), self.card.batch_size
            )
            status = "ok"
        except DoesNotFitError as error:
            traceback.print_exception(error)
            rows, size, status = schema.empty_table(), 0, "out of memory"
        about = {
            "card": self.card.model_dump(),
            "weights": digest(self.run, self.card.checkpoint),
            "status": status,
            "seconds": time.perf_counter() - began,
            "batch_size": size,
            "code": fingerprint((*DIAGNOSING, *modules())),
            "data": self.data.seal,
            "provenance": {**peak(self.device), **provenance(self.device)},
        }
        return rows, about


def modules() -> list[str]:
    """Return the modules that measure something."""
    return [f"regbench.diagnostics.{name}" for name in names("diagnostics")]


def diagnose(card: DiagnosisCard, model: nn.Module, images: Split, batch_size: int) -> pa.Table:
    """Return one row per quantity and point: quantity, along, across, value, n.

    Each diagnostic has a stream of noise of its own, from the card's seed.

    Args:
        card: radius, points and seed; the images are those that are given.
        model: frozen, in eval mode.
        images: n images and labels, on the model's device.
        batch_size: images per batch.
    """
    streams = [
        (load(module), torch.Generator(images.x.device).manual_seed(card.seed))
        for module in modules()
    ]
    parts: dict[tuple[object, ...], list[Tensor]] = {}
    for probe in _batches(card, model, images, batch_size):
        for one in _measured(streams, probe):
            key = (one.quantity, one.along, one.across, one.worst)
            parts.setdefault(key, []).append(one.values.detach().double().cpu())
    rows = [
        {"quantity": quantity, "along": along, "across": across, **_told(torch.cat(part), worst)}
        for (quantity, along, across, worst), part in parts.items()
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def radii(card: DiagnosisCard) -> tuple[float, ...]:
    """Return the radii along the FGSM direction: `points` from 0 to 2ε, ε in the middle."""
    steps = card.points // 2
    return tuple(card.epsilon * step / steps for step in range(card.points))


def _batches(
    card: DiagnosisCard, model: nn.Module, images: Split, batch_size: int
) -> Iterator[Probe]:
    for first in range(0, len(images.y), batch_size):
        x, y = (part[first : first + batch_size] for part in images)
        yield Probe(model, x, y, card.epsilon, radii(card), first)


def _measured(
    streams: list[tuple[Diagnostic, torch.Generator]], probe: Probe
) -> Iterator[Measured]:
    for diagnostic, generator in streams:
        for one in diagnostic(probe, generator):
            values = one.values if isinstance(one, Measured) else one
            alike = isinstance(one, Measured) and isinstance(values, Tensor)
            if not alike or values.ndim != 1 or len(values) > len(probe.y):
                name = getattr(diagnostic, "__name__", diagnostic)
                raise UserError(
                    f"the diagnostic '{name}' gave {_kind(values)}; expected"
                    f" regbench.diagnostics.Measured with one value per image, ({len(probe.y)},)"
                )
            yield one


def _kind(values: object) -> str:
    if isinstance(values, Tensor):
        return f"values of shape {(*values.shape,)}"
    return f"a {type(values).__name__}"


def _told(values: Tensor, worst: object) -> dict[str, float | int]:
    value = values.max() if worst else values.mean()
    return {"value": value.item(), "n": len(values)}
