"""Puts a training's state down, at intervals and when it is told to stop, and takes it up again.

The file is a SHA-256 digest and a safetensors payload: nothing in it is ever executed, a torn or
flipped byte is noticed, and it is replaced in one piece.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch
from safetensors.torch import load, save

from regbench.course import Course
from regbench.drafts import draft_of

INTERVAL = 60.0
"""Seconds between two savings, unless one takes more than a twentieth of that."""

DIGEST = hashlib.sha256().digest_size


class Keeper:
    """Keeps one training's state in one file.

    Args:
        path: of the file.
        key: what the state depends on: card, code, versions; the state of another key is refused.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._next = time.monotonic() + INTERVAL
        self._stop = False

    def listen(self) -> None:
        """On SIGTERM, let the step end, keep the state and exit."""
        signal.signal(signal.SIGTERM, self._terminated)

    def after_step(self, course: Course) -> None:
        """Keep the state if it is time; end the process if it was told to stop."""
        if not (self._stop or time.monotonic() >= self._next):
            return
        started = time.monotonic()
        self._write(course)
        self._next = time.monotonic() + max(INTERVAL, 20 * (time.monotonic() - started))
        if self._stop:
            sys.exit(f"stopped in epoch {course.epoch + 1}; the same command goes on from there")

    def resume(self, course: Course) -> None:
        """Put the course where the kept state left it; say so, or say why it begins afresh."""
        if not self._path.exists():
            return
        try:
            self._read(course)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            print(f"'{self._path}' is not taken up ({error}); beginning afresh", file=sys.stderr)
        else:
            print(f"going on in epoch {course.epoch + 1}, step {course.batch + 1}", file=sys.stderr)

    def forget(self) -> None:
        """Remove the state: the training is over."""
        self._path.unlink(missing_ok=True)

    def _write(self, course: Course) -> None:
        dense = {
            name: one.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, one in course.tensors().items()
        }
        about = {"key": self._key, "numbers": json.dumps(course.numbers())}
        payload = save(dense, about)
        try:
            with draft_of(self._path) as draft, draft.open("wb") as file:
                file.write(hashlib.sha256(payload).digest() + payload)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            print(f"the state could not be kept ({error}); training goes on", file=sys.stderr)

    def _read(self, course: Course) -> None:
        content = self._path.read_bytes()
        digest, payload = content[:DIGEST], content[DIGEST:]
        if hashlib.sha256(payload).digest() != digest:
            raise ValueError("it is damaged")
        length = int.from_bytes(payload[:8], "little")
        about = json.loads(payload[8 : 8 + length])["__metadata__"]
        if about["key"] != self._key:
            raise ValueError("it is of another card, code or version")
        course.take_up(load(payload), json.loads(about["numbers"]))

    def _terminated(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stop = True


def key(card_key: str, code: str, device: torch.device) -> str:
    """Return what a state depends on besides the data, whose card is part of the run's."""
    return f"{card_key} {code} {torch.__version__} {device.type} {torch.get_num_threads()}"
