"""The user's mistakes: one clear line each, never a traceback."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """What was expected, what came, and the likely fix, in one line."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for a near miss, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""


def program(main: Callable[[], None]) -> None:
    """Run the `main` of a stage; what a user or a disk did wrong ends it with one line.

    Exit code 2 is a `UserError`, 1 a failure of the machine, which may pass: a full disk, say.
    """
    try:
        main()
    except UserError as error:
        sys.exit(report(error))
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        print(f"regbench: error: {error.strerror or error}{where}", file=sys.stderr)
        sys.exit(1)


def report(error: UserError) -> int:
    """Print the error's one line to standard error and return the exit code for it, 2."""
    line = " ".join(str(error).split())
    print(f"regbench: error: {line}", file=sys.stderr)
    return 2
