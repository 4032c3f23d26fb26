"""Small drawings for pages, as numbers for inline SVG: styles are the sheet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.clock import parse_instant

WIDTH: Final = 900
HEIGHT: Final = 220
POINTS_MAX: Final = 600


@dataclass(frozen=True, slots=True)
class Curve:
    """A stepped curve: its path, where zero lies, the values at the edges, and its ends in time."""

    path: str
    zero: float
    top: float
    bottom: float
    last: float
    first_at: str
    last_at: str
    points: int


def equity_curve(rows: Sequence[dict[str, Any]]) -> Curve | None:
    """Return the drawing of `{at, equity}` rows; None without any."""
    if not rows:
        return None
    step = -(-len(rows) // POINTS_MAX)
    shown = [*rows[::-1][::step][::-1]]
    times = [parse_instant(item["at"], "at") for item in shown]
    values = [float(item["equity"]) for item in shown]
    top, bottom = max(0.0, *values), min(0.0, *values)
    span, length = (top - bottom) or 1.0, (times[-1] - times[0]) or 1

    def height_of(value: float) -> float:
        return round(HEIGHT * (top - value) / span, 1)

    parts = [f"M0 {height_of(values[0])}"]
    for at, value in zip(times, values, strict=True):
        parts.append(f"H{round(WIDTH * (at - times[0]) / length, 1)}V{height_of(value)}")
    parts.append(f"H{WIDTH}")
    return Curve("".join(parts), height_of(0.0), top, bottom, values[-1], str(shown[0]["at"]), str(shown[-1]["at"]), len(rows))
