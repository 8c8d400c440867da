"""What can be compared: each file of data/, models/, regularizers/ and attacks/ is one member.

A member's name is its file's name; the class it offers is the one in the file's `__all__`.
A class from outside is named `package.module:Class`. Nothing here imports torch.
"""

import importlib
import inspect
from dataclasses import is_dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from regbench.errors import UserError, did_you_mean

PACKAGE = Path(__file__).parents[1]
SINGULAR = {"data": "data set", "models": "model", "attacks": "attack"}


def names(kind: str) -> list[str]:
    """Return the names of the members of `kind`: data, models, regularizers or attacks."""
    return sorted(path.stem for path in (PACKAGE / kind).glob("[!_]*.py"))


def reference(kind: str, name: str) -> str:
    """Return where the member lives, `regbench.KIND.NAME`, or `name` itself if it says where.

    Raises:
        UserError: no member of that name.
    """
    if ":" in name:
        return name
    if name not in names(kind):
        raise UserError(f"unknown {SINGULAR[kind]} '{name}'{did_you_mean(name, names(kind))}")
    return f"regbench.{kind}.{name}"


def load(reference: str) -> Any:
    """Import the class that `package.module:Class` or a member's `package.module` names.

    Raises:
        UserError: the module cannot be imported, or has no such class.
    """
    module_name, _, class_name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"cannot import '{module_name}': {type(error).__name__}: {error}"
            "; is the package installed, and the name spelt package.module:Class?"
        ) from error
    class_name = class_name or _offered(module)
    if not hasattr(module, class_name):
        public = [name for name in vars(module) if name[0].isupper()]
        raise UserError(f"'{module_name}' has no '{class_name}'{did_you_mean(class_name, public)}")
    return getattr(module, class_name)


def _offered(module: ModuleType) -> str:
    offered: list[str] = getattr(module, "__all__", [])
    if not offered:
        raise UserError(f"'{module.__name__}' offers no class: write __all__ = [\"Class\"] in it")
    return offered[0]


def build(reference: str, arguments: dict[str, Any]) -> Any:
    """Return the member made with `arguments`, the YAML keys being its parameters.

    The fields of a dataclass are checked against their types and ranges.

    Raises:
        UserError: an unknown or missing argument, or a value out of its range.
    """
    member = load(reference)
    fit(reference, member, list(arguments))
    try:
        if is_dataclass(member):
            return TypeAdapter(member).validate_python(arguments)
        return member(**arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong_value(reference, ".".join(map(str, first["loc"])), first) from error
    except ValueError as error:
        raise UserError(f"{reference}: {error}") from error


def check_values(reference: str, member: Any, arguments: dict[str, Any]) -> None:
    """Check arguments against the annotations of `member`, without calling it.

    Raises:
        UserError: a value of another type, or out of its range.
    """
    called = member.__init__ if inspect.isclass(member) else member
    hints = get_type_hints(called, include_extras=True)
    for name, value in arguments.items():
        try:
            TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            raise _wrong_value(reference, name, error.errors()[0]) from error


def _wrong_value(reference: str, name: str, error: ErrorDetails) -> UserError:
    told = error["msg"].removeprefix("Value error, ")
    if not name:  # of several together, and its own words say what came
        return UserError(f"{reference}: {told}")
    return UserError(f"{reference}: '{name}': {told}, got {error['input']!r}")


def fit(reference: str, member: Any, names: list[str]) -> None:
    """Check that `member` can be called with just the parameters `names`.

    Raises:
        UserError: an unknown parameter, or one that is missing.
    """
    parameters = inspect.signature(member).parameters
    free = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for name in names:
        if name not in parameters and not free:
            hint = did_you_mean(name, parameters)
            raise UserError(f"{reference}: unknown parameter '{name}'{hint}")
    for name, one in parameters.items():
        fixed = one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        if fixed and one.default is one.empty and name not in names:
            raise UserError(f"{reference}: parameter '{name}' is missing")


def source(reference: str) -> Path:
    """Return the file in which the member is written, without importing it.

    Raises:
        UserError: no such module.
    """
    module_name = reference.partition(":")[0]
    top, *parts = module_name.split(".")
    spec, name = find_spec(top), top
    for part in parts:
        # importlib.util.find_spec would import the parent packages, and torch with them
        name = f"{name}.{part}"
        package = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(name, list(package)) if package else None
    if spec is None or spec.origin is None or not spec.has_location:
        raise UserError(
            f"no module '{module_name}' (wanted by '{reference}'); is it installed, or on"
            " PYTHONPATH?"
        )
    return Path(spec.origin)
