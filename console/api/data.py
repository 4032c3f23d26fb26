"""/api/candles, coverage, gaps, revisions: what is stored and what is known about it; CSV, Parquet and XLSX exports."""

from __future__ import annotations

import io
from typing import Annotated, Any, Final, Literal

import polars as pl
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from console import coverage_map, readings
from console.api.data_models import ColumnsOut, DayOut, SeriesDaysOut
from console.api.models import CandleOut, CoverageOut, GapOut, RevisionOut
from console.derived_view import derived_candles
from console.policy import CONNECTIONS, identity_of
from console.readings import RowFilter
from console.series_pages import TEXT_MAX
from console.state import feed_of
from core.errors import InputError

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]
Symbol = Annotated[str, Query(max_length=100, examples=["BTC/USD"])]
Timeframe = Annotated[str, Query(max_length=10, examples=["1m"])]
Moment = Annotated[str | None, Query(max_length=40, examples=["2026-01-01T00:00:00Z"], description="ISO 8601, UTC without offset.")]
From = Annotated[str | None, Query(max_length=10, examples=["1m"], description="Make the candles of this stored timeframe; nothing of it is stored.")]
Anchor = Annotated[Literal["utc", "server", "new_york"], Query(description="With derive_from, what cuts the candles: new_york is 17:00 there.")]
Limit = Annotated[int, Query(ge=1, le=readings.CANDLES_MAX)]
Rows = Annotated[int, Query(ge=1, le=readings.ROWS_MAX)]
Skip = Annotated[int, Query(ge=0, le=10_000_000, description="So many that come before: the next page begins after what you have.")]
Cause = Annotated[str | None, Query(max_length=30, examples=["provider_empty"], description="Only gaps with this cause.")]
_KINDS: Final = {
    "csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


@router.get("/connections/{slug}/candles", dependencies=SEES, response_model=list[CandleOut])
def list_candles(request: Request, slug: str, symbol: Symbol, timeframe: Timeframe, start: Moment = None, end: Moment = None,  # noqa: PLR0917  one for each parameter
                 as_of: Moment = None, limit: Limit = 100, derive_from: From = None, anchor: Anchor = "utc") -> Response:
    """Return the newest candles of a range, oldest first; `as_of` gives what was known then."""
    found = _asked(request, slug, (symbol, timeframe, derive_from, anchor), {"start": start, "end": end, "limit": limit, "as_of": as_of})
    return Response(readings.candle_json(found), media_type="application/json")


@router.get("/connections/{slug}/candles/columns", dependencies=SEES, response_model=ColumnsOut)
def list_columns(request: Request, slug: str, symbol: Symbol, timeframe: Timeframe, start: Moment = None, end: Moment = None,  # noqa: PLR0917  one for each parameter
                 as_of: Moment = None, limit: Limit = 100, derive_from: From = None, anchor: Anchor = "utc") -> Response:
    """Return the same candles as `candles` does, as columns: a quarter of the size, for charts."""
    found = _asked(request, slug, (symbol, timeframe, derive_from, anchor), {"start": start, "end": end, "limit": limit, "as_of": as_of})
    return Response(readings.candle_columns(found), media_type="application/json")


@router.get("/connections/{slug}/export", dependencies=SEES, response_class=Response,
            responses={200: {"content": {kind.partition(";")[0]: {} for kind in _KINDS.values()}}})
def export_candles(request: Request, slug: str, symbol: Symbol, timeframe: Timeframe, start: Moment = None, end: Moment = None,  # noqa: PLR0917  one for each parameter
                   limit: Limit = readings.CANDLES_MAX, kind: Annotated[Literal["csv", "parquet", "xlsx"], Query(alias="format")] = "csv",
                   derive_from: From = None, anchor: Anchor = "utc") -> Response:
    """Return candles as a file."""
    body = _encoded(_asked(request, slug, (symbol, timeframe, derive_from, anchor), {"start": start, "end": end, "limit": limit, "as_of": None}), kind)
    name = f"{slug}_{symbol}_{timeframe}{'' if derive_from is None else '_derived'}".replace("/", "-")
    safe = "".join(char if (char.isalnum() and char.isascii()) or char in "-_." else "_" for char in name)
    return Response(body, media_type=_KINDS[kind], headers={"content-disposition": f'attachment; filename="{safe}.{kind}"'})


@router.get("/connections/{slug}/gaps", dependencies=SEES)
def list_gaps(request: Request, slug: str, symbol: Annotated[str | None, Query(max_length=100)] = None,  # noqa: PLR0917  one for each parameter
              timeframe: Annotated[str | None, Query(max_length=10)] = None, cause: Cause = None, start: Moment = None, end: Moment = None,
              limit: Rows = readings.ROWS_SHOWN, skip: Skip = 0) -> list[GapOut]:
    """Return the ledger: ranges without candles that touch [start, end), with cause and proof, those that begin last first."""
    readings.seen_connection(feed_of(request), identity_of(request), slug)
    only = RowFilter(symbol, timeframe, cause, readings.range_of(start, end), limit, skip)
    return [GapOut(**row) for row in readings.gap_rows(feed_of(request), slug, only)]


@router.get("/connections/{slug}/revisions", dependencies=SEES)
def list_revisions(request: Request, slug: str, symbol: Annotated[str | None, Query(max_length=100)] = None,  # noqa: PLR0917  one for each parameter
                   timeframe: Annotated[str | None, Query(max_length=10)] = None, limit: Rows = readings.ROWS_SHOWN, skip: Skip = 0) -> list[RevisionOut]:
    """Return what the provider changed of candles already stored, what was seen last first."""
    readings.seen_connection(feed_of(request), identity_of(request), slug)
    return [RevisionOut(**row) for row in readings.revision_rows(feed_of(request), slug, RowFilter(symbol, timeframe, limit=limit, skip=skip))]


@router.get("/connections/{slug}/coverage/days", dependencies=SEES)
def list_days(request: Request, slug: str, days: Annotated[int, Query(ge=1, le=coverage_map.DAYS_MAX)] = 60,
              series: Annotated[str, Query(max_length=TEXT_MAX, description="Words of symbol and timeframe.")] = "",
              page: Annotated[int, Query(ge=1, lt=2**31, description=f"{coverage_map.SERIES_MAX} series each.")] = 1) -> list[SeriesDaysOut]:
    """Return how complete each series is, day by day; a page past the end is the last one."""
    readings.seen_connection(feed_of(request), identity_of(request), slug)
    shown = coverage_map.days_of(feed_of(request), slug, days, series, page)
    return [SeriesDaysOut(symbol=item.symbol, timeframe=item.timeframe.name, days=[
        DayOut(day=cell.day, expected=cell.expected, stored=cell.stored, explained=cell.explained, kind=cell.kind) for cell in cells])
        for item, cells in shown.found]


@router.get("/coverage", dependencies=SEES)
def list_coverage(request: Request) -> list[CoverageOut]:
    """Return for each of your series what is expected, stored, explained and unexplained."""
    feed, who = feed_of(request), identity_of(request)
    return [CoverageOut(**row) for row in readings.coverage_rows(feed, readings.seen_slugs(feed, who))]


def _asked(request: Request, slug: str, what: tuple[str, str, str | None, str], asked: dict[str, Any]) -> pl.DataFrame:
    """Return stored candles of (symbol, timeframe, None, utc), or those that are made of a stored timeframe."""
    feed, (symbol, timeframe, derive_from, anchor) = feed_of(request), what
    if derive_from is None and anchor != "utc":
        raise InputError("anchor", anchor, "utc without derive_from", "add derive_from=1m")
    series = readings.seen_series(feed, identity_of(request), slug, symbol, derive_from or timeframe)
    return readings.candles(feed, series, **asked) if derive_from is None else derived_candles(feed, series, timeframe, anchor, asked)


def _encoded(frame: pl.DataFrame, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "parquet":
        frame.write_parquet(out, compression="zstd")
    elif kind == "csv":
        readings.as_text(frame).write_csv(out)
    else:
        plain = frame.with_columns(pl.col(name).dt.replace_time_zone(None) for name, dtype in frame.schema.items()
                                   if isinstance(dtype, pl.Datetime))  # a spreadsheet knows no zones: these are UTC
        plain.write_excel(out, worksheet="candles (UTC)")
    return out.getvalue()
