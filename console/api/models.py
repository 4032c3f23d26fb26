"""What the API answers with, for its documentation."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Every error: one line, and what programs may rely on."""

    error: str = Field(description="One line: what was received, what is allowed, what to do.")
    id: str = Field(description="The kind of error; docs/errors.md lists them.", examples=["E-INPUT"])
    cause: str = Field(description="What is wrong.")
    fix: str = Field(description="What to do.")
    docs: str = Field(description="Where the console explains it.")


ABSENT: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem, "description": "Names what is not there, or not yours."}}
BUSY: Final[dict[int | str, dict[str, Any]]] = {429: {"model": Problem, "description": "Too many ask at once; try again soon."}}


class ConnectionOut(BaseModel):
    """A connection with its health; of its credentials only the names of the stored fields."""

    slug: str
    name: str
    type: str
    provider: str
    base_url: str | None
    symbols: list[str]
    timeframes: list[str]
    status: str
    status_reason: str | None
    is_active: bool
    owner: str | None
    is_admin_owned: bool
    last_error: str | None
    credential_fields: list[str]
    settings: dict[str, Any]
    last_connected: str | None
    health: str
    health_reason: str
    last_candle: str | None
    lag_seconds: float | None
    gaps: int
    account: Literal["demo", "real", "unknown"] | None = Field(
        description="What the last test was told of the account; null without credentials. Take an unknown one for real money.")


class StepOut(BaseModel):
    """One step of a test."""

    name: str
    ok: bool
    ms: int
    message: str


class TestOut(BaseModel):
    """How a test of a connection went."""

    type: str
    message: str
    steps: list[StepOut]


class DeletedOut(BaseModel):
    """What went with a connection."""

    slug: str
    credentials: int
    series: int
    candles: int


class LogOut(BaseModel):
    """One action on a connection; `run_id` names the run at Prefect that it was about."""

    id: int
    at: str
    action: str
    status: str
    message: str
    run_id: str | None


class StreamOut(BaseModel):
    """How a connection's last stream fares: its state (`killed` where it fell silent), pace and counts."""

    state: str
    heartbeat: str
    last_tick: str | None
    lag_seconds: float | None
    ticks_per_second: float | None
    ticks: int
    candles: int
    contradicted: int
    reconnects: int
    losses: int
    silent: int
    ticks_per_second_last_minute: float | None
    clock_skew_seconds: float | None
    receipt_to_subscriber_p99_ms: float | None
    receipt_to_disk_p99_ms: float | None


class HealthOut(BaseModel):
    """One connection's state, as monitoring may see it."""

    connection: str
    status: str
    last_candle: str | None
    lag_seconds: float | None
    gaps: int
    stream: StreamOut | None


class CandleOut(BaseModel):
    """A candle: open time, prices, volume, when it was first known, from which source and run.

    A derived one has no run; it says of how many candles it is made, and how many there should be.
    """

    ts: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    spread: float | None
    known_at: str
    source: str
    run_id: str = ""
    parts: int | None = None
    parts_expected: int | None = None
    is_complete: bool | None = None
    derived_from: str | None = None
    anchor: str | None = None


class CoverageOut(BaseModel):
    """What a series holds of what is expected, counted in candles."""

    connection: str
    symbol: str
    timeframe: str
    first: str | None
    last: str | None
    expected: int
    stored: int
    explained: int
    unexplained: int


class GapOut(BaseModel):
    """A range without candles, its cause and its proof."""

    symbol: str
    timeframe: str
    start: str
    end: str
    cause: str
    attempts: int
    next_try: str | None
    proof: dict[str, Any]


class RevisionOut(BaseModel):
    """What a provider changed: the values before and after."""

    symbol: str
    timeframe: str
    ts: str
    known_at: str
    old: dict[str, Any]
    new: dict[str, Any]


class NotificationOut(BaseModel):
    """Something that people should know of a connection."""

    id: int
    at: str
    severity: str
    title: str
    message: str
    connection: str | None
    acknowledged: str | None = Field(description="When somebody first marked it as seen.")


class RunOut(BaseModel):
    """A run at Prefect; progress in percent, when it tells any."""

    id: str
    name: str
    state: str
    message: str
    progress: float | None = None
    is_final: bool = False


class ResultOut(BaseModel):
    """What a run has published: rows of a table, a text, or a picture as a data URL."""

    title: str
    rows: list[dict[str, Any]]
    text: str
    picture: str


class PipelineRunOut(RunOut):
    """A replay or comparison with what came out."""

    results: list[ResultOut]


class EquityOut(BaseModel):
    """Money made until an instant, in the quote currency."""

    at: str
    equity: float


class CleanupItemOut(BaseModel):
    """What a series would lose."""

    series: str
    rows: int
    whole_files: int
    cut_files: int


class RefusalOut(BaseModel):
    """A series that stays, and why."""

    series: str
    rows: int
    reason: str


class CleanupOut(BaseModel):
    """The plan of a cleanup; without a retention nothing is removed."""

    retention_days: int | None
    rows: int
    before: str | None
    items: list[CleanupItemOut]
    refused: list[RefusalOut]


class ProviderOut(BaseModel):
    """What a provider can do, and which credentials it takes."""

    provider: str
    market_type: str
    timeframes: list[str]
    credentials: list[str]
    optional_credentials: list[str]
    history_candles: int | None
    has_ticks: bool
    has_streams: bool
    shows_symbols_without_login: bool


class SymbolOut(BaseModel):
    """A symbol in the provider's spelling."""

    symbol: str
    description: str
    is_active: bool


class Alive(BaseModel):
    """The console answers."""

    status: str
