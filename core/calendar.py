"""When a market is open. Completeness and freshness count open time only.

`MarketCalendar` is data: a person can read and edit its spec, and it can be learned. `FxWeek` and `AlwaysOpen` are what
holds until something is known of a broker or an exchange.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from core.clock import isoformat, to_datetime, to_us
from core.errors import InputError
from core.interval import Interval, intersect, merge, subtract

NEW_YORK = ZoneInfo("America/New_York")
FX_CLOSE_HOUR = 17  # the FX week ends Friday 17:00 and begins Sunday 17:00, New York time
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEK_MINUTES = 7 * 1440
_MOMENT = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01]\d|2[0-4]):([0-5]\d)")
_TIME = re.compile(r"([+-]\d )?([01]\d|2[0-4]):([0-5]\d)")
_HELP = 'e.g. {"zone": "America/New_York", "weekly": [{"from": "Fri 17:00", "to": "Sun 17:00", "why": "weekend"}]}'


class Calendar(Protocol):
    """The closed time of a market."""

    def closed(self, interval: Interval) -> list[Interval]:
        """Return the closed parts of `interval`, sorted and disjoint."""

    def why(self, interval: Interval) -> list[tuple[Interval, str]]:
        """Return the closed parts of `interval`, sorted and disjoint, each with its reason."""


@dataclass(frozen=True, slots=True)
class AlwaysOpen:
    """Crypto: never closed."""

    def closed(self, interval: Interval) -> list[Interval]:  # noqa: ARG002  the protocol gives it
        """Return nothing: the market is never closed."""
        return []

    def why(self, interval: Interval) -> list[tuple[Interval, str]]:  # noqa: ARG002  the protocol gives it
        """Return nothing: the market is never closed."""
        return []


@dataclass(frozen=True, slots=True)
class FxWeek:
    """FX: closed from Friday 17:00 to Sunday 17:00 New York time, and on `holidays` (whole intervals)."""

    holidays: tuple[Interval, ...] = ()

    def closed(self, interval: Interval) -> list[Interval]:
        """Return weekends and holidays inside `interval`."""
        return merge([*intersect(self.holidays, [interval]), *WEEKEND.inside(interval, NEW_YORK)])

    def why(self, interval: Interval) -> list[tuple[Interval, str]]:
        """Return weekends and holidays inside `interval` with their names."""
        return _explained([("holiday", self.holidays), ("weekend", WEEKEND.inside(interval, NEW_YORK))], interval)


@dataclass(frozen=True, slots=True)
class WeeklyClosure:
    """Closed every week from minute `start` of the local week (Monday 00:00 is 0) up to `end`; past Sunday it goes on."""

    start: int
    end: int
    why: str

    def inside(self, interval: Interval, zone: ZoneInfo) -> list[Interval]:
        """Return its weeks' closed time in `interval`, ascending."""
        day = to_datetime(max(0, interval.start)).date() - timedelta(days=9)
        day -= timedelta(days=day.weekday())
        out = []
        while (start := _local(day, self.start, zone)) < interval.end:
            both = Interval(start, _local(day, self.end, zone)).intersect(interval)
            if both is not None:
                out.append(both)
            day += timedelta(days=7)
        return out


WEEKEND = WeeklyClosure(4 * 1440 + FX_CLOSE_HOUR * 60, 6 * 1440 + FX_CLOSE_HOUR * 60, "weekend")


@dataclass(frozen=True, slots=True)
class HolidayRule:
    """Closed around the holidays of a calendar of the `holidays` library, from `start` to `end` minutes of that day.

    `calendar` is `country:US`, `financial:NYSE`, ...; `names` keeps only holidays whose name holds one of them.
    `start` may be negative: the day before.
    """

    calendar: str
    names: tuple[str, ...]
    start: int
    end: int

    def inside(self, interval: Interval, zone: ZoneInfo) -> list[tuple[Interval, str]]:
        """Return the closed time in `interval` with the holidays' names, ascending."""
        years = range(to_datetime(max(0, interval.start)).year, to_datetime(max(0, interval.end)).year + 2)
        out = []
        for day, name in sorted((day, name) for year in years for day, name in holidays_of(self.calendar, year)):
            if not self.names or any(wanted.lower() in name.lower() for wanted in self.names):
                both = Interval(_local(day, self.start, zone), _local(day, self.end, zone)).intersect(interval)
                if both is not None:
                    out.append((both, name))
        return out


@dataclass(frozen=True, slots=True)
class Closure:
    """One stretch of closed time: an early close, an outage, a holiday that was learned."""

    interval: Interval
    why: str


@dataclass(frozen=True, slots=True)
class MarketCalendar:
    """The calendar of a broker or exchange: what is closed every week, on holidays, and once; `openings` win over all."""

    zone: str = "UTC"
    weekly: tuple[WeeklyClosure, ...] = ()
    holidays: tuple[HolidayRule, ...] = ()
    closures: tuple[Closure, ...] = ()
    openings: tuple[Interval, ...] = field(default=())

    def closed(self, interval: Interval) -> list[Interval]:
        """Return the closed parts of `interval`."""
        zone = ZoneInfo(self.zone)
        found = [part for rule in self.weekly for part in rule.inside(interval, zone)]
        found += [part for rule in self.holidays for part, _ in rule.inside(interval, zone)]
        found += [part for item in self.closures if (part := item.interval.intersect(interval))]
        return subtract(found, self.openings)

    def why(self, interval: Interval) -> list[tuple[Interval, str]]:
        """Return the closed parts of `interval` with their reasons: what is rarer explains first."""
        zone = ZoneInfo(self.zone)
        named: list[tuple[str, Iterable[Interval]]] = [(item.why, [item.interval]) for item in self.closures]
        named += [(name, [part]) for rule in self.holidays for part, name in rule.inside(interval, zone)]
        named += [(rule.why, rule.inside(interval, zone)) for rule in self.weekly]
        return _explained(named, interval, self.openings)

    @staticmethod
    def from_spec(spec: object) -> MarketCalendar:
        """Return the calendar that a JSON object describes; `{"base": "fx"}` has the FX weekend, `"always"` nothing.

        Raises:
            InputError: a field is unknown or not of its shape; names it.
        """
        known = {"base", "zone", "weekly", "holidays", "closed", "open"}
        if not isinstance(spec, Mapping) or set(spec) - known:
            raise InputError("calendar", sorted(set(spec) - known) if isinstance(spec, Mapping) else spec, sorted(known), _HELP)
        base = spec.get("base", "always")
        if base not in {"fx", "always"}:
            raise InputError("calendar base", base, "fx, always", _HELP)
        zone = spec.get("zone", "America/New_York" if base == "fx" else "UTC")
        _check_zone(zone)
        weekly = [_weekly(row) for row in _rows(spec, "weekly")]
        if base == "fx":
            weekly.insert(0, WEEKEND)
        closures = sorted((_closure(row) for row in _rows(spec, "closed")), key=lambda item: item.interval)
        openings = merge(_span(row, "open") for row in _rows(spec, "open"))
        return MarketCalendar(str(zone), tuple(weekly), tuple(_holiday(row) for row in _rows(spec, "holidays")),
                              tuple(closures), tuple(openings))

    def as_spec(self) -> dict[str, object]:
        """Return the JSON object that `from_spec` reads."""
        return {
            "zone": self.zone,
            "weekly": [{"from": _moment_text(rule.start), "to": _moment_text(rule.end), "why": rule.why} for rule in self.weekly],
            "holidays": [{"calendar": rule.calendar, "names": list(rule.names), "from": _time_text(rule.start),
                          "to": _time_text(rule.end)} for rule in self.holidays],
            "closed": [{"start": isoformat(item.interval.start), "end": isoformat(item.interval.end), "why": item.why}
                       for item in self.closures],
            "open": [{"start": isoformat(item.start), "end": isoformat(item.end)} for item in self.openings],
        }


def open_parts(calendar: Calendar, interval: Interval) -> list[Interval]:
    """Return the open parts of `interval`, sorted and disjoint."""
    return subtract([interval], calendar.closed(interval))


def default_calendar(market_type: str) -> Calendar:
    """Return what holds for a market as long as nothing is known of it: the FX week, or always open."""
    return FxWeek() if market_type == "fx" else AlwaysOpen()


@lru_cache(maxsize=256)
def holidays_of(calendar: str, year: int) -> tuple[tuple[date, str], ...]:
    """Return the holidays of one year, e.g. of `country:US` or `financial:NYSE`.

    Raises:
        InputError: the library knows no such calendar.
    """
    import holidays  # noqa: PLC0415  a hundred calendars: only who has a holiday rule loads them

    kind, _, name = calendar.partition(":")
    makers: dict[str, Callable[..., dict[date, str]]] = {
        "country": holidays.country_holidays, "financial": holidays.financial_holidays}
    try:
        found = makers[kind](name, years=year)
    except (KeyError, NotImplementedError):
        raise InputError("holiday calendar", calendar, "country:XX or financial:NAME", "e.g. country:US, financial:NYSE") from None
    return tuple(sorted(found.items()))


@lru_cache(maxsize=4096)  # the same weeks are asked about for every series
def _local(day: date, minutes: int, zone: ZoneInfo) -> int:
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minutes)
    return to_us(at.replace(tzinfo=zone).astimezone(UTC))


def _explained(
    named: Sequence[tuple[str, Iterable[Interval]]], interval: Interval, openings: Sequence[Interval] = (),
) -> list[tuple[Interval, str]]:
    """Return what `named` says of `interval`; where two speak of one time the earlier one is heard."""
    left, out = subtract([interval], openings), list[tuple[Interval, str]]()
    by_name: dict[str, list[Interval]] = {}
    for name, parts in named:
        by_name.setdefault(name, []).extend(parts)
    for name, parts in by_name.items():
        said = intersect(parts, left)
        out += [(part, name) for part in said]
        left = subtract(left, said)
    return sorted(out)


def _rows(spec: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    rows = spec.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"calendar {name}", rows, "a list of objects", _HELP)
    return rows


def _fields(row: Mapping[str, object], name: str, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
    allowed = {*needed, *optional}
    if set(row) - allowed or set(needed) - set(row):
        raise InputError(f"calendar {name}", sorted(row), f"an object with {', '.join(sorted(allowed))}", _HELP)


def _weekly(row: Mapping[str, object]) -> WeeklyClosure:
    _fields(row, "weekly", ("from", "to"), ("why",))
    start, end = _moment(row["from"]), _moment(row["to"])
    return WeeklyClosure(start, end if end > start else end + WEEK_MINUTES, _why(row, "closed every week"))


def _holiday(row: Mapping[str, object]) -> HolidayRule:
    _fields(row, "holidays", ("calendar",), ("names", "from", "to"))
    names = row.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError("calendar holidays names", names, "a list of texts", 'e.g. ["Christmas", "New Year"]')
    start, end = _time(row.get("from", "00:00")), _time(row.get("to", "24:00"))
    if start >= end:
        raise InputError("calendar holidays", f"{row.get('from')} to {row.get('to')}", "a start before its end", "e.g. -1 17:00")
    holidays_of(str(row["calendar"]), 2024)
    return HolidayRule(str(row["calendar"]), tuple(names), start, end)


def _closure(row: Mapping[str, object]) -> Closure:
    _fields(row, "closed", ("start", "end"), ("why",))
    return Closure(_span(row, "closed"), _why(row, "closed"))


def _span(row: Mapping[str, object], name: str) -> Interval:
    _fields(row, name, ("start", "end"), ("why",))
    return Interval.parse(str(row["start"]), str(row["end"]))


def _why(row: Mapping[str, object], default: str) -> str:
    why = row.get("why", default)
    if not isinstance(why, str) or not why or len(why) > 100 or not why.isprintable():
        raise InputError("calendar why", why, "1 to 100 printable characters")
    return why


def _check_zone(zone: object) -> None:
    try:
        ZoneInfo(str(zone))
    except (ZoneInfoNotFoundError, ValueError):
        raise InputError("calendar zone", zone, "a name of the time zone database", "e.g. America/New_York, UTC") from None


def _moment(text: object) -> int:
    found = _MOMENT.fullmatch(str(text))
    if found is None:
        raise InputError("calendar weekly", text, "Mon to Sun and 00:00 to 24:00", "e.g. Fri 17:00")
    return DAYS.index(found[1]) * 1440 + int(found[2]) * 60 + int(found[3])


def _moment_text(minutes: int) -> str:
    minutes %= WEEK_MINUTES
    return f"{DAYS[minutes // 1440]} {minutes % 1440 // 60:02}:{minutes % 60:02}"


def _time(text: object) -> int:
    found = _TIME.fullmatch(str(text))
    if found is None:
        raise InputError("calendar holidays", text, "00:00 to 24:00, with -1 or +1 before it for another day", "e.g. -1 17:00")
    return int(found[1] or 0) * 1440 + int(found[2]) * 60 + int(found[3])


def _time_text(minutes: int) -> str:
    day, rest = divmod(minutes, 1440)
    if rest == 0 and day == 1:
        return "24:00"
    return f"{f'{day:+d} ' if day else ''}{rest // 60:02}:{rest % 60:02}"


def day_of(us: int, zone: ZoneInfo = NEW_YORK) -> date:
    """Return the local date of an instant."""
    return to_datetime(us).astimezone(zone).date()
