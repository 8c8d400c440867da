"""The pieces of an attack: which of its images each one judges, and where its verdicts lie."""

from pathlib import Path

from regbench.errors import UserError


def images_of(count: int, pieces: int, index: int) -> slice:
    """Return the images of piece `index`: `pieces` contiguous runs of equal length, or one longer.

    Raises:
        UserError: more pieces than images.
    """
    if pieces > count:
        raise UserError(f"{count} images cannot be cut into {pieces} pieces; ask for fewer")
    return slice(index * count // pieces, (index + 1) * count // pieces)


def part_of(verdicts: Path, attack: str, index: int) -> Path:
    """Return where a piece's verdicts wait for the suite's, which will lie at `verdicts`."""
    return folder_of(verdicts) / f"{attack}-{index}.parquet"


def folder_of(verdicts: Path) -> Path:
    """Return where the pieces of a suite wait."""
    return verdicts.with_suffix(".parts")
