"""Puts a training's state down, at intervals and when it is told to stop, and takes it up again.

The file is of regbench.storage.tensors: nothing in it is ever executed, a torn file or a flipped
byte is noticed, and it is replaced in one piece.
"""

import signal
import sys
import time
from pathlib import Path
from types import FrameType

import torch

from regbench.experiment.environment import positive
from regbench.storage import tensors
from regbench.storage.seals import DamagedError
from regbench.training.course import Course

INTERVAL = 60.0
"""Seconds between two savings, unless one takes more than a twentieth of that or
$REGBENCH_KEEP_EVERY says otherwise."""


class Keeper:
    """Keeps one training's state in one file.

    Args:
        path: of the file.
        key: what the state depends on: card, code, data, versions; that of another is refused.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._interval = positive("REGBENCH_KEEP_EVERY", INTERVAL)
        self._next = time.monotonic() + self._interval
        self._stop = False

    def listen(self) -> None:
        """On SIGTERM or Ctrl-C, let the step end, keep the state and exit."""
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, self._terminated)

    def after_step(self, course: Course) -> None:
        """Keep the state if it is time; end the process if it was told to stop."""
        if not (self._stop or time.monotonic() >= self._next):
            return
        started = time.monotonic()
        self._write(course)
        self._next = time.monotonic() + max(self._interval, 20 * (time.monotonic() - started))
        if self._stop:
            sys.exit(f"stopped in epoch {course.epoch + 1}; the same command goes on from there")

    def resume(self, course: Course) -> None:
        """Put the course where the kept state left it; say so, or say why it begins afresh."""
        if not self._path.exists():
            return
        try:
            kept, about = tensors.read_all(self._path)
        except DamagedError as error:
            self._refuse(f"it is damaged: {error.what}")
            return
        if about["key"] != self._key:
            self._refuse("it is of another card, code, data or version")
            return
        course.take_up(kept, about["numbers"])
        print(f"going on in epoch {course.epoch + 1}, step {course.batch + 1}", file=sys.stderr)

    def forget(self) -> None:
        """Remove the state: the training is over."""
        self._path.unlink(missing_ok=True)

    def _write(self, course: Course) -> None:
        about = {"key": self._key, "numbers": course.numbers()}
        try:
            tensors.write(self._path, course.tensors(), about)
        except OSError as error:
            print(f"the state could not be kept ({error}); training goes on", file=sys.stderr)

    def _refuse(self, why: str) -> None:
        print(f"'{self._path}' is not taken up ({why}); beginning afresh", file=sys.stderr)

    def _terminated(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stop = True


def key(card_key: str, code: str, data_seal: str, device: torch.device) -> str:
    """Return what a state depends on."""
    threads = torch.get_num_threads() if device.type == "cpu" else ""
    return f"{card_key} {code} {data_seal} {torch.__version__} {device.type} {threads}".rstrip()
