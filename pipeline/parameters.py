"""What a plug-in takes, in words for a person, out of its pydantic model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

_BOUNDS: Final = {
    "minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "minLength": "length >=", "maxLength": "length <=",
    "minItems": "items >=", "maxItems": "items <=", "pattern": "like"}


def told_of(model: type[BaseModel]) -> list[dict[str, str]]:
    """Return a row for each parameter, those of its parts too: its default, what is allowed, and what it is for."""
    schema = model.model_json_schema()
    return list(_rows(schema, schema.get("$defs", {}), ""))


def _rows(schema: Mapping[str, Any], parts: Mapping[str, Any], before: str) -> Iterator[dict[str, str]]:
    needed = schema.get("required", ())
    for field, told in schema.get("properties", {}).items():
        yield {
            "parameter": before + field, "default": "needed" if field in needed else json.dumps(told.get("default")),
            "allowed": _allowed(told), "description": told.get("description", "")}
        inner = told.get("items", told)
        part = parts.get(str(inner.get("$ref", "")).rpartition("/")[2]) if isinstance(inner, dict) else None
        if part is not None:
            yield from _rows(part, parts, f"{before}{field}.")


def _allowed(told: Mapping[str, Any]) -> str:
    """Return a JSON schema's kind, choices and bounds in a few words."""
    if "anyOf" in told:
        return " or ".join(_allowed(item) for item in told["anyOf"])
    if "enum" in told:
        return ", ".join(str(item) for item in told["enum"])
    kind = str(told.get("type", told.get("$ref", "")).rpartition("/")[2])
    if "items" in told and not isinstance(told["items"], bool):
        kind += f" of {_allowed(told['items'])}"
    return " ".join([kind, *(f"{word} {told[name]}" for name, word in _BOUNDS.items() if name in told)])
