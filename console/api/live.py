"""/api/connections/{slug}/live, signals, ticks: what is new in a series, what pipelines said of it, what it was made of."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from console import live, pipeline_readings, readings
from console.api.data_models import TickOut
from console.api.models import BUSY
from console.api.pipeline_models import SignalOut
from console.policy import CONNECTIONS, identity_of
from console.state import feed_of
from core.errors import InputError

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]
hub = live.Hub()
Symbol = Annotated[str, Query(max_length=100, examples=["BTC/USD"])]
Timeframe = Annotated[str, Query(max_length=10, examples=["1m"])]
Moment = Annotated[str | None, Query(max_length=40, description="ISO 8601, UTC without offset.")]
Limit = Annotated[int, Query(ge=1, le=readings.CANDLES_MAX)]


@router.get("/connections/{slug}/live", dependencies=SEES, response_class=StreamingResponse,
            responses={200: {"content": {"text/event-stream": {}}}, **BUSY})
async def watch_candles(
    request: Request, slug: str, symbol: Symbol = "", timeframe: Timeframe = "", seconds: Annotated[int, Query(ge=1, le=3600)] = 600,
) -> StreamingResponse:
    """Send the newest candles as server-sent events whenever they change."""
    series = await run_in_threadpool(readings.seen_series, feed_of(request), identity_of(request), slug, symbol, timeframe)
    hub.check_room(identity_of(request).user.name)
    return StreamingResponse(live.events(hub, request, series, seconds), media_type="text/event-stream")


@router.get("/connections/{slug}/signals", dependencies=SEES)
def list_signals(request: Request, slug: str, symbol: Symbol = "", timeframe: Timeframe = "", limit: Limit = 500) -> list[SignalOut]:
    """Return what your pipelines said of a series, oldest first."""
    feed, who = feed_of(request), identity_of(request)
    series = readings.seen_series(feed, who, slug, symbol, timeframe)
    return [SignalOut(**item) for item in pipeline_readings.signal_rows(feed, who, series=series, limit=limit)]


@router.get("/connections/{slug}/ticks", dependencies=SEES, response_model=list[TickOut])
def list_ticks(request: Request, slug: str, symbol: Symbol = "", start: Moment = None, end: Moment = None, limit: Limit = 1000) -> Response:  # noqa: PLR0917  one for each parameter
    """Return the newest ticks of a range, oldest first."""
    feed = feed_of(request)
    readings.seen_connection(feed, identity_of(request), slug)
    if not symbol:
        raise InputError("symbol", symbol, "a symbol of the connection", "say which")
    return Response(readings.tick_json(feed.lake.ticks(slug, symbol, start, end, limit)), media_type="application/json")
