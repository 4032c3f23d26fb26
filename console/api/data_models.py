"""What the API answers with about stored data: ticks, the proof, TradingView's datafeed, OpenBB's widgets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from console.api.models import Problem


class ColumnsOut(BaseModel):
    """Candles, oldest first, as a list for each column: open times in seconds since 1970, open, high, low, close, volume.

    Derived ones also say of how many candles each is made, and how many there should be.
    """

    t: list[int]
    o: list[float]
    h: list[float]
    l: list[float]  # noqa: E741  the short name that charts use
    c: list[float]
    v: list[float]
    parts: list[int] | None = None
    parts_expected: list[int] | None = None


class DayOut(BaseModel):
    """One day (UTC) of a series, counted in candles; `kind` is none, full, explained, part or lost."""

    day: str
    expected: int
    stored: int
    explained: int
    kind: Literal["none", "full", "explained", "part", "lost"]


class SeriesDaysOut(BaseModel):
    """A series by day, oldest first."""

    symbol: str
    timeframe: str
    days: list[DayOut]


class TickOut(BaseModel):
    """A stored tick: a quote has bid and ask, a trade price and size; `received_at` is when it reached us."""

    ts: str
    kind: str
    bid: float | None
    ask: float | None
    price: float | None
    size: float | None
    side: str | None
    trade_id: str | None
    received_at: str
    source: str
    run_id: str


class SeriesProofOut(BaseModel):
    """One series in the period, counted in slots; `strip`: up to 120 parts' shares of stored, explained, closed, waiting, open."""

    connection: str
    symbol: str
    timeframe: str
    first: str | None
    last: str | None
    expected: int
    stored: int
    explained: int
    unexplained: int
    withheld: int
    causes: dict[str, int]
    completeness: float | None
    revisions: int
    rows_digest: str
    behind: int
    strip: list[dict[str, float]]


class ProofTotalsOut(BaseModel):
    """The counts of all series together; shares are 0 to 1, null when nothing was expected."""

    series: int
    expected: int
    stored: int
    explained: int
    unexplained: int
    withheld: int
    causes: dict[str, int]
    completeness: float | None
    explained_share: float | None
    revisions: int
    behind: int


class ProofGapOut(BaseModel):
    """A range without candles within the period, the longest first."""

    series: str
    start: str
    end: str
    slots: int
    cause: str
    attempts: int
    first_seen: str
    next_try: str | None
    proof: dict[str, Any]


class ProofRevisionOut(BaseModel):
    """A candle that the provider changed: the values before and after."""

    series: str
    ts: str
    known_at: str
    old: dict[str, float | None]
    new: dict[str, float | None]


class RepairsOut(BaseModel):
    """How long gaps of the period took until they were filled."""

    ranges: int
    median_seconds: float | None
    p90_seconds: float | None
    longest_seconds: float | None
    by_cause: dict[str, int]


class ClockOut(BaseModel):
    """What was found out about the broker's clock, and from what."""

    connection: str
    kind: str
    rules: Any
    offset_minutes: int | None
    evidence: Any
    seen_at: str
    last_seen: str


class RetentionOut(BaseModel):
    """A cleanup that was done: candles before an instant."""

    series: str
    before: str
    applied_at: str
    rows: int


class ProofOut(BaseModel):
    """The proof of a connection's candles in a period."""

    connection: str | None
    start: str
    end: str
    made_at: str
    digest: str
    totals: ProofTotalsOut
    series: list[SeriesProofOut]
    gaps: list[ProofGapOut]
    revisions: list[ProofRevisionOut]
    repairs: RepairsOut
    clocks: list[ClockOut]
    retentions: list[RetentionOut]
    runs: dict[str, int]


class NamedValueOut(BaseModel):
    """A choice of TradingView's search."""

    value: str
    name: str


class ExchangeOut(NamedValueOut):
    """An exchange of TradingView's search."""

    desc: str


class UdfConfigOut(BaseModel):
    """What the datafeed can do."""

    supports_search: bool
    supports_group_request: bool
    supports_marks: bool
    supports_timescale_marks: bool
    supports_time: bool
    supported_resolutions: list[str]
    exchanges: list[ExchangeOut]
    symbols_types: list[NamedValueOut]


class UdfFoundOut(BaseModel):
    """A symbol that a search has found."""

    symbol: str
    full_name: str
    ticker: str
    description: str
    exchange: str
    type: str


class UdfSymbolOut(BaseModel):
    """What a chart has to know of a symbol."""

    ticker: str
    name: str
    full_name: str
    description: str
    type: str
    exchange: str
    listed_exchange: str
    session: str
    timezone: str
    format: str
    minmov: int
    minmovement: int
    pricescale: int
    has_intraday: bool
    intraday_multipliers: list[str]
    has_daily: bool
    has_weekly_and_monthly: bool
    supported_resolutions: list[str]
    visible_plots_set: str
    volume_precision: int
    data_status: str


class UdfBarsOut(BaseModel):
    """Bars as columns; `t` in seconds since 1970."""

    s: Literal["ok"]
    t: list[int]
    o: list[float]
    h: list[float]
    l: list[float]  # noqa: E741  the contract's name
    c: list[float]
    v: list[float]


class UdfNoBarsOut(BaseModel):
    """There are none; `nextTime` is where the last ones before lie, left out when there are none."""

    s: Literal["no_data"]
    nextTime: int = 0  # noqa: N815  the contract's name


class UdfProblem(Problem):
    """An error as the datafeed's contract wants it, and as every other call says it."""

    s: Literal["error"]
    errmsg: str


class WidgetOut(BaseModel):
    """A widget of OpenBB Workspace."""

    name: str
    description: str
    category: str
    type: str
    endpoint: str
    gridData: dict[str, int]  # noqa: N815  OpenBB's name
    data: dict[str, Any] = {}
