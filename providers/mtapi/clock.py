"""The broker's wall clock: measured against ours, and its summer-time rule read off the market itself.

The offset of this minute can be measured; what it was last March cannot. So the rule is taken from the connection's
configuration, or inferred from when FX weeks *end*. The market closes on Fridays at 17:00 New York time everywhere;
in the weeks when New York has summer time and Europe has not (or the reverse), a server that follows Europe shows that
close one hour earlier than in other weeks, and one that follows New York does not. Week *openings* prove nothing:
many brokers open at server Monday 00:00 whatever their clock does. When nothing decides it, `us` is assumed for the
UTC+2/+3 servers, whose days are cut at New York's close, and a log line says so. Each later measurement is held
against the rule, so that a wrong one stops the connection instead of shifting its candles.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.clock import DAY_US, HOUR_US, MINUTE_US, to_datetime
from core.errors import ClockRuleError, ClockSkewError, InputError
from core.server_clock import CONFIG_HELP as _FIX
from core.server_clock import DstRule, ServerClock, dst_bounds_us

_LOG = logging.getLogger(__name__)
QUARTER_US: Final = 15 * MINUTE_US
SKEW_LIMIT_US: Final = 5 * MINUTE_US  # a server clock further from a quarter of an hour is not running with ours
OFFSET_LIMIT_US: Final = 14 * HOUR_US
_WEEK_US: Final = 7 * DAY_US
_MONDAY_US: Final = 4 * DAY_US
_SUNDAY_OPEN_US: Final = 3 * DAY_US + 21 * HOUR_US  # 1970-01-04 21:00 UTC: no FX week opens earlier
_CLEAR: Final = 0.75  # of a season's weeks; holidays end some of them early
_WINTER_END_HOUR: Final = 4 * 24 + 22  # of the week that begins on Monday 00:00 UTC


@dataclass(frozen=True, slots=True)
class Measured:
    """One reading of the server's clock: its offset from UTC, and how far it runs from ours beside that.

    A `is_late` clock stands or runs in the past (weekends, a bridge that shows its last quote, a replay of history):
    its offset is what `/ServerTimezone` says, perhaps without summer time.
    """

    offset_us: int
    skew_us: int
    is_late: bool = False


def measure(
    server_local_us: int, asked_us: int, answered_us: int, timezone_us: int | None = None, orders_us: Sequence[int] = ()
) -> Measured:
    """Return the offset of a clock read half-way between asking and the answer, held against the other witnesses.

    Args:
        server_local_us: the reading.
        asked_us: our clock before.
        answered_us: our clock after.
        timezone_us: what the server calls its time zone.
        orders_us: server clock minus UTC by orders that know both.

    Raises:
        ClockSkewError: the witnesses leave no offset that fits, or the server's clock is ahead of ours.
    """
    raw = server_local_us - (asked_us + answered_us) // 2
    measured = _rounded(raw)
    if _runs_with_ours(measured) and agree(measured, timezone_us, orders_us):
        return measured
    late = None if timezone_us is None else Measured(timezone_us, raw - timezone_us, is_late=True)
    if late is None or late.skew_us > -SKEW_LIMIT_US:
        zone = "none" if timezone_us is None else f"UTC{timezone_us / HOUR_US:+g} h"
        raise ClockSkewError(
            f"server clock: received {to_datetime(server_local_us):%Y-%m-%d %H:%M:%S}, {raw / HOUR_US:+.2f} h from ours, "
            f"and ServerTimezone {zone}; allowed: two that agree within 5 minutes; check this machine's clock")
    return late


def is_plain(server_local_us: int, asked_us: int, answered_us: int, timezone_us: int | None) -> bool:
    """Return whether a reading and the server's time zone settle the offset, without another witness."""
    measured = _rounded(server_local_us - (asked_us + answered_us) // 2)
    return _runs_with_ours(measured) and agree(measured, timezone_us, ())


def _rounded(raw_us: int) -> Measured:
    offset = (raw_us + QUARTER_US // 2) // QUARTER_US * QUARTER_US
    return Measured(offset, raw_us - offset)


def _runs_with_ours(measured: Measured) -> bool:
    return abs(measured.offset_us) <= OFFSET_LIMIT_US and abs(measured.skew_us) <= SKEW_LIMIT_US


def agree(measured: Measured, timezone_us: int | None, order_offsets_us: Sequence[int]) -> bool:
    """Return whether other witnesses allow a measurement: the server's time zone (with or without summer time) or orders."""
    if timezone_us is None or measured.offset_us - timezone_us in {0, HOUR_US}:
        return True
    return any(abs(offset - measured.offset_us) <= MINUTE_US for offset in order_offsets_us)


def from_config(config: Mapping[str, object]) -> ServerClock | None:
    """Return the clock in `config["server_clock"]`, None when it has none; see `ServerClock.from_config`."""
    return ServerClock.from_config(config)


def infer(measured: Measured, now_us: int, hours_local_us: Sequence[int]) -> ServerClock:
    """Return the clock that fits the offset now and the week ends among hourly candles.

    Args:
        measured: the offset now.
        now_us: the server's present at the measurement, UTC.
        hours_local_us: open times of hourly candles of an FX symbol, server wall clock; ascending or not, may be empty.

    Raises:
        InputError: nothing decides the rule and none is likely; a person has to say it.
    """
    ends = week_ends(hours_local_us, measured.offset_us)
    rule = rule_of(ends)
    if rule is not None and measured.is_late:
        return ServerClock.fixed(_standard_of_ends(ends, rule), rule)
    if rule is not None:
        return ServerClock.fixed(_standard_minutes(measured, rule, now_us), rule)
    if measured.offset_us == 0 and _season(now_us) == "winter":
        return ServerClock.fixed(0)
    if _standard_minutes(measured, "us", now_us) == 120:
        _LOG.warning("server clock: no week end shows the summer-time rule; assumed: UTC+2 with New York's; %s", _FIX)
        return ServerClock.fixed(120, "us")
    raise InputError(
        "server clock", f"UTC{measured.offset_us / HOUR_US:+g} h now and no FX history that shows its summer-time rule",
        "a rule", _FIX)


def verify(clock: ServerClock, measured: Measured, now_us: int) -> None:
    """Hold a measurement against the rule: candles under a wrong rule would be stored hours off.

    Raises:
        ClockRuleError: they differ; nothing may be fetched until a person has set the rule.
    """
    expected = clock.offset_us(now_us)
    # The minute of a change itself proves nothing: the two clocks may differ by seconds.
    near = {clock.offset_us(now_us - SKEW_LIMIT_US), clock.offset_us(now_us + SKEW_LIMIT_US)}
    if measured.is_late:  # then the offset is the server's word, which may leave summer time out
        near |= {rule.offset_minutes * MINUTE_US for rule in clock.rules}
    if measured.offset_us != expected and measured.offset_us not in near:
        raise ClockRuleError(
            "server clock", f"UTC{measured.offset_us / HOUR_US:+g} h now", f"UTC{expected / HOUR_US:+g} h by its rule", _FIX)


def _standard_of_ends(ends: Mapping[Season, int], rule: DstRule) -> int:
    """Return the winter offset in minutes from when weeks end: Friday 22:00 UTC in winter, 21:00 in New York's summer."""
    if "winter" in ends:
        return (ends["winter"] - _WINTER_END_HOUR) * 60
    return (ends["summer"] - _WINTER_END_HOUR + (1 if rule == "none" else 0)) * 60


def may_have_changed(before_us: int, after_us: int) -> bool:
    """Whether a broker may have set its clock between two instants: a change of summer time by any rule, or a weekend."""
    years = range(to_datetime(before_us).year, to_datetime(after_us).year + 1)
    bounds = (bound for year in years for rule in ("eu", "us") for bound in dst_bounds_us(rule, year))
    week_opens = (after_us - _SUNDAY_OPEN_US) // _WEEK_US - (before_us - _SUNDAY_OPEN_US) // _WEEK_US
    return week_opens > 0 or any(before_us < bound <= after_us for bound in bounds)


Season = Literal["winter", "summer", "between"]


def week_ends(hours_local_us: Sequence[int], offset_us: int) -> dict[Season, int]:
    """Return when FX weeks end, in hours of the server's week, by season; `between` is summer in one of EU and US only.

    Seasons whose weeks do not end alike are left out: thin evidence must not decide a rule.
    """
    seen: dict[Season, Counter[int]] = {"winter": Counter(), "summer": Counter(), "between": Counter()}
    ordered = sorted(set(hours_local_us))
    for last, following in itertools.pairwise(ordered):
        close = last + HOUR_US
        if 30 * HOUR_US <= following - close <= 80 * HOUR_US:  # a weekend, not a hole in the history
            hour = (close - _MONDAY_US) % _WEEK_US // HOUR_US or _WEEK_US // HOUR_US
            seen[_season(close - offset_us)][hour] += 1
    modes = {season: max(counts, key=lambda hour: (counts[hour], hour)) for season, counts in seen.items() if counts}
    return {season: hour for season, hour in modes.items() if seen[season][hour] >= _CLEAR * seen[season].total()}


def rule_of(ends: Mapping[Season, int]) -> DstRule | None:
    """Return the summer-time rule that week ends by season show, None when they show none."""
    winter, summer, between = ends.get("winter"), ends.get("summer"), ends.get("between")
    if between is None or (winter is None and summer is None):
        return None
    if winter is None:
        return "eu" if summer is not None and between == summer - 1 else None
    if between == winter:
        return "us" if summer in {None, winter} else None
    if between == winter - 1 and summer is not None:
        return "eu" if summer == winter else "none" if summer == between else None
    return None


def _standard_minutes(measured: Measured, rule: DstRule, now_us: int) -> int:
    summer = ServerClock.fixed(0, rule).offset_us(now_us)
    return (measured.offset_us - summer) // MINUTE_US


def _season(utc_us: int) -> Season:
    year = to_datetime(utc_us).year
    inside = [start <= utc_us < end for start, end in (dst_bounds_us("eu", year), dst_bounds_us("us", year))]
    if inside[0] != inside[1]:
        return "between"
    return "summer" if inside[0] else "winter"


def changes(clock: ServerClock, start_us: int, end_us: int) -> list[tuple[int, int, int]]:
    """Return the changes of offset in [start, end): UTC instant, offset before, offset after; ascending."""
    years = range(to_datetime(max(start_us, 0)).year, to_datetime(max(end_us, 0)).year + 1)
    instants = {rule.since_us for rule in clock.rules[1:]}
    instants |= {bound for rule in clock.rules if rule.dst != "none" for year in years for bound in dst_bounds_us(rule.dst, year)}
    steps = ((at, clock.offset_us(at - 1), clock.offset_us(at)) for at in sorted(instants) if start_us <= at < end_us)
    return [step for step in steps if step[1] != step[2]]
