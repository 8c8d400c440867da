"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Give a draft to write to; it replaces `path` in one piece, or is removed if that fails."""
    draft = path.with_suffix(".draft")
    try:
        yield draft
        with draft.open("rb") as written:
            os.fsync(written.fileno())  # else a power cut may leave the name without the content
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
