"""Cards: the JSON that holds everything that determines one output, and nothing else.

A card knows no device, no display name, and no path but that of an .npz data set under the data
root, which counts with its checksum. Its `key` is part of the path of what it
determines, so that two experiments share what they agree on and never overwrite each other.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from regbench.errors import UserError

CARD = "card.json"
"""What a network's card is called in its folder."""


class Card(BaseModel):
    """What all cards share: frozen, strict about names, one canonical JSON text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def text(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))

    @property
    def key(self) -> str:
        """The card's hash, 10 hexadecimal digits: the part of a path that it decides."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:10]

    @classmethod
    def read(cls, text_or_path: str) -> Self:
        """Return the card given as JSON text or as the path of a JSON file.

        Raises:
            UserError: no such file, or not a card of this kind.
        """
        is_text = text_or_path.lstrip().startswith("{")
        try:
            text = text_or_path if is_text else Path(text_or_path).read_text(encoding="utf-8")
            return cls.model_validate_json(text)
        except OSError as error:
            raise UserError(f"cannot read the card '{text_or_path}': {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise UserError(f"not a {cls.__name__}: {where}: {first['msg']}") from error


class DataCard(Card):
    """One data set, split: `source` is a member of regbench/data/ with its `arguments`."""

    source: str
    arguments: dict[str, Any]
    validation: int
    split_seed: int


class ModelCard(Card):
    """One network, before training."""

    architecture: str
    arguments: dict[str, Any]


class RegularizerCard(Card):
    """One training loss with its hyperparameters."""

    loss: str
    hyperparameters: dict[str, Any]


class TrainingCard(Card):
    """How long, how fast and on what: SGD, its rate multistep (arXiv:2002.00614) or cyclic."""

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[float, ...]
    decay: float
    crop_padding: int
    flip: bool
    selection_steps: int
    precision: str
    # not in the JSON of a training that is not: its key is older than this field
    compiled: bool = Field(False, exclude_if=lambda compiled: not compiled)
    cyclic: float = Field(0, ge=0, lt=1, exclude_if=lambda cyclic: not cyclic)
    selection: str = Field("ifgsm", exclude_if=lambda selection: selection == "ifgsm")


class NetworkCard(Card):
    """One network with its weights, of which `RunCard` or `PretrainedCard` tell the origin."""

    data: DataCard
    model: ModelCard
    epsilon: float
    seed: int

    @property
    def members(self) -> tuple[str, ...]:
        """The classes and functions that decide it, `package.module:Class`."""
        return (self.model.architecture,)


class RunCard(NetworkCard):
    """One training: the cell of the grid."""

    regularizer: RegularizerCard
    training: TrainingCard

    @property
    def members(self) -> tuple[str, ...]:
        """The classes and functions that decide it, `package.module:Class`."""
        return (self.regularizer.loss, *super().members)

    @property
    def made(self) -> dict[str, dict[str, Any]]:
        """The hyperparameters and the training that its weights come from."""
        return {
            "hyperparameters": self.regularizer.hyperparameters,
            "training": self.training.model_dump(),
        }


class PretrainedCard(NetworkCard):
    """One network that was trained elsewhere: `weights` is the SHA-256 of their file."""

    weights: str
    seed: int = 0

    @property
    def made(self) -> dict[str, dict[str, Any]]:
        """The hyperparameters and the training that its weights come from, as far as is known."""
        return {"hyperparameters": {"sha256": self.weights}, "training": {}}


AnyCard = RunCard | PretrainedCard


def card_of(folder: Path) -> AnyCard:
    """Return the card of the network in `folder`.

    Raises:
        UserError: it holds no card, or a damaged one.
    """
    path = folder / CARD
    try:
        given = "weights" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        given = False
    return PretrainedCard.read(str(path)) if given else RunCard.read(str(path))


class AttackCard(Card):
    """One attack with its parameters, on the first `images` images (all, if none).

    With a `source`, the images are crafted on that trained network and tried on the judged one.
    Cut into `pieces`, each run of images has its own batches and the same noise from the start.
    """

    attack: str
    arguments: dict[str, Any]
    images: int | None
    source: AnyCard | None = None
    # not in the JSON of an attack that is whole: its key is older than this field
    pieces: int = Field(1, ge=1, exclude_if=lambda pieces: pieces == 1)


class DiagnosisCard(Card):
    """What is measured of one trained model besides its accuracy, on the first `images` images.

    Along the FGSM direction at `points` radii from 0 to 2ε, an odd number: ε is in the middle. So
    many of the images are kept for the `gallery`.
    """

    images: int
    split: str
    checkpoint: str
    batch_size: int
    seed: int
    epsilon: float
    points: int
    # not in the JSON of a diagnosis that keeps none: its key is older than this field
    gallery: int = Field(0, ge=0, exclude_if=lambda images: images == 0)


class SuiteCard(Card):
    """The attacks that one process tries on one trained model."""

    attacks: dict[str, AttackCard]
    checkpoint: str
    split: str
    batch_size: int
    seed: int
    # not in the JSON of a suite in fp32: its key is older than this field
    precision: str = Field("fp32", exclude_if=lambda precision: precision == "fp32")
