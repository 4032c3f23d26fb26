"""One request for candles: how far it reaches, and whether its answer can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from core.errors import BadPayloadError
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from providers.exchange.profiles import takes_until
from providers.exchange.wire import Call


@dataclass(frozen=True, slots=True)
class CandleRequest:
    """What ccxt is asked for. `asked` is what the answer covers; `limit` counts its open times."""

    asked: Interval
    since_ms: int
    limit: int
    params: Mapping[str, object]


def candle_request(exchange: Any, grid: Grid, interval: Interval, page: int) -> CandleRequest | None:
    """Return the request for the first `page` open times in `interval`, None when it holds none.

    Both ends are bounded where ccxt can bound them: exchanges that answer with the newest candles of a window (Bybit, OKX)
    then have no choice left, and the others (Binance, Coinbase) answer the same.
    """
    count = grid.count(interval)
    if not count:
        return None
    first, end = grid.ceil(interval.start), interval.end
    if count > page:
        count = page
        end = first + page * grid.timeframe.length_us if grid.is_even else grid.slots(interval)[page]
    params = {"until": end // 1000 - 1} if takes_until(exchange) else {}
    return CandleRequest(Interval(interval.start, end), first // 1000, count, params)


def check_answer(exchange_id: str, rows: Any, call: Call, rows_at: tuple[str, ...] | None) -> None:
    """Raise BadPayloadError unless an empty answer is empty in the exchange's own words, and rows came as a list.

    ccxt reads `{}` as no candles: without this a broken answer looks like a market without trades.
    """
    body = call.answers[-1].parsed if call.answers else None
    is_honest = bool(rows) or _has_empty(body) if rows_at is None else _has_list(body, rows_at)
    if not is_honest or not isinstance(rows, list):
        raise BadPayloadError(f"{exchange_id} sent an answer without a list of candles; nothing of it is used")


def reachable_from(candles: pl.DataFrame, request: CandleRequest, timeframe: Timeframe, history: int | None) -> int | None:
    """Return from when on the exchange has candles if the answer shows that it keeps none so old as asked for."""
    if history is None or len(candles) < history:
        return None
    first_us = int(candles["ts"].dt.epoch("us").to_list()[0])
    return first_us if first_us > request.since_ms * 1000 + timeframe.length_us else None


def _has_list(body: Any, path: tuple[str, ...]) -> bool:
    if not path:
        return isinstance(body, list)
    if not isinstance(body, dict):
        return False
    if path[0] == "*":
        return any(_has_list(value, path[1:]) for value in body.values())
    return _has_list(body.get(path[0]), path[1:])


def _has_empty(body: Any) -> bool:
    if isinstance(body, list):
        return not body or any(_has_empty(value) for value in body)
    return isinstance(body, dict) and any(value is None or _has_empty(value) for value in body.values())
