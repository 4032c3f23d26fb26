"""TradingView's UDF contract over stored candles: names of series, resolutions, symbols, bars. A ticker is `connection:SYMBOL`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from console import readings
from console.identity import Identity
from console.rendering import digits_of
from console.trading_hours import TradingHours, hours_of
from console.udf_bars import Bars
from core.clock import to_datetime
from core.errors import InputError, NotFoundError
from core.series import Series
from feed.context import Feed
from storage.calendars import calendar_for
from storage.metadata.tables import connections, series
from storage.series import SeriesRow, list_series

RESOLUTIONS: Final[Mapping[str, str]] = {
    "1": "1m", "3": "3m", "5": "5m", "15": "15m", "30": "30m", "60": "1h", "120": "2h", "240": "4h", "360": "6h", "480": "8h",
    "720": "12h", "1D": "1d", "1W": "1w", "1M": "1mo",
}
_SHORT: Final[Mapping[str, str]] = {"D": "1D", "W": "1W", "M": "1M"}
_NAMES: Final[Mapping[str, str]] = {timeframe: resolution for resolution, timeframe in RESOLUTIONS.items()}
TYPES: Final[Mapping[str, str]] = {"fx": "forex", "crypto": "crypto"}
VOLUME_DIGITS: Final = 8
PRICES_LOOKED_AT: Final = 100
SEARCH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol of a connection, its series and when its market is open; `kind` is fx or crypto."""

    slug: str
    symbol: str
    kind: str
    rows: list[SeriesRow]
    hours: TradingHours


@dataclass(frozen=True, slots=True)
class Sought:
    """What a search asks for: text of the ticker, a connection, a type of symbols; empty for any."""

    query: str = ""
    exchange: str = ""
    kind: str = ""


def config() -> dict[str, Any]:
    """Return what this datafeed can do."""
    return {
        "supports_search": True, "supports_group_request": False, "supports_marks": False, "supports_timescale_marks": False,
        "supports_time": True, "supported_resolutions": list(RESOLUTIONS), "exchanges": [{"value": "", "name": "All", "desc": ""}],
        "symbols_types": [{"name": "All", "value": ""}, *({"name": name.capitalize(), "value": name} for name in TYPES.values())],
    }


def symbol_info(feed: Feed, who: Identity, ticker: str) -> dict[str, Any]:
    """Return what a chart has to know of a symbol.

    Raises:
        NotFoundError: no such series, or not the reader's: one answer for both.
    """
    found = _of_ticker(feed, who, ticker)
    resolutions = [_NAMES[row.series.timeframe.name] for row in found.rows if row.series.timeframe.name in _NAMES]
    intraday = [item for item in resolutions if item.isdigit()]
    return {
        "ticker": ticker, "name": found.symbol, "full_name": ticker, "description": f"{found.symbol} of {found.slug}",
        "type": TYPES[found.kind], "exchange": found.slug, "listed_exchange": found.slug, "session": found.hours.session,
        "timezone": found.hours.timezone, "format": "price", "minmov": 1, "minmovement": 1, "pricescale": 10 ** _digits(feed, found.rows[0].series),
        "has_intraday": bool(intraday), "intraday_multipliers": intraday, "has_daily": "1D" in resolutions,
        "has_weekly_and_monthly": bool({"1W", "1M"} & set(resolutions)), "supported_resolutions": resolutions,
        "visible_plots_set": "ohlcv", "volume_precision": VOLUME_DIGITS, "data_status": "streaming",
    }


def search(feed: Feed, who: Identity, asked: Sought, limit: int) -> list[dict[str, Any]]:
    """Return the reader's symbols that match."""
    wanted, seen = asked.query.strip().casefold(), readings.seen_slugs(feed, who)
    known = select(connections.c.slug, series.c.symbol, connections.c.type).join_from(series, connections).distinct().order_by(
        connections.c.slug, series.c.symbol)
    with feed.lake.metadata.read() as tx:
        found = [row for row in tx.execute(known).tuples() if row[0] in seen and wanted in f"{row[0]}:{row[1]}".casefold()
                 and asked.exchange in {"", row[0]} and asked.kind in {"", TYPES[row[2]]}]
    return [{"symbol": f"{slug}:{symbol}", "full_name": f"{slug}:{symbol}", "ticker": f"{slug}:{symbol}",
             "description": f"{symbol} of {slug}", "exchange": slug, "type": TYPES[kind]} for slug, symbol, kind in found[:limit]]


def history(feed: Feed, who: Identity, ticker: str, resolution: str, start: int, end: int, countback: int | None) -> dict[str, Any]:  # noqa: PLR0917  the contract's parameters
    """Return bars in [start, end) seconds; with `countback` that many before `end`, whatever `start` says."""
    timeframe = RESOLUTIONS.get(_SHORT.get(resolution, resolution))
    if timeframe is None:
        raise InputError("resolution", resolution[:10], RESOLUTIONS, "ask for one of the symbol's supported_resolutions")
    found = _of_ticker(feed, who, ticker)
    row = next((item for item in found.rows if item.series.timeframe.name == timeframe), None)
    if row is None:
        raise InputError("resolution", resolution[:10], sorted(_NAMES.get(item.series.timeframe.name, "") for item in found.rows),
                         "choose one that is stored")
    bars = Bars(feed, row, found.hours)
    frame = bars.before(end, countback) if countback else bars.between(start, end)
    if frame.is_empty():
        before = bars.before(min(start, end), 1)
        return {"s": "no_data"} | ({} if before.is_empty() else {"nextTime": before["t"][-1]})
    return {"s": "ok", "t": frame["t"].to_list()} | {
        short: frame[name].to_list() for short, name in (("o", "open"), ("h", "high"), ("l", "low"), ("c", "close"), ("v", "volume"))}


def widgets(feed: Feed, who: Identity) -> dict[str, Any]:
    """Return the widgets of OpenBB Workspace; its backend address is the console's with /api."""
    first = next(iter(search(feed, who, Sought(), 1)), {"ticker": ""})["ticker"]
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


def _of_ticker(feed: Feed, who: Identity, ticker: str) -> Symbol:
    slug, _, symbol = ticker.partition(":")
    if slug in readings.seen_slugs(feed, who):
        kind = feed.connections.get(slug).type
        with feed.lake.metadata.read() as tx:
            rows = list_series(tx, slug, symbol)  # the shortest timeframe first
            if rows:
                calendar = calendar_for(tx, rows[0].connection_id, symbol, kind)
                return Symbol(slug, symbol, kind, rows, hours_of(calendar, to_datetime(feed.clock.now_us())))
    raise NotFoundError("unknown_symbol")


def _digits(feed: Feed, item: Series) -> int:
    """Return how many decimals the newest prices have, two at least: one price alone may end in zeros."""
    newest = feed.lake.latest(item.connection, item.symbol, item.timeframe.name, PRICES_LOOKED_AT)
    return max(2, digits_of(value for name in ("open", "high", "low", "close") for value in newest[name]))
