"""What is known of one training: from its files, or from a report that was stored before."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd


@dataclass(frozen=True)
class Judged:
    """What one suite of attacks left.

    Attributes:
        verdicts: one row per attack and image.
        told: one row per attack.
    """

    verdicts: pd.DataFrame
    told: pd.DataFrame


@dataclass(frozen=True)
class Known:
    """What a training and its judges left, without the names that a config has for them.

    Attributes:
        record: one row, how it was trained.
        curve: one row per epoch.
        suites: by the key of the suite's card.
        diagnosis: the key of its card; none: none was asked for.
        examined: what it left, tables by name.
    """

    record: pd.DataFrame
    curve: pd.DataFrame
    suites: dict[str, Judged]
    diagnosis: str | None
    examined: dict[str, pd.DataFrame]

    @property
    def weights(self) -> tuple[str, str] | None:
        """SHA-256 of the best and of the last epoch's; none: not known of both."""
        best, last = self.record["best_weights"].item(), self.record["last_weights"].item()
        return None if pd.isna(best) or pd.isna(last) else (best, last)

    @property
    def attacks(self) -> int:
        """By how many it was judged."""
        return sum(len(judged.told) for judged in self.suites.values())

    def of(self, suites: Collection[str], diagnosis: str | None) -> "Known":
        """Return this without suites and a diagnosis of other keys than these."""
        return replace(
            self,
            suites={key: one for key, one in self.suites.items() if key in suites},
            examined=self.examined if self.diagnosis == diagnosis else {},
        )

    def beyond(self, other: "Known") -> Iterator[str]:
        """Yield the attacks and diagnoses that the same network lacks elsewhere."""
        if self.weights != other.weights:
            return
        for key in self.suites.keys() - other.suites.keys():
            yield from self.suites[key].told["attack"]
        same = self.diagnosis == other.diagnosis
        yield from self.examined.keys() - (other.examined.keys() if same else ())


def joined(made: Known | None, before: Known | None) -> Known | None:
    """Return what is known of a training from its files and from a report together.

    Never verdicts on two networks: where the files' weights are other ones than the report's, the
    network that more attacks have judged, the files' if as many have.
    """
    if made is None or before is None:
        return made or before
    if made.weights and made.weights == before.weights:
        return replace(
            made, suites=before.suites | made.suites, examined=before.examined | made.examined
        )
    return before if before.attacks > made.attacks else made


def beyond(first: Mapping[str, Known], second: Mapping[str, Known]) -> Counter[str]:
    """Return what the first of two holds that the second does not, with the number of trainings.

    Args:
        first: by the trainings' folders.
        second: likewise.
    """
    folders = Counter({"all": len(first.keys() - second.keys())})
    parts = Counter(
        part
        for folder in first.keys() & second.keys()
        for part in first[folder].beyond(second[folder])
    )
    return +folders + parts
