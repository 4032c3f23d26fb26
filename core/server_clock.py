"""The wall clock of a MetaTrader server: a standard offset and a daylight-saving rule, in force from some instant on.

MetaTrader servers print their own wall clock without an offset. What is known of one lives here as data, so that a
changed rule is a new row of history and never a changed past.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, cast

from core.clock import DAY_US, HOUR_US, MINUTE_US, isoformat, parse_instant, to_datetime, to_us
from core.errors import InputError

DstRule = Literal["none", "eu", "us"]
_RULES: Final = ("none", "eu", "us")
CONFIG_HELP: Final = "set the connection's config server_clock, e.g. {\"offset_minutes\": 120, \"dst\": \"us\"}"


@dataclass(frozen=True, slots=True, order=True)
class ClockRule:
    """From `since_us` (UTC) on: UTC + `offset_minutes`, one hour more in summer by `dst`."""

    since_us: int
    offset_minutes: int
    dst: DstRule = "none"

    def offset_us(self, utc_us: int) -> int:
        """Return what to add to UTC at `utc_us` to get the server's wall clock."""
        summer = self.dst != "none" and _is_summer(self.dst, utc_us)
        return self.offset_minutes * MINUTE_US + (HOUR_US if summer else 0)


@dataclass(frozen=True, slots=True)
class ServerClock:
    """A server's clock rules, oldest first; before the first one the first one is taken."""

    rules: tuple[ClockRule, ...]

    @staticmethod
    def fixed(offset_minutes: int, dst: DstRule = "none") -> ServerClock:
        """Return a clock that never changed its rule."""
        return ServerClock((ClockRule(0, offset_minutes, dst),))

    @staticmethod
    def from_config(config: Mapping[str, object]) -> ServerClock | None:
        """Return the clock in `config["server_clock"]`, None when it has none.

        One object `{"offset_minutes": 120, "dst": "eu"}`, or a list of them with `since` (ISO 8601) from the second on:
        the server's history, oldest first.

        Raises:
            InputError: not of this shape.
        """
        given = config.get("server_clock")
        if given is None:
            return None
        rows = given if isinstance(given, list) else [given]
        rules = [_rule(row, is_first=number == 0) for number, row in enumerate(rows)]
        if not rules or rules != sorted(rules, key=lambda rule: rule.since_us):
            raise InputError("server_clock", f"{len(rules)} rules", "at least one, oldest first", CONFIG_HELP)
        return ServerClock(tuple(rules))

    def as_config(self) -> list[dict[str, object]]:
        """Return the rules as a connection's config keeps them: oldest first, the first one without `since`."""
        return [{"offset_minutes": rule.offset_minutes, "dst": rule.dst}
                | ({"since": isoformat(rule.since_us)} if number else {}) for number, rule in enumerate(self.rules)]

    def offset_us(self, utc_us: int) -> int:
        """Return what to add to UTC at `utc_us` to get the server's wall clock."""
        rule = self.rules[0]
        for candidate in self.rules[1:]:
            if candidate.since_us <= utc_us:
                rule = candidate
        return rule.offset_us(utc_us)

    def from_utc_us(self, utc_us: int) -> int:
        """Return the wall clock (as if it were UTC) at a UTC instant."""
        return utc_us + self.offset_us(utc_us)

    def to_utc_us(self, local_us: int) -> int:
        """Return the UTC instant of a wall-clock reading.

        The hour that a clock shows twice is read as its second pass (standard time); a reading inside the hour that a
        clock skips is read with the offset before the change.
        """
        late = local_us - self.offset_us(local_us - self._guess_us(local_us))
        if self.from_utc_us(late) == local_us and self.from_utc_us(late + HOUR_US) != local_us:
            return late
        for shift in (HOUR_US, -HOUR_US):
            if self.from_utc_us(late + shift) == local_us:
                return late + shift
        return late

    def _guess_us(self, local_us: int) -> int:
        return self.offset_us(local_us - self.rules[-1].offset_minutes * MINUTE_US)


def _rule(row: object, *, is_first: bool) -> ClockRule:
    allowed = f"offset_minutes (a quarter hour's multiple, -840 to 840), dst ({', '.join(_RULES)}), since"
    if not isinstance(row, dict) or set(row) - {"offset_minutes", "dst", "since"}:
        raise InputError("server_clock", sorted(row) if isinstance(row, dict) else row, allowed, CONFIG_HELP)
    offset, dst, since = row.get("offset_minutes"), row.get("dst", "none"), row.get("since")
    if isinstance(offset, bool) or not isinstance(offset, int) or offset % 15 or abs(offset) > 840 or dst not in _RULES:
        raise InputError("server_clock", f"offset_minutes {offset!r}, dst {dst!r}", allowed, CONFIG_HELP)
    if since is None and not is_first:
        raise InputError("server_clock", "a later rule without since", allowed, "say since when each later rule holds")
    return ClockRule(0 if since is None else parse_instant(str(since), "server_clock since"), offset, cast("DstRule", dst))


@lru_cache(maxsize=512)
def dst_bounds_us(rule: str, year: int) -> tuple[int, int]:
    """Return the UTC instants between which summer time is in force in `year`, by the EU or the US rule."""
    if rule == "eu":  # last Sundays of March and October, 01:00 UTC
        return _sunday(year, 3, last=True) + HOUR_US, _sunday(year, 10, last=True) + HOUR_US
    if year >= 2007:  # second Sunday of March to first Sunday of November, 02:00 New York
        return _sunday(year, 3, nth=2) + 7 * HOUR_US, _sunday(year, 11, nth=1) + 6 * HOUR_US
    return _sunday(year, 4, nth=1) + 7 * HOUR_US, _sunday(year, 10, last=True) + 6 * HOUR_US


def _is_summer(rule: str, utc_us: int) -> bool:
    start, end = dst_bounds_us(rule, _year(utc_us // DAY_US))
    return start <= utc_us < end


@lru_cache(maxsize=32_768)
def _year(day: int) -> int:
    """Return the year of a day counted from 1970: every hour of a history asks for it."""
    return to_datetime(day * DAY_US).year


def _sunday(year: int, month: int, *, nth: int = 1, last: bool = False) -> int:
    first = to_us(datetime(year, month, 1, tzinfo=UTC))
    weekday, length = calendar.monthrange(year, month)
    day = (6 - weekday) % 7 + 7 * (nth - 1)
    while last and day + 7 < length:
        day += 7
    return first + day * DAY_US
