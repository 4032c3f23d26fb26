"""Every difference of candles built from stored ticks to the provider's own, on recorded days of a broker too."""

from pathlib import Path

import polars as pl
import pytest

from core.candles import CANDLE_SCHEMA, TS
from core.clock import DAY_US, MINUTE_US, parse_instant, to_datetime
from core.errors import NotFoundError
from core.interval import Interval
from core.series import Series
from core.ticks import STORED_TICK_SCHEMA, Tick, frame_of
from feed.tick_agreement import compare_ticks
from feed.tick_candles import build
from sandbox.sources import BUNDLED
from storage import open_lake
from storage.head import Batch
from storage.metadata.tables import connections
from storage.series import ensure_series
from storage.ticks import losses

QUOTES = Path(__file__).with_name("data") / "oanda_EURUSD_ticks_201405a.parquet"
T0 = parse_instant("2024-03-01T10:00Z")
SERIES = Series.parse("k", "A/B", "1m")


@pytest.fixture
def lake(tmp_path):
    """A lake with a connection `k`."""
    with open_lake(tmp_path / "home") as lake:
        connected(lake)
        yield lake


def connected(lake):
    """Add connection `k`."""
    with lake.metadata.write() as tx:
        tx.execute(connections.insert().values(
            slug="k", name="k", type="crypto", provider="replay", config={}, settings={}, status="active", is_active=True,
            is_admin_owned=False, created_at_us=0, updated_at_us=0))


def declared(lake, series):
    """The id of a series of connection `k`."""
    with lake.metadata.write() as tx:
        return ensure_series(tx, tx.execute(connections.select()).one().id, series.symbol, series.timeframe).id


def keep(lake, series, ticks, candles, source="rest"):
    """Store ticks (a frame of STORED_TICK_SCHEMA) and candles of a series."""
    row = declared(lake, series)
    lake.tick_store.write(series.connection, series.symbol, ticks)
    if len(candles):
        lake.write([Batch(row, candles, source)], run_id="r")


def trades(count, step=10_000_000, start=T0):
    return [Tick("A/B", start + number * step, start, None, None, 10.0 + number % 7, 0.5, "buy", str(number)) for number in range(count)]


def stored(ticks):
    return frame_of(ticks, "backfill", "r").drop("symbol").cast(STORED_TICK_SCHEMA)


def changed(frame, place, **values):
    """A frame with one row changed."""
    at = pl.int_range(pl.len()) == place
    return frame.with_columns(**{name: pl.when(at).then(pl.lit(value)).otherwise(pl.col(name)) for name, value in values.items()})


def test_each_difference_is_listed_and_lost_ticks_explain_theirs(lake):
    """A changed price, a changed volume, a candle without ticks, ticks without a candle: one line each; a booked range explains its own."""
    ticks = trades(60)  # ten minutes
    true = build(ticks, _grid())
    candles = changed(changed(true, 2, close=99.0, high=99.0), 4, volume=1234.5).filter(pl.col("ts") != to_datetime(T0 + 6 * MINUTE_US))
    keep(lake, SERIES, stored([tick for tick in ticks if tick.ts_us // MINUTE_US != T0 // MINUTE_US + 8]), candles)
    with lake.metadata.write() as tx:
        key = losses.find_tick_series(tx, "k", "A/B")
        losses.book_losses(tx, key, [(Interval(T0 + 8 * MINUTE_US, T0 + 9 * MINUTE_US), "disconnected", {})], T0)
    found = compare_ticks(lake, SERIES, T0, T0 + 10 * MINUTE_US)
    at = [(item.ts_us - T0) // MINUTE_US for item in found.differences]
    assert [(minute, item.field, item.of_ticks, item.stored, item.cause) for minute, item in zip(at, found.differences, strict=True)] == [
        (2, "high", true["high"][2], 99.0, "unexplained"), (2, "close", true["close"][2], 99.0, "unexplained"),
        (4, "volume", 3.0, 1234.5, "unexplained"), (6, "candle", true["close"][6], None, "unexplained"),
        (8, "candle", None, true["close"][8], "lost_ticks")]
    assert (found.ticks, found.compared, found.equal, found.unexplained) == (54, 10, 6, 4)


def _grid():
    from core.timeframe import Grid

    return Grid(SERIES.timeframe)


def test_only_whole_candles_and_the_providers_own_are_compared(lake):
    """Without a range the candles at both ends, cut by the ticks' begin and end, do not count; nor does what the stream itself made."""
    ticks = trades(60, start=T0 + 30_000_000)
    true = build(ticks, _grid())
    keep(lake, SERIES, stored(ticks), changed(true, 0, close=99.0, high=99.0))
    found = compare_ticks(lake, SERIES)
    assert (found.interval, found.differences) == (Interval(T0 + MINUTE_US, T0 + 10 * MINUTE_US), ())
    assert (found.compared, found.equal, found.of_stream) == (9, 9, 0)
    other = declared(lake, Series.parse("k", "A/B", "5m"))
    five = build(ticks, _five())
    lake.write([Batch(other, changed(five, 1, close=99.0, high=99.0), "stream")], run_id="r")
    assert (found := compare_ticks(lake, Series.parse("k", "A/B", "5m"), T0, T0 + 10 * MINUTE_US)).differences == ()
    assert (found.of_stream, found.compared) == (2, 0)


def _five():
    from core.timeframe import Grid, Timeframe

    return Grid(Timeframe.parse("5m"))


@pytest.mark.slow
def test_a_week_of_a_brokers_quotes_makes_each_of_its_minutes(lake):
    """OANDA's 273,925 quotes of eight days in May 2014 give every one of its 8,306 minutes, each price to the last digit: no difference."""
    points = pl.read_parquet(QUOTES)
    bids = points["bid_points"].to_numpy()
    ticks = pl.DataFrame({"ts": points["ts_ms"].cast(pl.Datetime("ms", "UTC")).cast(TS), "kind": ["quote"] * len(bids),
                          "bid": bids / 100_000, "ask": (bids + points["spread_points"].to_numpy()) / 100_000}).with_columns(
        price=pl.lit(None), size=pl.lit(None), side=pl.lit(None), trade_id=pl.lit(None), received_at=pl.col("ts"),
        source=pl.lit("backfill"), run_id=pl.lit("r")).select(list(STORED_TICK_SCHEMA)).cast(STORED_TICK_SCHEMA)
    own = pl.read_parquet(BUNDLED / "oanda_EURUSD_M1_201405.parquet").with_columns(
        pl.col("ts").cast(TS), volume=pl.lit(0.0), spread=pl.lit(None, pl.Float64))  # the record has no volumes
    begin = parse_instant("2014-05-01")
    own = own.filter(pl.col("ts") < to_datetime(begin + 8 * DAY_US)).select(list(CANDLE_SCHEMA)).cast(CANDLE_SCHEMA)
    series = Series.parse("k", "EURUSD", "1m")
    keep(lake, series, ticks, own)
    found = compare_ticks(lake, series, begin, begin + 8 * DAY_US)
    assert found.differences == ()
    assert (found.ticks, found.compared, found.equal) == (273_925 - 4, 8_306, 8_306)  # four are repeats


def test_without_ticks_or_series_it_says_so(lake):
    """A symbol of which no tick was kept, or a series that is none, is one line."""
    with pytest.raises(NotFoundError):
        compare_ticks(lake, SERIES)
    declared(lake, SERIES)
    with pytest.raises(NotFoundError, match="no ticks"):
        compare_ticks(lake, SERIES)
