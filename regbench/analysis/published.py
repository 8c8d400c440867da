"""Published accuracies, as config/published.yaml and files like it hold them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from regbench.errors import UserError
from regbench.experiment.configfile import read
from regbench.experiment.values import Count, Name, Radius, canonical

Text = Annotated[str, Field(min_length=1)]


class Entry(BaseModel):
    """What one source says of one method on one data set.

    Attributes:
        dataset: the data set's entry in the config.
        rule: the regularizer's rule, rules/regularizers/NAME.smk; none: a method that is none of
            ours, which is ranked with ours and stands beside none of them.
        method: how tables call it, where the experiment has no such rule.
        model: the network, of a rule as the config calls it; none: a network of the size that is
            usual for the data set.
        epsilon: attack radius ε, L∞, images in [0, 1].
        images: how many test images were judged, by all attacks or by those named; none: the
            file's number, or not told.
        source: who says so, where and when.
        note: what else was different in its training.
        accuracy: in percent, by the names that the file's `attacks` explains.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: Name
    rule: Name | None = None
    method: Text | None = None
    model: Text | None = None
    epsilon: Radius
    images: Count | dict[Name, Count] | None = None
    source: str
    note: str = ""
    accuracy: dict[Name, Annotated[float, Field(ge=0, le=100)]]

    @model_validator(mode="after")
    def _is_of_a_method(self) -> Self:
        if self.rule is None and self.method is None:
            raise ValueError(
                "an entry has `rule`, a regularizer of ours, or `method`, any other's name; got"
                " neither"
            )
        if isinstance(self.images, dict) and (unheard := self.images.keys() - self.accuracy.keys()):
            raise ValueError(f"`images` of '{min(unheard)}', whose accuracy is not told")
        return self

    def judged(self, attack: str) -> int | None:
        """Return how many test images the attack of that name judged; none: not told."""
        return self.images.get(attack) if isinstance(self.images, dict) else self.images

    def called(self, labels: Mapping[str, str]) -> str:
        """Return what tables call the method, a rule as in `labels`, if it is there."""
        return labels.get(self.rule or "") or self.method or self.rule or ""


class Meaning(BaseModel):
    """An attack that an accuracy was published for: its label, its member, its parameters.

    Attributes:
        label: what tables call it.
        attack: its name among our attacks.
        unlike: parameters with values that make one of ours another attack.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    label: str
    attack: str
    unlike: dict[str, Any] = {}

    @property
    def arguments(self) -> dict[str, Any]:
        """The parameters that an attack of ours must share to be compared."""
        return {key: canonical(key, value) for key, value in (self.model_extra or {}).items()}

    def told_by(self, arguments: Mapping[str, Any]) -> bool:
        """Tell whether an attack of ours with these parameters is this one."""
        shared = all(arguments.get(key) == value for key, value in self.arguments.items())
        other = any(arguments.get(key) == value for key, value in self.unlike.items())
        return shared and not other


class Published(BaseModel):
    """A file of published numbers.

    Attributes:
        collected: when they were looked up.
        images: how many test images were judged, where an entry does not say.
        attacks: what each name of an attack means.
        entries: what each source says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    collected: str = ""
    images: Count | None = None
    attacks: dict[Name, Meaning]
    entries: tuple[Entry, ...]


NOTHING = Published(attacks={}, entries=())


def load(paths: Sequence[Path]) -> Published:
    """Return the numbers in files like config/published.yaml; of no file, none.

    Raises:
        UserError: one is not such a file, or two explain an attack differently.
    """
    files = {path: _load(path) for path in paths}
    attacks: dict[str, Meaning] = {}
    for path, published in files.items():
        for name, meaning in published.attacks.items():
            if attacks.setdefault(name, meaning) != meaning:
                raise UserError(
                    f"'{path}': '{name}' under `attacks:` is another attack than in a file before;"
                    " give one of them another name"
                )
    return Published(
        collected="; ".join(one.collected for one in files.values() if one.collected),
        attacks=attacks,
        entries=tuple(entry for one in files.values() for entry in one.entries),
    )


def _load(path: Path) -> Published:
    try:
        published = Published.model_validate(read(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"'{path}': '{where}': {message}") from error
    for entry in published.entries:
        for name in entry.accuracy:
            if name not in published.attacks:
                raise UserError(f"'{path}': '{name}' of {entry.called({})} is not under `attacks:`")
    told = [
        entry if entry.images else entry.model_copy(update={"images": published.images})
        for entry in published.entries
    ]
    return published.model_copy(update={"entries": tuple(told)})
