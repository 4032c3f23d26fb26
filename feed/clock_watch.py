"""Proves a broker's clock for the time that is to be stored, before it is stored.

The offset of today is measured at each login. What it was in an old summer nobody can measure any more; but the weeks of
that time show it. So before history is fetched through a broker's clock, its hourly candles are read once, their week ends
(and their lag to a reference series on UTC, when one is stored) are held against the rules, and rules that are wrong are
replaced if we had learned them, or refused if a person had said them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from sqlalchemy import Connection

from connections.clocks import ClockEntry, history, is_learned, note_clock, replace_clock, unproved, withheld_parts
from connections.rows import ConnectionRow, notify, read_connection
from core.candles import check, empty_candles
from core.clock import DAY_US, to_datetime
from core.clock_days import Hourly, Hours, judge_days
from core.clock_fit import (
    LEAST_READINGS,
    Fit,
    Reading,
    contradictions,
    fit,
    lag_readings,
    reading_as_evidence,
    stamp_readings,
    strength,
    week_readings,
)
from core.errors import CandlelakeError, ClockRuleError, InputError, PermanentError
from core.interval import Interval
from core.server_clock import ClockRule, ServerClock
from core.timeframe import Grid, Timeframe
from feed.asking import Asker
from feed.context import Feed
from providers.base import MarketDataProvider, Priority
from providers.paging import pages
from storage.audit import Witness, unwitnessed
from storage.series import list_series

log = logging.getLogger(__name__)
HOUR = Timeframe.parse("1h")
YEAR_US = 366 * DAY_US
AROUND_US = 35 * DAY_US  # weeks on either side, so that a short range is judged by enough of them
WITNESSES = 3  # so many pairs of one server are held against a reference that is another instrument
MAJORS = ("EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "USDCHF", "USDCAD", "NZDUSD", "EURGBP", "EURJPY")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a broker's own candles and a reference say of its clock in a range."""

    symbol: str
    reference: str | None
    readings: list[Reading]
    best: Fit | None
    witnesses: tuple[Hours, ...] = ()  # on the server's wall clock
    against: Hourly | None = None  # the reference's, UTC

    def told(self, interval: Interval) -> dict[str, object]:
        """Return what was looked at, JSON-ready."""
        return {"from_us": interval.start, "to_us": interval.end, "weeks": len(self.readings), "symbol": self.symbol,
                "reference": self.reference} | strength(self.readings)

    def days(self, clock: ServerClock) -> dict[str, object]:
        """Return how many half days were held against what, and the stretches that `clock` is no ground to store, JSON-ready."""
        return judge_days(clock, [on_utc(clock, witness) for witness in self.witnesses], self.against).as_evidence()


async def prove_clock(feed: Feed, provider: MarketDataProvider, slug: str, interval: Interval) -> bool:
    """Hold the clock's rules against the weeks around `interval`; return whether other rules are in force now.

    Raises:
        ClockRuleError: the rules that a person has set are wrong there; names those that fit. Nothing has been stored.
        TransientError: the evidence could not be read.
    """
    clock = provider.server_clock
    if clock is None or provider.capabilities.market_type != "fx":
        return False
    with feed.lake.metadata.read() as tx:
        entries = history(tx, slug)
    left = unproved(entries, clock, interval) or _better_provable(feed, slug, entries, clock, interval)
    if not left:
        return False
    wide = Interval(max(0, left[0].start - AROUND_US), min(feed.clock.now_us(), left[-1].end + AROUND_US))
    if wide.is_empty:
        return False
    evidence = await gather(feed, provider, slug, wide)
    wrong = contradictions(clock, evidence.readings)
    with feed.lake.metadata.write() as tx:
        row, now = read_connection(tx, slug), feed.clock.now_us()
        proof = evidence.told(Interval(left[0].start, left[-1].end))
        if evidence.best is None or not wrong:
            if len(evidence.readings) >= LEAST_READINGS:
                note_clock(tx, row, "confirmed", clock, None, now, proof | (doubted := evidence.days(clock)))
                _tell_stored(feed, tx, row, withheld_parts(doubted))
            return False
        better = joined(clock, evidence.best.clock, wide)
        if is_learned(entries, clock):
            log.warning("%s: %d weeks contradict the clock's rules; replaced by %s", slug, len(wrong), better.as_config())
            replace_clock(tx, row, better, "learned", now, proof | evidence.days(better)
                          | {"wrong": [reading_as_evidence(item) for item in wrong[:20]]})
            return True
    first = wrong[0]
    raise ClockRuleError(
        "server clock", f"{len(wrong)} weeks that contradict it, the first one ending {to_datetime(first.at_us):%Y-%m-%d} at "
        f"UTC{first.offset_us / 3.6e9:+g} h", f"rules that fit the weeks of {evidence.symbol}",
        f"these do: {json.dumps(better.as_config())}; run: candlelake clock {slug} --learn")


def _better_provable(
    feed: Feed, slug: str, entries: Sequence[ClockEntry], clock: ServerClock, interval: Interval,
) -> list[Interval]:
    """Return what week ends alone have proved, where a reference has been stored since."""
    weakly = unproved(entries, clock, interval, by_reference=True)
    if not weakly:
        return []
    whole = Interval(weakly[0].start, weakly[-1].end)
    return weakly if reference_of(feed, slug, MAJORS[0], whole)[0] is not None else []


def _tell_stored(feed: Feed, tx: Connection, row: ConnectionRow, parts: Sequence[Interval]) -> None:
    """Tell people of candles that were stored before it was known that the clock is no ground to store them."""
    for item in list_series(tx, row.slug):
        for part in parts:
            count = len(feed.lake.stored_slots(item.id, part))
            if count:
                notify(tx, "clock_changed", "error", row.id, f"{item.series}: {count} candles stored by a clock that is in doubt",
                       f"a reference that was stored since shows another hour in {part}; look at: candlelake clock {row.slug}",
                       feed.clock.now_us())


async def gather(feed: Feed, provider: MarketDataProvider, slug: str, interval: Interval) -> Evidence:
    """Read what an FX major's hours, and a stored reference series of the same symbol, say of the clock in `interval`."""
    symbol = await _clock_symbol(feed, provider, slug)
    if symbol is None or HOUR.name not in provider.capabilities.timeframes:
        return Evidence("", None, [], None)
    try:
        frame = await hours_of(feed, provider, symbol, interval)
    except PermanentError as error:  # a symbol that is listed but not ours to read is no evidence either way
        log.info("%s: no hours of %s to read the clock off: %s", slug, symbol, error)
        return Evidence(symbol, None, [], None)
    hours = await asyncio.to_thread(on_wall, provider.server_clock, frame)
    readings = week_readings(hours.times) + await _stamped(provider, interval)
    if not len(hours.times):
        return Evidence(symbol, None, readings, fit(readings))
    reference, candles = reference_of(feed, slug, symbol, interval)
    against = None
    if reference is not None:
        against = candles["ts"].dt.epoch("us").to_numpy(), candles["close"].to_numpy()
        readings += lag_readings(hours.times, hours.close, *against)
    more = await _more_witnesses(feed, provider, symbol, interval, reference)
    return Evidence(symbol, reference, readings, fit(readings), (hours, *more), against)


async def _stamped(provider: MarketDataProvider, interval: Interval) -> list[Reading]:
    """Return what the account's own orders say, at a provider that tells their time twice."""
    ask = getattr(provider, "clock_stamps", None)
    if ask is None:
        return []
    try:
        return stamp_readings(await ask(interval))
    except CandlelakeError as error:  # orders that cannot be read are no evidence either way
        log.info("no order stamps to read the clock off: %s", error)
        return []


async def _more_witnesses(
    feed: Feed, provider: MarketDataProvider, symbol: str, interval: Interval, reference: str | None,
) -> list[Hours]:
    """Return the hours of other majors of the server: without a reference of the same pair, one alone is weak evidence."""
    if reference is not None and plain_name(reference.split()[1]) == plain_name(symbol):
        return []
    names = [info.symbol for info in await provider.symbols()]
    others = [name for major in MAJORS for name in names if name != symbol and plain_name(name) == major][: WITNESSES - 1]
    out = []
    for name in others:
        try:
            out.append(on_wall(provider.server_clock, await hours_of(feed, provider, name, interval)))
        except PermanentError as error:
            log.info("no hours of %s to read the clock off: %s", name, error)
    return out


def on_wall(clock: ServerClock | None, frame: pl.DataFrame) -> Hours:
    """Return the hours of candles as the server's wall clock showed them."""
    utc = frame["ts"].dt.epoch("us").to_list()
    local = np.array([us if clock is None else clock.from_utc_us(us) for us in utc], dtype=np.int64)
    is_counted = frame["volume"].null_count() == 0
    return Hours(local, frame["close"].to_numpy(), frame["volume"].to_numpy() if is_counted else None)


def on_utc(clock: ServerClock, hours: Hours) -> Hours:
    """Return hours of a wall clock on UTC by other rules, ascending, each once."""
    utc, first = np.unique(np.array([clock.to_utc_us(us) for us in hours.times.tolist()], dtype=np.int64), return_index=True)
    return Hours(utc, hours.close[first], None if hours.volume is None else hours.volume[first])


def joined(old: ServerClock, new: ServerClock, interval: Interval) -> ServerClock:
    """Return `new` inside `interval` and `old` outside of it; a rule that says what the one before it says is left out."""
    after = [rule for rule in old.rules if rule.since_us >= interval.end]
    at_end = [rule for rule in old.rules if rule.since_us < interval.end][-1:]
    rules = [*new.rules]
    if at_end and not _same(at_end[0], rules[-1]) and old.offset_us(interval.end) != new.offset_us(interval.end):
        rules.append(ClockRule(interval.end, at_end[0].offset_minutes, at_end[0].dst))
    before = [rule for rule in old.rules if rule.since_us < interval.start] if interval.start > 0 else []
    if before and not _same(before[-1], rules[0]) and len(old.rules) > 1:
        rules[0] = ClockRule(interval.start, rules[0].offset_minutes, rules[0].dst)
        rules = [*before, *rules]
    out: list[ClockRule] = []
    for rule in [*rules, *after]:
        if not out or not _same(out[-1], rule):
            out.append(rule)
    return ServerClock(tuple(out))


def _same(one: ClockRule, other: ClockRule) -> bool:
    return (one.offset_minutes, one.dst) == (other.offset_minutes, other.dst)


async def _clock_symbol(feed: Feed, provider: MarketDataProvider, slug: str) -> str | None:
    wanted = feed.connections.get(slug).config.get("clock_symbol")
    if isinstance(wanted, str):
        return wanted
    names = [info.symbol for info in await provider.symbols()]
    return next((name for major in MAJORS for name in names if name.upper().startswith(major)), None)


async def hours_of(feed: Feed, provider: MarketDataProvider, symbol: str, interval: Interval) -> pl.DataFrame:
    """Return the hourly candles of a symbol in `interval` that pass the check, ascending."""
    asker, grid = Asker(provider, feed.settings.retry_wait), Grid(HOUR, provider.server_clock)
    parts = [empty_candles()]
    for page in pages(interval, grid, provider.capabilities.page_limit(HOUR)):
        answer = await asker.page(symbol, HOUR, page)
        parts.append(check(answer.candles, grid, page, answer.server_us).candles)
    return pl.concat(parts).sort("ts")


def reference_of(feed: Feed, slug: str, symbol: str, interval: Interval) -> tuple[str | None, pl.DataFrame]:
    """Return a stored hourly series at a provider whose times are UTC, with its candles: the same pair, or another major."""
    order = [plain_name(symbol), *MAJORS]
    with feed.lake.metadata.read() as tx:
        rows = [row for row in list_series(tx, timeframe=HOUR) if row.series.connection != slug and row.first_us is not None
                and plain_name(row.series.symbol) in order]
    for row in sorted(rows, key=lambda row: order.index(plain_name(row.series.symbol))):
        if ServerClock.from_config(feed.connections.get(row.series.connection).config) is None:
            key = row.series
            candles = feed.lake.candles(key.connection, key.symbol, key.timeframe, interval.start, interval.end)
            if candles.height:
                return str(key), candles
    return None, empty_candles()


def plain_name(symbol: str) -> str:
    """Return the six letters of an FX pair, whatever a broker writes around them."""
    return re.sub(r"[^A-Z]", "", symbol.upper())[:6]


async def learn_clock(feed: Feed, slug: str, witness: Witness = unwitnessed) -> ServerClock:
    """Find the rules of a broker's clock in all the hours it keeps, and put them in force, whoever had set the old ones.

    A `witness` writes it down in the transaction that does it.

    Raises:
        InputError: too few weeks show it, or the connection has no clock of its own.
        ClockRuleError: the rules found differ from the clock as it stands now.
    """
    async with feed.connections.open_provider(slug, priority=Priority.REPAIR) as provider:
        clock = provider.server_clock
        if clock is None:
            raise InputError("clock", f"{slug}, whose times are UTC", "a broker with a wall clock of its own")
        with feed.lake.metadata.read() as tx:
            firsts = [row.first_us for row in list_series(tx, slug) if row.first_us is not None]
        now = feed.clock.now_us()
        span = Interval(max(0, min([*firsts, now - YEAR_US]) - AROUND_US), now)
        evidence = await gather(feed, provider, slug, span)
        if evidence.best is None:
            raise InputError("clock", f"{len(evidence.readings)} weeks of an FX major's hours", f"{LEAST_READINGS} or more",
                             f"set it by hand: candlelake clock {slug} --set JSON")
        found, measured = evidence.best.clock, getattr(provider, "measured_offset_us", None)
        if measured is not None and found.offset_us(now) != measured:
            raise ClockRuleError("server clock", f"UTC{measured / 3.6e9:+g} h now", f"UTC{found.offset_us(now) / 3.6e9:+g} h by "
                                 "the weeks of its history", f"set it by hand: candlelake clock {slug} --set JSON")
    with feed.lake.metadata.write() as tx:
        replace_clock(tx, read_connection(tx, slug), found, "learned", now, evidence.told(span) | evidence.days(found))
        witness(tx)
    return found
