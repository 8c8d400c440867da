"""The user's mistakes: one clear line each, never a traceback."""

import difflib
import sys
from collections.abc import Callable, Iterable

ERROR = "regbench: error:"
"""What the one line begins with."""

LONGEST = 1_000
"""Characters of a message; of a longer one the middle is left out."""


class UserError(Exception):
    """What was expected, what came, and the likely fix, in one line.

    A name that a user gives may hold line breaks, control characters or a megabyte of text; here
    they become spaces, escapes and an ellipsis.
    """

    def __init__(self, message: str) -> None:
        line = "".join(map(_visible, " ".join(message.split())))
        half = LONGEST // 2 - 1
        super().__init__(line if len(line) <= LONGEST else f"{line[:half]}…{line[-half:]}")


class ForeignFileError(UserError):
    """A file of the user's is there and is not what the config means: no run can mend that."""


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
        print(f"{ERROR} {error.strerror or error}{where}", file=sys.stderr)
        sys.exit(1)


def report(error: UserError) -> int:
    """Print the error's one line to standard error and return the exit code for it, 2."""
    print(f"{ERROR} {error}", file=sys.stderr)
    return 2


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
