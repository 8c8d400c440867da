"""What is left of a network once it has its weights: files, and whether it is worth judging."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from regbench.errors import UserError
from regbench.experiment.cards import CARD, AnyCard
from regbench.storage import tensors
from regbench.storage.seals import digest_of, read_record, write_record
from regbench.training.course import Epoch, Weights

FILES = (CARD, "best.safetensors", "last.safetensors", "curve.csv")
"""Whose digests stand in run.json."""


def status(clean: float, labels: Tensor) -> str:
    """Return `ok`, or `collapsed`: not above chance by three standard errors.

    Chance is what the commonest label alone gets right, as a network does that answers one class.

    Args:
        clean: accuracy on the validation images, 0 to 1.
        labels: of these images, (n,), integers.
    """
    chance = labels.cpu().bincount().max().item() / len(labels)
    if clean > chance + 3 * math.sqrt(chance * (1 - chance) / len(labels)):
        return "ok"
    return f"collapsed: {clean:.1%} of the validation images right, by chance {chance:.1%}"


def there(out: Path, card: AnyCard, code: str, data: str) -> bool:
    """Tell whether `out` holds the network of `card`, made by this code of these data.

    Args:
        out: its folder.
        card: of the network.
        code: the fingerprint of the code.
        data: the seal of the data.
    """
    try:
        known = read_record(out / "run.json")
    except UserError:
        return False
    return (known["card"], known["code"], known["data"]) == (card.key, code, data)


def write(
    out: Path,
    card: AnyCard,
    best: Weights,
    last: Weights,
    curve: Sequence[Epoch],
    record: Mapping[str, object],
) -> None:
    """Write card.json, best.safetensors, last.safetensors, curve.csv and run.json under `out`."""
    (out / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tensors.write(out / "best.safetensors", best, {"card": card.key})
    tensors.write(out / "last.safetensors", last, {"card": card.key})
    rows = pd.DataFrame(curve, columns=list(Epoch.__annotations__))
    rows.to_csv(out / "curve.csv", index=False)
    files = {name: digest_of(out / name) for name in FILES}
    write_record(out / "run.json", {**record, "files": files})
