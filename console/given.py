"""What people send in bodies: no unknown fields, and only text that every store and log can hold."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

NOT_TEXT = "text holds a NUL character or half of a surrogate pair; send it without"


class Given(BaseModel):
    """A body; what it holds is never part of an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        if not is_text(value):
            raise PydanticCustomError("text", NOT_TEXT)
        return value


def is_text(value: object) -> bool:
    """Whether every text within a value can be stored: PostgreSQL holds no NUL, UTF-8 no half of a surrogate pair."""
    waiting = [value]
    while waiting:  # as deep as the sender likes
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and ("\0" in item or (not item.isascii() and _is_torn(item))):
            return False
    return True


def _is_torn(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
