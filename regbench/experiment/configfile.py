"""A config file as it comes from a person: read strictly, answered in one line."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from regbench.errors import UserError, did_you_mean
from regbench.experiment.config import Experiment


def parse(config: dict[str, Any]) -> Experiment:
    """Return the checked experiment.

    Raises:
        UserError: naming the first wrong key, what was expected, and the likely fix.
    """
    try:
        return Experiment.model_validate(config)
    except ValidationError as error:
        details = error.errors()
        unknown = [one for one in details if one["type"] == "extra_forbidden"]
        raise UserError(f"config: {_sentence((unknown or details)[0])}") from None


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, refusing a key that is given twice.

    Raises:
        UserError: no such file, not YAML, not a mapping, or a duplicate key.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Strict)
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' must hold a mapping, as config/demo.yaml does")
    return content


SHOWN = 80
"""Characters of a wrong value in a message."""

EXPECTED = {
    "list_type": "expected a list, in brackets",
    "tuple_type": "expected a list, in brackets",
    "too_short": "expected at least {min_length}",
    "dict_type": "expected `key: value`",
    "model_type": "expected `key: value`",
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
}
"""In the words of YAML, what pydantic says in those of Python."""

LAID_OVER = "; a file that is laid over another is named after it: --configfile OTHER THIS"

OTHER_BASE = r"[-+]?(0[0-7_]+$|[1-9][0-9_]*:)"
"""An octal or sexagesimal number of YAML 1.1, which looks like a decimal one or a time."""


class _Strict(yaml.SafeLoader):
    """The safe loader, which by itself lets the last of two equal keys win and reads 017 as 15."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index] and key != "<<":
                line = node.value[index][0].start_mark.line + 1
                raise yaml.YAMLError(f"the key '{key}' is given twice, line {line}")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if re.match(OTHER_BASE, node.value):
            line = node.start_mark.line + 1
            told = (
                f"'{node.value}', line {line}, is {value} in YAML; write the number that is meant"
            )
            raise yaml.YAMLError(told)
        return value


# PyYAML calls what is registered, not what is overridden
_Strict.add_constructor("tag:yaml.org,2002:int", _Strict.construct_yaml_int)


def _sentence(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    words = EXPECTED.get(error["type"])
    message = error["msg"].removeprefix("Value error, ")
    if words:
        message = words.format(**error.get("ctx", {}))
    if error["type"] == "extra_forbidden":
        return f"unknown key '{where}'{did_you_mean(path[-1], _known_beside(error['loc']))}"
    if error["type"] == "missing":
        of_all = len(path) == 1 or (path[0] == "datasets" and len(path) == 3)
        return f"'{where}' is missing{LAID_OVER if of_all else ''}"
    given = error.get("input")
    if "attacks" in path[-3:-1] and error["type"] in {"model_type", "dict_type"}:
        told = "expected suites of attacks, as `white_box: {pgd: {steps: 10}}`"
        return f"'{where}': {told}, got {_short(given)}"
    if error["type"] == "invalid_key":
        parent = f" under '{'.'.join(path[:-1])}'" if path[:-1] else ""
        return f"the key {_short(given)}{parent} is no text; if it is meant, put it in quotes"
    shown = f", got {_short(given)}" if isinstance(given, str | int | float | list | None) else ""
    if path[-1:] == ["[key]"]:  # pydantic's way to say that a name is wrong, not what it names
        return f"a name under '{'.'.join(path[:-2])}': {message}{shown}"
    return f"'{where}': {message}{'' if 'got' in message else shown}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _known_beside(path: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `path` knows, found by walking the JSON schema."""
    schema = Experiment.model_json_schema()
    at: dict[str, Any] = schema
    for part in path[:-1]:
        named = at.get("properties", {}).get(part)
        free: dict[str, Any] = next(iter(at.get("patternProperties", {}).values()), {})
        at = named or free
        options = [at, *at.get("anyOf", [])]
        pointer = next((one["$ref"] for one in options if "$ref" in one), None)
        at = schema["$defs"][pointer.rsplit("/", 1)[1]] if pointer else at
    return list(at.get("properties", {}))
