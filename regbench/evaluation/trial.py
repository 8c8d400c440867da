"""A trained network under a suite of attacks: one verdict per attack and image."""

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from tqdm import tqdm

from regbench.core.memory import DoesNotFitError, peak
from regbench.core.precision import PRECISIONS, products_in
from regbench.core.weights import digest, trained
from regbench.errors import UserError
from regbench.evaluation.parts import Found, Parts
from regbench.evaluation.pieces import images_of
from regbench.evaluation.verdicts import Verdicts, judge
from regbench.experiment.cards import AttackCard, SuiteCard, card_of
from regbench.experiment.fingerprint import ATTACKING, fingerprint
from regbench.experiment.members import build
from regbench.prepare import Data, Split
from regbench.storage.provenance import provenance

SCHEMA = pa.schema(
    [
        ("attack", pa.dictionary(pa.int16(), pa.string())),
        ("image", pa.int32()),
        ("label", pa.int16()),
        ("prediction", pa.int16()),
        ("correct", pa.bool_()),
        ("distance", pa.float32()),
        ("loss", pa.float32()),
        ("fooled_by", pa.dictionary(pa.int8(), pa.string())),
    ]
)


@dataclass(frozen=True)
class Trial:
    """A trained network under a suite of attacks.

    Attributes:
        card: the suite.
        run: folder of the judged network.
        data: what both are judged on.
        device: where to.
        sources: folders of the networks that some of the attacks craft on.
        parts: what has been found already.
    """

    card: SuiteCard
    run: Path
    data: Data
    device: torch.device
    sources: Sequence[Path] = ()
    parts: Parts | None = None

    def table(self) -> tuple[pa.Table, dict[str, Any]]:
        """Return the verdicts of every attack, and what is known of them.

        Raises:
            UserError: a source that the card asks for is not among the folders.
        """
        found = {}
        for name in tqdm(self.card.attacks, unit="attack", disable=not sys.stderr.isatty()):
            found[name] = self._whole(name)
            print(f"{name}: {_sentence(found[name])}", flush=True)
        about = {
            "card": self.card.model_dump(),
            "weights": digest(self.run, self.card.checkpoint),
            "attacks": {name: one.told for name, one in found.items()},
            "data": self.data.seal,
            "provenance": {**peak(self.device), **provenance(self.device)},
        }
        return pa.concat_tables([one.rows for one in found.values()]), about

    def piece(self, name: str, index: int) -> Found:
        """Return what one piece of an attack finds, or has found already."""
        attack = self.card.attacks[name]
        code = fingerprint((*ATTACKING, attack.attack))
        known = self.parts.get(name, index, code) if self.parts else None
        if known is None:
            known = self.tried(name, index, code)
            if self.parts:
                self.parts.put(name, index, known)
        return known

    def tried(self, name: str, index: int, code: str) -> Found:
        """Return what one piece of an attack finds; no rows, if it does not fit in memory."""
        attack, card = self.card.attacks[name], self.card
        precision = products_in(card.precision, self.device)
        member = build(attack.attack, attack.arguments)
        first, images = self._images(attack, index)
        began = time.perf_counter()
        try:
            judged = judge(
                self._model,
                member,
                images,
                card.batch_size,
                card.seed,
                self._surrogate(attack),
                PRECISIONS[precision],
            )
        except DoesNotFitError as error:
            traceback.print_exception(error)
            table = SCHEMA.empty_table()
            seconds = time.perf_counter() - began
            known = {"status": "out of memory", "seconds": seconds, "warnings": []}
        else:
            table = rows(name, first, images.y, judged)
            known = {
                "status": "ok",
                "seconds": judged.seconds,
                "warnings": list(judged.warnings),
                "batch_size": judged.batch_size,
                "accuracy_after": accuracy_after(table, member.ensemble),
            }
        return Found(
            table, {"arguments": asdict(member), "code": code, "precision": precision, **known}
        )

    def _images(self, attack: AttackCard, index: int) -> tuple[int, Split]:
        """The images of a piece, and the number of the first."""
        x, y = self.data.split(self.card.split, self.device, attack.images)
        part = images_of(len(y), attack.pieces, index)
        return part.start, Split(x[part], y[part])

    def _whole(self, name: str) -> Found:
        """What an attack finds, its pieces together; one that failed leaves no rows of the rest."""
        found = [self.piece(name, index) for index in range(self.card.attacks[name].pieces)]
        told = [one.told for one in found]
        first = next((one for one in told if one["status"] != "ok"), told[0])
        together = {
            **first,
            "seconds": sum(one["seconds"] for one in told),
            "warnings": sorted({warning for one in told for warning in one["warnings"]}),
        }
        if first["status"] != "ok":
            return Found(SCHEMA.empty_table(), together)
        table = pa.concat_tables([one.rows for one in found])
        return Found(
            table,
            {
                **together,
                "batch_size": min(one["batch_size"] for one in told),
                "accuracy_after": accuracy_after(table, first["accuracy_after"]),
            },
        )

    # a run that only gathers what other jobs found needs no network
    @cached_property
    def _model(self) -> nn.Module:
        return self._trained(self.run)

    def _surrogate(self, attack: AttackCard) -> nn.Module | None:
        if attack.source is None:
            return None
        folders = {card_of(one).key: one for one in self.sources}
        if attack.source.key not in folders:
            raise UserError(
                f"the attack crafts on the network of the run {attack.source.key}; name its folder"
                " by --source"
            )
        return self._trained(folders[attack.source.key])

    def _trained(self, folder: Path) -> nn.Module:
        card = self.card
        return trained(folder, self.data, card.checkpoint, self.device, card.precision)


def _sentence(found: Found) -> str:
    status, seconds = found.told["status"], found.told["seconds"]
    if status != "ok":
        return f"{status}, {seconds:.1f} s"
    return f"accuracy {pc.mean(found.rows['correct']).as_py():.2%}, {seconds:.1f} s"


def rows(name: str, first: int, y: torch.Tensor, verdicts: Verdicts) -> pa.Table:
    """Return one row per image, numbered from `first` on."""
    count = len(y)
    columns = {
        "attack": pa.array([name] * count).dictionary_encode(),
        "image": range(first, first + count),
        "fooled_by": pa.array(verdicts.fooled_by, pa.string()).dictionary_encode(),
        "label": y.cpu().numpy(),
        **{
            key: getattr(verdicts, key).cpu().numpy()
            for key in ("prediction", "correct", "distance", "loss")
        },
    }
    return pa.table(
        {field.name: pa.array(columns[field.name]).cast(field.type) for field in SCHEMA}
    )


def accuracy_after(rows: pa.Table, ensemble: Iterable[str]) -> dict[str, float]:
    """Return the accuracy that each attack of an ensemble leaves, in their order."""
    fooled = Counter(rows["fooled_by"].to_pylist())
    names = list(ensemble)
    left = pc.sum(rows["correct"]).as_py() + sum(fooled[name] for name in names)
    after = {}
    for name in names:
        left -= fooled[name]
        after[name] = left / rows.num_rows
    return after
