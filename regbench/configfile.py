"""A config file as it comes from a person: read strictly, answered in one line."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from regbench.config import Experiment
from regbench.errors import UserError, did_you_mean


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' must hold a mapping, as config/demo.yaml does")
    return content


class _Strict(yaml.SafeLoader):
    """The safe loader, which by itself lets the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index] and key != "<<":
                line = node.value[index][0].start_mark.line + 1
                raise yaml.YAMLError(f"the key '{key}' is given twice, line {line}")
        return super().construct_mapping(node, deep)


def _sentence(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        wrong = str(error["loc"][-1])
        return f"unknown key '{where}'{did_you_mean(wrong, _known_beside(error['loc']))}"
    if error["type"] == "missing":
        return f"'{where}' is missing"
    given = error.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | list | None) else ""
    return f"'{where}': {message}{'' if 'got' in message else shown}"


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
