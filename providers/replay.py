"""Candles from a folder of Parquet files, served by the protocol of live providers: for tests, demos and what-ifs.

Config: `folder`; `prefix` when files of several sources name one symbol; `market_type` (`fx` or `crypto`, default fx);
`server_clock` (see providers.mtapi.clock) for files on a broker's wall clock.

Files are called `<source>_<symbol>_<timeframe>[_<part>...].parquet` (`oanda_EURUSD_H1.parquet`, `coinbase_BTCUSD_1m.parquet`);
a part `brokertime` says that `ts` is the broker's wall clock. Columns: `ts open high low close volume`, `spread` if known.
What opens after the connection's clock, or closes after it, does not exist yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from core.candles import CANDLE_SCHEMA, TS, VALUES, empty_candles
from core.clock import to_datetime
from core.errors import BadPayloadError, InputError, SessionLostError, UnknownSymbolError, UnsupportedError
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import NAMES, Grid, Timeframe
from core.unreadable import UNREADABLE
from providers.base import AccountInfo, CandlePage, Capabilities, ConnectionSpec, RateBudget, SymbolInfo, TickPage
from providers.mtapi.candles import to_utc
from providers.mtapi.clock import from_config
from providers.paging import pages

CAPABILITIES: Final = Capabilities(
    provider="replay",
    market_type="fx",
    timeframes=NAMES,
    page_candles={"*": 10_000},
    concurrent_requests=8,
    requests_per_second=1000.0,
    has_spread=True,
    sparse=True,
)
_TERMINAL: Final = {
    "M1": "1m", "M5": "5m", "M15": "15m", "M30": "30m", "H1": "1h", "H4": "4h", "D1": "1d", "W1": "1w", "MN1": "1mo"}
_NEEDED: Final = ("ts", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """One file, as its name tells it."""

    path: Path
    source: str
    symbol: str
    timeframe: str
    is_broker_time: bool


def open_replay(spec: ConnectionSpec, budget: RateBudget) -> ReplayProvider:
    """Return the provider of a folder, not yet connected; InputError when the config names none."""
    return ReplayProvider(spec, budget)


class ReplayProvider:
    """Serves a folder of candle files. Keeps MarketDataProvider."""

    def __init__(self, spec: ConnectionSpec, budget: RateBudget) -> None:
        folder = spec.config.get("folder")
        if not isinstance(folder, str) or not folder:
            raise InputError("replay config", sorted(spec.config), "folder: a path", 'e.g. {"folder": "data"}')
        market = spec.config.get("market_type", "fx")
        if market not in {"fx", "crypto"}:
            raise InputError("replay config market_type", market, "fx, crypto")
        self.spec = spec
        self.capabilities = replace(CAPABILITIES, market_type="crypto" if market == "crypto" else "fx")
        self._budget = budget
        self._folder = Path(folder)
        self._clock = from_config(spec.config)
        self._files: dict[tuple[str, str], list[ReplayFile]] = {}
        self._frames: dict[tuple[str, str], pl.DataFrame] = {}
        self._answers = 0

    @property
    def is_connected(self) -> bool:
        """Whether the folder has been read."""
        return bool(self._files)

    @property
    def server_clock(self) -> ServerClock | None:
        """The wall clock in the config; None means UTC."""
        return self._clock

    async def connect(self) -> None:
        """Read the folder's file names. Idempotent.

        Raises:
            InputError: no folder, no candle files in it, or two sources for one symbol.
        """
        if not self._files:
            self._files = await asyncio.to_thread(self._index)
            found = {timeframe for _, timeframe in self._files}
            self.capabilities = replace(self.capabilities, timeframes=tuple(name for name in NAMES if name in found))

    async def disconnect(self) -> None:
        """Forget the files."""
        self._files, self._frames = {}, {}

    async def server_time_us(self) -> int:
        """Return the connection's clock."""
        return self.spec.clock.now_us()

    async def symbols(self) -> list[SymbolInfo]:
        """Return the symbols of the files, sorted."""
        return [SymbolInfo(name) for name in sorted({symbol for symbol, _ in self._index_or_lost()})]

    async def account_info(self) -> AccountInfo:
        """Refuse: files have no account."""
        raise UnsupportedError("replay has no account; received account_info; allowed: candles and symbols")

    async def fetch_candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        """Return the candles that open in `interval` and are closed by the connection's clock, one page at most."""
        files = self._index_or_lost()
        if symbol not in {name for name, _ in files}:
            raise UnknownSymbolError(f"replay: received {symbol!r}; allowed: {', '.join(sorted({name for name, _ in files}))}")
        if (symbol, timeframe.name) not in files:
            held = ", ".join(name for other, name in files if other == symbol)
            raise UnsupportedError(f"replay: received {symbol} {timeframe}; allowed: {symbol} {held}")
        async with self._budget.spend():
            frame = await asyncio.to_thread(self._frame, symbol, timeframe.name)
        grid, now_us = Grid(timeframe, self._clock), self.spec.clock.now_us()
        asked = next(pages(interval, grid, self.capabilities.page_limit(timeframe)), None) or grid.align(interval)
        end = min(asked.end, max(asked.start, grid.floor(now_us)))
        page = frame.filter(pl.col("ts").is_between(to_datetime(asked.start), to_datetime(end), closed="left"))
        self._answers += 1
        return CandlePage(page, asked, now_us, f"{self.spec.slug}-{now_us}-{self._answers}")

    async def fetch_ticks(self, symbol: str, interval: Interval) -> TickPage:
        """Refuse: the files hold candles."""
        raise UnsupportedError(f"replay has no ticks; received {symbol} {interval}")

    def _index_or_lost(self) -> dict[tuple[str, str], list[ReplayFile]]:
        if not self._files:
            raise SessionLostError("replay: not connected; connect first")
        return self._files

    def _index(self) -> dict[tuple[str, str], list[ReplayFile]]:
        prefix = self.spec.config.get("prefix")
        index: dict[tuple[str, str], list[ReplayFile]] = {}
        for file in _files(self._folder):
            if prefix in {None, file.source}:
                index.setdefault((file.symbol, file.timeframe), []).append(file)
        if not index:
            raise InputError("replay folder", str(self._folder), "a folder with <source>_<symbol>_<timeframe>.parquet files")
        for (symbol, timeframe), files in index.items():
            sources = sorted({file.source for file in files})
            if len(sources) > 1:
                raise InputError("replay folder", f"{symbol} {timeframe} of {', '.join(sources)}", "one source for a symbol",
                                 "choose one with the config's prefix")
        return index

    def _frame(self, symbol: str, timeframe: str) -> pl.DataFrame:
        key = (symbol, timeframe)
        if key not in self._frames:
            parts = [_read(file, self._clock) for file in self._files[key]]
            self._frames[key] = pl.concat([empty_candles(), *parts]).sort("ts")
        return self._frames[key]


def _files(folder: Path) -> Iterator[ReplayFile]:
    for path in sorted(folder.glob("*.parquet")):
        source, _, rest = path.stem.partition("_")
        symbol, _, rest = rest.partition("_")
        name, *parts = rest.split("_")
        timeframe = _TERMINAL.get(name, name)
        if source and symbol and timeframe in NAMES:
            yield ReplayFile(path, source, symbol, timeframe, "brokertime" in parts)


def _read(file: ReplayFile, clock: ServerClock | None) -> pl.DataFrame:
    if file.is_broker_time and clock is None:
        raise InputError("replay config", "no server_clock", "server_clock for files on a broker's wall clock",
                         f'{file.path.name} needs e.g. {{"offset_minutes": 120, "dst": "eu"}}')
    try:
        frame = pl.read_parquet(file.path)
    except UNREADABLE as error:
        raise BadPayloadError(f"replay: {file.path.name} cannot be read as Parquet ({type(error).__name__})") from None
    if not set(_NEEDED) <= set(frame.columns):
        raise BadPayloadError(f"replay: {file.path.name} has columns {', '.join(frame.columns)}; allowed: {', '.join(_NEEDED)}")
    if "spread" not in frame.columns:
        frame = frame.with_columns(spread=pl.lit(None, dtype=pl.Float64))
    if frame["volume"].is_null().all():  # a source without volumes: 0 is what brokers write there
        frame = frame.with_columns(volume=pl.lit(0.0))
    if file.is_broker_time and clock is not None:
        return to_utc(frame.select(pl.col("ts").dt.epoch("us").alias("local_us"), *VALUES), clock)
    return frame.select(list(CANDLE_SCHEMA)).with_columns(pl.col("ts").cast(TS)).cast(CANDLE_SCHEMA)
