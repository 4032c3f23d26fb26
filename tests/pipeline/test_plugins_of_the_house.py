"""The plug-ins that come with the house: TA-Lib's own numbers, missing values, and no look ahead, each proved on data."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from talib import abstract

from core.candles import CANDLE_SCHEMA
from core.clock import HOUR_US
from core.interval import Interval
from pipeline.cleaners import OhlcSanity, Outliers
from pipeline.definition import read_definition
from pipeline.engine import Engine, records
from pipeline.filters import Session, Spread, TimeframeFilter, Volatility, Volume
from pipeline.frozen import FrozenInput, RowDigests, chapter_of, cut
from pipeline.indicators import TaLib
from pipeline.stages import Signal
from pipeline.talib_call import FUNCTIONS, call, default_inputs
from tests.pipeline.conftest import START, context, definition, market

REAL = Path(__file__).parents[2] / "sandbox" / "data" / "coinbase_BTCUSD_1m.parquet"


@pytest.fixture(scope="module")
def real() -> pl.DataFrame:
    """2,000 real one-minute candles of the bundled data."""
    frame = pl.read_parquet(REAL).sort("ts").head(2_000)
    return frame.select(
        pl.col("ts").cast(CANDLE_SCHEMA["ts"]), *(pl.col(name).cast(pl.Float64) for name in ("open", "high", "low", "close", "volume")),
        spread=pl.lit(None, pl.Float64))


def inputs_of(function: str) -> tuple[str, ...]:
    """Return columns for every function, also for those that name none."""
    return tuple(name or "close" for name in default_inputs(function)) if function != "MAVP" else ("close", "volume")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_indicators_equal_talibs_on_real_data(function, real):
    """Every function of TA-Lib by its name gives TA-Lib's own bits, and null where TA-Lib has no value."""
    inputs = inputs_of(function)
    outputs = call(function, real, inputs, {})
    direct = getattr(talib, function)(*(real[name].to_numpy() for name in inputs))
    before = abstract.Function(function).lookback
    for mine, theirs in zip(outputs, direct if isinstance(direct, (tuple, list)) else (direct,), strict=True):
        assert np.array_equal(mine.fill_null(np.nan).to_numpy()[before:], theirs.astype(np.float64)[before:], equal_nan=True)
        assert mine.head(before).null_count() == before
        assert not mine.is_nan().any()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_indicators_do_not_look_ahead(function, real):
    """What a function gives for the first rows is the same bits whether later rows are there or not."""
    inputs = inputs_of(function)
    whole = call(function, real.head(600), inputs, {})
    for end in (150, 401):
        for mine, theirs in zip(call(function, real.head(end), inputs, {}), whole, strict=True):
            assert mine.equals(theirs.head(end))


def test_missing_inputs_are_left_out_of_the_call_and_null_in_its_answer(real):
    """A hole in an input (an indicator that starts later, a spread that is not there) spoils nothing after it."""
    holed = real.head(200).with_columns(pl.when(pl.int_range(pl.len()).is_in([0, 1, 50, 51, 120])).then(None).otherwise(pl.col("close")).alias("close"))
    (mine,) = call("EMA", holed, ("close",), {"timeperiod": 10})
    kept = holed.filter(pl.col("close").is_not_null())
    theirs = talib.EMA(kept["close"].to_numpy(), timeperiod=10)
    assert np.array_equal(mine.filter(holed["close"].is_not_null()).fill_null(np.nan).to_numpy(), theirs, equal_nan=True)
    assert mine.filter(holed["close"].is_null()).null_count() == 5
    (nothing,) = call("EMA", holed.with_columns(close=pl.lit(None, pl.Float64)), ("close",), {"timeperiod": 10})
    assert nothing.null_count() == 200


def test_an_indicator_can_work_on_another_ones_column(real):
    """RSI of an EMA, and Bollinger Bands with their three columns, by the names that the definition gives."""
    frame = real.head(300)
    ema = TaLib(TaLib.Parameters(function="EMA", options={"timeperiod": 5})).bind("base").calculate(frame, context())
    rsi = TaLib(TaLib.Parameters(function="RSI", inputs=("base",))).bind("rsi").calculate(frame.hstack(ema), context())
    assert rsi["rsi"].null_count() == 4 + 14
    bands = TaLib(TaLib.Parameters(function="BBANDS")).bind("bb").calculate(frame, context())
    assert bands.columns == ["bb_upperband", "bb_middleband", "bb_lowerband"]


@pytest.mark.slow
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), first=st.integers(70, 300), length=st.integers(1, 60), spike=st.integers(0, 399))
def test_many_candles_at_once_say_what_each_says_alone(seed, first, length, spike):
    """For any candles and any range a scan gives the same signals, values and digests as candle by candle runs."""
    candles = market(400, seed=seed)
    candles = candles.with_columns(high=pl.when(pl.int_range(pl.len()) == spike).then(pl.col("high") * 3).otherwise(pl.col("high")))
    engine = Engine(read_definition(definition(
        filters=[
            {"plugin": "session", "parameters": {"start": "22:00", "end": "15:00", "timezone": "Europe/London"}},
            {"plugin": "spread", "parameters": {"max": 0.05}}, {"plugin": "volume", "parameters": {"min_ratio": 0.1}}],
        signals=[{"plugin": "crossover", "parameters": {"fast": "fast", "slow": "slow"}}, {"plugin": "breakout", "parameters": {"window": 10}}])))
    times = candles["ts"].dt.epoch("us").to_list()
    for ts in {times[first], times[first + length]}:
        window = chapter_of(context().grid, ts, 256)
        frame = cut(candles, window, 60)
        asked = Interval(max(window.start_us, times[first]), min(window.end_us, times[first + length] + 1))
        scan = engine.scan(frame, asked, context())
        alone = engine.scan(frame, asked, context(), singly=True)
        lines = [[record.as_line() for record in records(part.signals, engine.definition, context())] for part in (scan, alone)]
        assert lines[0] == lines[1]
        outcome = engine.run(FrozenInput(cut(candles, window, 60)).until(ts), ts, context(), 0)
        mine = [outcome.signal.as_line()] if outcome.signal else []
        assert mine == [record.as_line() for record in records(scan.signals, engine.definition, context()) if record.ts_us == ts]


@given(rows=st.lists(st.integers(0, 49), min_size=1, unique=True))
def test_digests_of_prefixes_are_those_of_the_prefixes(rows):
    """Walking over the rows once gives each prefix the digest that it has by itself; one changed bit changes it."""
    candles = market(50)
    walk = RowDigests(candles)
    for row in sorted(rows):
        assert walk.at(row) == FrozenInput(candles.head(row + 1)).digest
    changed = candles.with_columns(volume=pl.when(pl.int_range(pl.len()) == 0).then(1e-9).otherwise(pl.col("volume")))
    assert FrozenInput(changed).digest != FrozenInput(candles).digest


def test_outliers_go_and_new_levels_stay():
    """A tick that never traded is left out; a price that stays at its new level is kept after `confirm` candles."""
    calm = market(200)
    spiked = calm.with_columns(high=pl.when(pl.int_range(pl.len()) == 150).then(pl.col("high") * 2).otherwise(pl.col("high")))
    cleaner = Outliers(Outliers.Parameters(window=60, confirm=3))
    assert cleaner.clean(calm, context()).equals(calm)
    kept = cleaner.clean(spiked, context())
    assert len(kept) == 199
    assert kept["ts"].equals(calm["ts"].filter(pl.int_range(200, eager=True) != 150))
    stepped = calm.with_columns(pl.when(pl.int_range(pl.len()) >= 150).then(pl.col(name) * 2).otherwise(pl.col(name)) for name in ("open", "high", "low", "close"))
    assert len(cleaner.clean(stepped, context())) == 200 - 3


def test_ohlc_sanity_leaves_out_what_contradicts_itself():
    """A high below the close, a negative volume, NaN, and a range that is too great."""
    frame = market(6).with_columns(
        high=pl.Series([200.0, 1.0, 200.0, 200.0, 200.0, 101.5]), low=pl.lit(50.0), volume=pl.Series([1.0, 1.0, -1.0, 1.0, 0.0, 1.0]),
        close=pl.Series([100.0, 100.0, 100.0, float("nan"), 100.0, 100.0]), open=pl.lit(100.0))
    assert len(OhlcSanity(OhlcSanity.Parameters()).clean(frame, context())) == 3
    assert len(OhlcSanity(OhlcSanity.Parameters(keep_zero_volume=False)).clean(frame, context())) == 2
    assert len(OhlcSanity(OhlcSanity.Parameters(max_range=0.6)).clean(frame, context())) == 1


def test_sessions_follow_the_wall_clock_over_midnight_and_summer_time():
    """22:00 to 06:00 in London on Sundays: begins an hour earlier in UTC in summer, ends on Monday morning."""
    session = Session(Session.Parameters(start="22:00", end="06:00", timezone="Europe/London", days=("sun",)))
    winter, summer = market(168, START + 24 * HOUR_US), market(168, START + (26 * 7 + 1) * 24 * HOUR_US)
    for frame, first in ((winter, 22), (summer, 21)):
        passed = frame.filter(session.filter(frame, context()))["ts"]
        assert passed.dt.hour().to_list() == [(first + n) % 24 for n in range(8)]
        assert passed.dt.weekday().to_list()[0] == 7
    assert Session(Session.Parameters()).filter(winter, context()).all()


def test_filters_pass_what_they_say():
    """Spread, volatility, timeframe and volume: by hand on a few rows; what is missing passes only where it may."""
    frame = market(60)
    narrow = Spread(Spread.Parameters(max=0.05)).filter(frame, context())
    assert narrow.to_list() == frame["spread"].is_not_null().to_list()
    assert Spread(Spread.Parameters(max=0.05, missing="pass")).filter(frame, context()).all()
    assert not Spread(Spread.Parameters(max_share=1e-6)).filter(frame, context()).any()
    wild = Volatility(Volatility.Parameters(window=14, max=10)).filter(frame, context())
    assert wild.to_list() == [False] * 14 + [True] * 46
    assert TimeframeFilter(TimeframeFilter.Parameters(allowed=("1h",))).filter(frame, context()).all()
    assert not TimeframeFilter(TimeframeFilter.Parameters(allowed=("1m", "1d"))).filter(frame, context()).any()
    ratio = Volume(Volume.Parameters(min_ratio=1.0, window=5)).filter(frame, context())
    volume = frame["volume"].to_numpy()
    assert ratio.to_list() == [at >= 5 and volume[at] >= volume[at - 5:at].mean() for at in range(60)]


def test_confidence_is_the_weighted_mean_and_mirrors_for_sells():
    """By hand: two components, one of them the same for both sides; a missing value scores nothing."""
    engine = Engine(read_definition(definition()))
    (weighted,) = [item.plugin for item in engine.stages["confidence"]]
    frame = market(3).with_columns(rsi=pl.Series([60.0, None, 20.0]), volume=pl.lit(5.0))
    assert weighted.evaluate(Signal("buy"), frame.head(1), context()) == pytest.approx((75.0 + 0.5 * 50) / 1.5)
    assert weighted.evaluate(Signal("sell"), frame.head(1), context()) == pytest.approx((25.0 + 0.5 * 50) / 1.5)
    assert weighted.evaluate(Signal("sell"), frame.head(2), context()) == pytest.approx(25.0 / 1.5)
    assert weighted.evaluate(Signal("sell"), frame, context()) == pytest.approx((100.0 + 25) / 1.5)


def test_windows_of_a_chapter_share_their_start():
    """All candles of a chapter are judged from one start, `lookback` candles before it, whatever the gaps."""
    grid = context().grid
    candles = market(1_000).filter(pl.int_range(pl.len()) % 9 != 4)
    for ts in candles["ts"].dt.epoch("us").to_list()[300::97]:
        chapter = chapter_of(grid, ts, 256)
        assert chapter.start_us <= ts < chapter.end_us
        window = cut(candles, chapter, 60)
        assert (window["ts"].dt.epoch("us") < chapter.start_us).sum() == 60
