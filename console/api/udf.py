"""/api/udf: the datafeed of TradingView's charting library; /api/widgets.json for OpenBB Workspace."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from console import udf
from console.api.data_models import (
    UdfBarsOut,
    UdfConfigOut,
    UdfFoundOut,
    UdfNoBarsOut,
    UdfProblem,
    UdfSymbolOut,
    WidgetOut,
)
from console.policy import CONNECTIONS, PUBLIC, identity_of
from console.problems import kind_of
from console.readings import CANDLES_MAX
from console.state import feed_of
from console.udf_bars import SECONDS_MAX
from core.clock import SECOND_US
from core.errors import CandlelakeError, InputError, NotFoundError

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]
Ticker = Annotated[str, Query(max_length=200, description="connection:SYMBOL", examples=["kraken-spot:BTC/USD"])]
REFUSED: Final[dict[int | str, dict[str, Any]]] = {404: {"model": UdfProblem, "description": "No such symbol of yours."}}
Seconds = Annotated[int, Query(ge=0, le=SECONDS_MAX)]


@router.get("/udf/config", dependencies=SEES)
def udf_config() -> UdfConfigOut:
    """Return what the datafeed can do."""
    return UdfConfigOut(**udf.config())


@router.get("/udf/time", dependencies=[Depends(PUBLIC)], response_class=PlainTextResponse)
def udf_time(request: Request) -> Response:
    """Return the server's time in seconds."""
    return PlainTextResponse(str(feed_of(request).clock.now_us() // SECOND_US))


@router.get("/udf/symbols", dependencies=SEES, response_model=UdfSymbolOut, responses=REFUSED)
def udf_symbols(request: Request, symbol: Ticker) -> Response:
    """Return what a chart has to know of a symbol."""
    try:
        return JSONResponse(udf.symbol_info(feed_of(request), identity_of(request), symbol))
    except NotFoundError as error:
        return _refused(error)


@router.get("/udf/search", dependencies=SEES)
def udf_search(
    request: Request, query: Annotated[str, Query(max_length=200)] = "", exchange: Annotated[str, Query(max_length=63)] = "",
    kind: Annotated[str, Query(alias="type", max_length=20, description="crypto or forex.")] = "",
    limit: Annotated[int, Query(ge=1, le=udf.SEARCH_MAX)] = 30,
) -> list[UdfFoundOut]:
    """Return your symbols whose name holds the query."""
    found = udf.search(feed_of(request), identity_of(request), udf.Sought(query, exchange, kind), limit)
    return [UdfFoundOut(**item) for item in found]


@router.get("/udf/history", dependencies=SEES, response_model=UdfBarsOut | UdfNoBarsOut, responses=REFUSED)
def udf_history(  # noqa: PLR0917  one for each parameter of the contract
    request: Request, symbol: Ticker, resolution: Annotated[str, Query(max_length=10)], to: Seconds,
    start: Annotated[int, Query(alias="from", ge=0, le=SECONDS_MAX)] = 0,
    countback: Annotated[int | None, Query(ge=1, le=CANDLES_MAX)] = None,
) -> Response:
    """Return bars in [from, to); with countback that many before `to`."""
    try:
        return JSONResponse(udf.history(feed_of(request), identity_of(request), symbol, resolution, start, to, countback))
    except (NotFoundError, InputError) as error:
        return _refused(error)


@router.get("/widgets.json", dependencies=SEES, response_model_exclude_unset=True)
def openbb_widgets(request: Request) -> dict[str, WidgetOut]:
    """Return the widgets of OpenBB Workspace."""
    return {name: WidgetOut(**item) for name, item in udf.widgets(feed_of(request), identity_of(request)).items()}


def _refused(error: CandlelakeError) -> Response:
    kind = kind_of(error)
    return JSONResponse({"s": "error", "errmsg": str(error), **kind.body(str(error))}, kind.status)
