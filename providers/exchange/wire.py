"""What went over the wire during one call into ccxt, kept apart for calls that run at once."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Exchanged:
    """One HTTP answer as it was seen; shows its status alone, for an exchange may echo a key."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: str = field(default="", repr=False)
    parsed: Any = field(default=None, repr=False)


@dataclass(slots=True)
class Call:
    """What happened on the wire during one call into ccxt. `rows` are the raw candles, None when ccxt parsed none."""

    answers: list[Exchanged] = field(default_factory=list)
    rows: list[Any] | None = field(default=None, repr=False)
    failed: Exchanged | None = None


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
