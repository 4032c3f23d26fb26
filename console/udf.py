"""TradingView's UDF contract over stored candles: names of series, resolutions, symbols, bars. A ticker is `connection:SYMBOL`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from connections.rows import ConnectionRow
from console import readings
from console.identity import Identity
from core.clock import SECOND_US, isoformat
from core.errors import InputError, NotFoundError
from core.series import Series
from feed.context import Feed
from storage.series import SeriesRow, list_series

RESOLUTIONS: Final[Mapping[str, str]] = {
    "1": "1m", "3": "3m", "5": "5m", "15": "15m", "30": "30m", "60": "1h", "120": "2h", "240": "4h", "360": "6h", "480": "8h",
    "720": "12h", "1D": "1d", "1W": "1w", "1M": "1mo",
}
_SHORT: Final[Mapping[str, str]] = {"D": "1D", "W": "1W", "M": "1M"}
_NAMES: Final[Mapping[str, str]] = {timeframe: resolution for resolution, timeframe in RESOLUTIONS.items()}
DIGITS_MAX: Final = 8
SECONDS_MAX: Final = 4_102_444_800  # 2100
SEARCH_MAX: Final = 100


def config() -> dict[str, Any]:
    """Return what this datafeed can do."""
    return {
        "supports_search": True, "supports_group_request": False, "supports_marks": False, "supports_timescale_marks": False,
        "supports_time": True, "supported_resolutions": list(RESOLUTIONS), "exchanges": [{"value": "", "name": "All", "desc": ""}],
        "symbols_types": [{"name": "All", "value": ""}],
    }


def symbol_info(feed: Feed, who: Identity, ticker: str) -> dict[str, Any]:
    """Return what a chart has to know of a symbol.

    Raises:
        NotFoundError: no such series, or not the reader's: one answer for both.
    """
    slug, rows = _of_ticker(feed, who, ticker)
    names = sorted({row.series.timeframe for row in rows})
    resolutions = [_NAMES[name.name] for name in names if name.name in _NAMES]
    last = feed.lake.latest(slug, rows[0].series.symbol, names[0].name, 1)
    digits = _digits(last["close"].to_list())
    return {
        "ticker": ticker, "name": ticker, "full_name": ticker, "description": f"{rows[0].series.symbol} of {slug}", "type": "",
        "exchange": slug, "listed_exchange": slug, "session": "24x7", "timezone": "Etc/UTC", "format": "price", "minmov": 1,
        "minmovement": 1, "pricescale": 10 ** digits, "has_intraday": any(item.isdigit() for item in resolutions),
        "intraday_multipliers": [item for item in resolutions if item.isdigit()], "has_daily": "1D" in resolutions,
        "has_weekly_and_monthly": bool({"1W", "1M"} & set(resolutions)), "supported_resolutions": resolutions,
        "volume_precision": DIGITS_MAX, "data_status": "streaming",
    }


def search(feed: Feed, who: Identity, query: str, exchange: str, limit: int) -> list[dict[str, Any]]:
    """Return the reader's symbols whose ticker holds `query`."""
    wanted, found = query.strip().lower(), []
    for row in _mine(feed, who):
        if exchange and row.slug != exchange:
            continue
        with feed.lake.metadata.read() as tx:
            symbols = sorted({item.series.symbol for item in list_series(tx, row.slug)})
        found += [(row.slug, symbol) for symbol in symbols if wanted in f"{row.slug}:{symbol}".lower()]
    return [{"symbol": f"{slug}:{symbol}", "full_name": f"{slug}:{symbol}", "ticker": f"{slug}:{symbol}",
             "description": f"{symbol} of {slug}", "exchange": slug, "type": ""} for slug, symbol in found[:limit]]


def history(feed: Feed, who: Identity, ticker: str, resolution: str, start: int, end: int, countback: int | None) -> dict[str, Any]:  # noqa: PLR0917  the contract's parameters
    """Return bars in [start, end) seconds; with `countback` that many before `end`, whatever `start` says."""
    timeframe = RESOLUTIONS.get(_SHORT.get(resolution, resolution))
    if timeframe is None:
        raise InputError("resolution", resolution[:10], RESOLUTIONS, "ask for one of the symbol's supported_resolutions")
    _, rows = _of_ticker(feed, who, ticker)
    row = next((item for item in rows if item.series.timeframe.name == timeframe), None)
    if row is None:
        raise InputError("resolution", resolution[:10], sorted(_NAMES.get(item.series.timeframe.name, "") for item in rows),
                         "choose one that is stored")
    frame = _before(feed, row, end, countback) if countback else _bars(feed, row.series, start, end)
    if frame.is_empty():
        before = _before(feed, row, min(start, end), 1)
        return {"s": "no_data"} | ({} if before.is_empty() else {"nextTime": _seconds(before)[-1]})
    return {"s": "ok", "t": _seconds(frame)} | {
        short: frame[name].to_list() for short, name in (("o", "open"), ("h", "high"), ("l", "low"), ("c", "close"), ("v", "volume"))}


def widgets(feed: Feed, who: Identity) -> dict[str, Any]:
    """Return the widgets of OpenBB Workspace; its backend address is the console's with /api."""
    first = next(iter(search(feed, who, "", "", 1)), {"symbol": ""})["symbol"]
    table = {"type": "table", "category": "Candlelake", "gridData": {"w": 20, "h": 9}}
    return {
        "candlelake_chart": {
            "name": "Candles", "description": "Stored candles of every connection.", "category": "Candlelake",
            "type": "advanced_charting", "endpoint": "udf", "gridData": {"w": 20, "h": 20},
            "data": {"defaultSymbol": first, "updateFrequency": 60_000, "chartConfig": {}}},
        "candlelake_health": {
            "name": "Connections", "description": "State, lag and gaps of each connection.", "endpoint": "data-connections/health", **table},
        "candlelake_coverage": {
            "name": "Coverage", "description": "Expected, stored, explained and unexplained candles.", "endpoint": "coverage", **table},
    }


def _mine(feed: Feed, who: Identity) -> list[ConnectionRow]:
    return [row for row in feed.connections.list() if who.may_see(row)]


def _of_ticker(feed: Feed, who: Identity, ticker: str) -> tuple[str, list[SeriesRow]]:
    slug, _, symbol = ticker.partition(":")
    if slug in {row.slug for row in _mine(feed, who)}:
        with feed.lake.metadata.read() as tx:
            rows = list_series(tx, slug, symbol)
        if rows:
            return slug, rows
    raise NotFoundError("unknown_symbol")


def _before(feed: Feed, row: SeriesRow, end: int, count: int) -> pl.DataFrame:
    """Return the `count` newest bars before `end`; looks further back only while gaps make it necessary."""
    first = end if row.first_us is None else row.first_us // SECOND_US
    span = max(1, count * row.series.timeframe.length_us // SECOND_US)
    until = end if row.last_us is None else min(end, row.last_us // SECOND_US + 1)
    while True:
        since = until - span
        frame = _bars(feed, row.series, max(since, 0), until)
        if frame.height >= count or since <= first:
            return frame.tail(count)
        span *= 4


def _bars(feed: Feed, series: Series, start: int, end: int) -> pl.DataFrame:
    since, until = (isoformat(min(item, SECONDS_MAX) * SECOND_US) for item in (start, end))
    if start >= end:
        return feed.lake.latest(series.connection, series.symbol, series.timeframe.name, 1).clear()
    return feed.lake.candles(
        series.connection, series.symbol, series.timeframe.name, start=since, end=until).tail(readings.CANDLES_MAX)


def _seconds(frame: pl.DataFrame) -> list[int]:
    return [int(value) for value in frame["ts"].dt.epoch("s").to_list()]


def _digits(closes: Sequence[float]) -> int:
    text = f"{closes[-1]:.{DIGITS_MAX}f}".rstrip("0") if closes else "0.00"
    return max(2, len(text.partition(".")[2]))
