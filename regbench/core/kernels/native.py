"""Kernels in C: compiled where they run, once, for its processor, and kept for later runs.

What is kept lies in the user's cache ($XDG_CACHE_HOME/regbench, ~/.cache/regbench). Its name is a
hash of the source, of what it is compiled for, and of all that the compiler says of itself and of
the processor, so that machines which share a home do not share a kernel.
"""

import ctypes
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared")


@cache
def target() -> str | None:
    """Return what the C compiler, $CC or cc, says of itself and of the processor.

    None, if there is no compiler, or one that does not know our flags.
    """
    try:
        return _compiler("-dM", "-E", "-x", "c", os.devnull)
    except (OSError, ValueError):  # no such program, or $CC is no command line
        return None


def version() -> str:
    """Return the version that the compiler says it is of; nothing, if there is none."""
    told = re.search(r'^#define __VERSION__ "(.*)"$', target() or "", re.MULTILINE)
    return told[1] if told else ""


@cache
def library(source: Path, **constants: int) -> ctypes.CDLL:
    """Return `source`, compiled with `constants` as its macros.

    Raises:
        OSError: it is not compiled or not kept here; says why.
    """
    macros = [f"-D{name}={value}" for name, value in constants.items()]
    code = source.read_text(encoding="utf-8")
    told = "\n".join((*_command(), *macros, str(target()), code))
    kept = _cache() / f"{source.stem}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.so"
    if kept.exists():
        with suppress(OSError):  # damaged: it is made anew
            return ctypes.CDLL(str(kept))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as room:
        made = Path(room) / kept.name
        _compiler(*macros, "-o", str(made), str(source))
        made.replace(kept)  # whole from the first: a run beside this one may look for it
    return ctypes.CDLL(str(kept))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regbench"


def _command() -> list[str]:
    return [*shlex.split(os.environ.get("CC") or "cc"), *FLAGS]


def _compiler(*arguments: str) -> str:
    command = [*_command(), *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"'{command[0]}' says: {done.stderr.strip()}")
    return done.stdout
