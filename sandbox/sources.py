"""Reading a folder of Parquet candles: `<VENUE>_<SYMBOL>_<timeframe>[_label].parquet` into books of candles."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from core.clock import DAY_US, HOUR_US, MINUTE_US
from core.errors import InputError
from core.server_clock import ServerClock
from core.unreadable import UNREADABLE, first_line
from sandbox.broker_time import read_clocks, to_utc
from sandbox.market import ROW, SCHEMA, Book, Mode, Source, WallClock

_LOG = logging.getLogger(__name__)
BUNDLED: Final = Path(__file__).parent / "data"
EXCHANGES: Final = ("binance", "kraken", "coinbase")
BROKERS: Final = ("mt5", "mt4", "oanda", "fxcm")  # in case of two files for one symbol the first keeps its name
BROKER: Final = "broker"
_UNIT_US: Final = {"m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_NAME: Final = re.compile(
    r"(?P<venue>[A-Za-z0-9]+)_(?P<symbol>[A-Za-z0-9.%\-]{2,40})_(?P<frame>\d{1,2}[mhd]|[MHD]\d{1,2})(?:_(?P<label>\w+))?")
_TRADES: Final = re.compile(r"(?P<venue>[a-z0-9]+)_spot_(?P<symbol>[A-Z0-9]{2,40})_trades_ws")
_ALLOWED: Final = "<venue>_<SYMBOL>_<timeframe>.parquet with minutes, hours or days, e.g. mt5_EURUSD_M1.parquet or binance_BTCUSDT_1h.parquet"


@dataclass(slots=True)
class Shelf:
    """Everything that is served: books by (venue, symbol), trades by the same, and the files that were left out."""

    books: dict[tuple[str, str], Book] = field(default_factory=dict)
    trades: dict[tuple[str, str], pl.DataFrame] = field(default_factory=dict)
    problems: list[InputError] = field(default_factory=list)

    def of(self, venue: str) -> dict[str, Book]:
        """Return the books of one venue by symbol; Kraken plays Coinbase's markets when it has none of its own."""
        found = {symbol: book for (name, symbol), book in self.books.items() if name == venue}
        return self.of("coinbase") if venue == "kraken" and not found else found

    def end_us(self) -> int:
        """Return when the last of all candles closes."""
        return max(source.end_us for book in self.books.values() for source in book.sources)


def load(data: Path | None, mode: Mode, server: WallClock) -> Shelf:
    """Read every file of a folder (the bundled one for None).

    Raises:
        InputError: no folder, or not one usable file in it. A single bad file is logged and left out.
    """
    folder = BUNDLED if data is None else data
    if not folder.is_dir():
        raise InputError("sandbox data", str(folder), "a folder that exists", "check the path")
    shelf = Shelf()
    sources: list[Source] = []
    clocks = read_clocks(folder)
    for path in sorted(folder.glob("*.parquet")):
        try:
            _take(path, shelf, sources, clocks.get(path.stem, server))
        except InputError as problem:
            shelf.problems.append(problem)
            _LOG.warning("left out: %s", problem)
    for (venue, symbol), found in _arrange(sources).items():
        shelf.books[venue, symbol] = Book(found, mode)
    if not shelf.books:
        raise InputError("sandbox data", str(folder), f"at least one file named {_ALLOWED}",
                         str(shelf.problems[0]) if shelf.problems else "add one")
    return shelf


def _take(path: Path, shelf: Shelf, sources: list[Source], clock: ServerClock | WallClock) -> None:
    if (trades := _TRADES.fullmatch(path.stem)) is not None:
        shelf.trades[trades["venue"], trades["symbol"]] = _read(path, ("ts", "id", "price", "qty", "buyer_maker"))
        return
    named = _NAME.fullmatch(path.stem)
    if named is None:
        raise InputError(f"file {path.name}", path.stem, _ALLOWED, "rename it")
    sources.append(read_source(path, named, clock, shelf.problems))


def read_source(path: Path, named: re.Match[str], clock: ServerClock | WallClock, problems: list[InputError]) -> Source:
    """Read one file of candles, its times turned to UTC by `clock` if it is in broker time, its prices as they stand.

    A row that comes twice counts once; rows that are no candles are left out and told in `problems`.

    Raises:
        InputError: it cannot be read, lacks a column, or has no row that is a candle.
    """
    raw = _read(path, ("ts", "open", "high", "low", "close", "volume"))
    venue = named["venue"].lower()
    is_broker = venue not in EXCHANGES
    symbol = named["symbol"] if is_broker else named["symbol"].replace("%2F", "").replace("-", "").upper()
    frame = raw.select(
        pl.col("ts").cast(pl.Datetime("us", "UTC")).cast(pl.Int64).alias("us"),
        *(pl.col(name).cast(pl.Float64) for name in ROW[1:6]), _spread(raw),
    )
    if "brokertime" in (named["label"] or ""):
        frame = to_utc(frame, clock)
    distinct = frame.unique().sort("us")
    frame = distinct.filter(_is_candle())
    if frame.height < distinct.height:
        problem = InputError(f"{distinct.height - frame.height} of {distinct.height} rows of {path.name}",
                             "a time twice with two values, or a price that is none", "one value a time, finite prices above 0",
                             "clean the file" if frame.is_empty() else "the other rows are served")
        if frame.is_empty():
            raise problem
        problems.append(problem)
    digits = _digits(frame)
    frame = frame.with_columns(
        pl.col("spread").round(digits),
        # Quote feeds count no volume; MetaTrader always shows one: a tick for every point of the candle's range.
        volume=pl.coalesce("volume", ((pl.col("high") - pl.col("low")) * 10**digits).round(0) + 1))
    return Source(venue, symbol, _length_us(named["frame"], path), frame.select(ROW).cast(SCHEMA), is_broker, digits)


def _is_candle() -> pl.Expr:
    prices = [pl.col(name) for name in ("open", "high", "low", "close")]
    sound = pl.all_horizontal(price.is_finite() & (price > 0) for price in prices).fill_null(value=False)
    return sound & pl.col("us").is_unique()


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except UNREADABLE as error:
        raise InputError(f"file {path.name}", first_line(error)[:120], "a readable Parquet file", "export it again") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"file {path.name}", frame.columns, columns, f"add {', '.join(missing)}")
    kind = frame.schema["ts"]
    if not isinstance(kind, pl.Datetime):
        raise InputError(f"file {path.name}", f"ts as {kind}", "ts as a timestamp, UTC when it has no zone", "convert the column")
    numbers = [name for name in columns if name not in {"ts", "buyer_maker"}]
    bad = [name for name in numbers if not (frame.schema[name].is_numeric() or frame.schema[name] == pl.Null)]
    if bad or frame.is_empty() or frame["ts"].has_nulls():
        raise InputError(f"file {path.name}", f"{frame.height} rows, not numbers: {bad}", "rows with a ts and numbers",
                         "clean the file")
    ts = pl.col("ts")
    return frame.with_columns(ts.dt.replace_time_zone("UTC") if kind.time_zone is None else ts.dt.convert_time_zone("UTC"))


def _spread(raw: pl.DataFrame) -> pl.Expr:
    if "spread" in raw.columns:
        return pl.col("spread").cast(pl.Float64)
    if "ask_close" in raw.columns:
        spread = (pl.col("ask_close") - pl.col("close")).cast(pl.Float64)
        return spread.clip(lower_bound=0).alias("spread")  # MetaTrader shows no crossed quotes
    return pl.lit(None, dtype=pl.Float64).alias("spread")


def _digits(frame: pl.DataFrame) -> int:
    """Return the fewest decimals that hold every price of the file."""
    for digits in range(9):
        price = pl.col("open", "high", "low", "close")
        fits = ((price.round(digits) - price).abs() <= price.abs() * 1e-12 + 1e-10).all()
        if all(frame.select(fits).row(0)):
            return digits
    return 8


def _length_us(text: str, path: Path) -> int:
    unit = text[-1] if text[-1].isalpha() else text[0].lower()
    number = int(text.strip("mhdMHD"))
    length = number * _UNIT_US[unit]
    if not 0 < length <= DAY_US or DAY_US % length:
        raise InputError(f"file {path.name}", text, "a length that divides a day: 1m, 5m, 1h, 4h, 1d, ...", "rename it")
    return length


def _arrange(sources: list[Source]) -> dict[tuple[str, str], list[Source]]:
    """Group files into books: all but the exchanges' are one broker's; a second feed of a symbol gets the feed's name as a suffix."""
    books: dict[tuple[str, str], dict[int, Source]] = {}
    rank = {name: place for place, name in enumerate(BROKERS)}
    for source in sorted(sources, key=lambda source: rank.get(source.venue, len(rank))):
        venue = BROKER if source.is_fx else source.venue
        key = (venue, source.symbol)
        held = books.get(key, {})
        if any(other.venue != source.venue for other in held.values()):
            key = (venue, f"{source.symbol}.{source.venue}")
        book = books.setdefault(key, {})
        same = book.get(source.length_us)
        book[source.length_us] = source if same is None else _join(same, source)
    return {key: list(book.values()) for key, book in books.items()}


def _join(one: Source, other: Source) -> Source:
    """Return two files of one symbol and length as one source."""
    frame = pl.concat([one.frame, other.frame]).unique("us", keep="first").sort("us")
    return Source(one.venue, one.symbol, one.length_us, frame, one.is_fx, max(one.digits, other.digits))
