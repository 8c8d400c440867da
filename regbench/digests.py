"""SHA-256 digests, as the config and a member's fields are declared."""

import re
from typing import Annotated

from pydantic import AfterValidator


def _sha256(value: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("expected the 64 hexadecimal digits that `sha256sum FILE` prints")
    return value


Sha256 = Annotated[str, AfterValidator(_sha256)]
"""Of a file, in hexadecimal digits."""
