"""Rows are read as ccxt's own parser reads them."""

import ccxt.async_support as library
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import BadPayloadError
from providers.exchange.rows import learn, read_rows

numbers = st.floats(1e-8, 1e9, allow_nan=False).map(lambda value: f"{value:.8f}")
stamps = st.integers(1_000_000_000, 4_000_000_000)


def listed(*kinds):
    """Return a strategy of rows with `s` seconds, `m` milliseconds, digits as text when upper case, `n` number text, `f` float."""
    known = {
        "s": stamps, "S": stamps.map(str), "m": stamps.map(lambda s: s * 1000), "M": stamps.map(lambda s: str(s * 1000)),
        "n": numbers, "f": numbers.map(float), "i": st.integers(0, 10**6),
    }
    return st.tuples(*(known[kind] for kind in kinds)).map(list)


def fields(**kinds):
    """Return a strategy of rows that are objects."""
    return st.fixed_dictionaries({name: stamps.map(str) if kind == "S" else numbers for name, kind in kinds.items()})


SHAPES = {
    "binance": listed(*"mnnnnnmninnn"),
    "kraken": listed(*"snnnnnni"),
    "coinbase": fields(start="S", low="n", high="n", open="n", close="n", volume="n"),
    "bybit": listed(*"Mnnnnnn"),
    "okx": listed(*"Mnnnnnnnn"),
    "bitfinex": listed(*"mfffff"),
    "kucoin": listed(*"Snnnnnn"),
    "gate": listed(*"Snnnnnn"),
    "bitget": listed(*"Mnnnnnnn"),
    "mexc": listed(*"mnnnnnmn"),
}
EXCHANGES = {name: getattr(library, name)({"enableRateLimit": False}) for name in SHAPES}
SPOT = {"type": "spot", "spot": True, "inverse": False, "linear": None, "contract": False}
INVERSE = {"type": "swap", "spot": False, "inverse": True, "linear": False, "contract": True, "swap": True}


def assert_same(name, rows, market):
    """Compare our frame with ccxt's rows, value for value."""
    expected = [EXCHANGES[name].parse_ohlcv(row, market) for row in rows]
    frame = read_rows(rows, lambda row: EXCHANGES[name].parse_ohlcv(row, market))
    ours = frame.select(pl.col("ts").dt.epoch("ms"), "open", "high", "low", "close", "volume").rows()
    assert ours == [tuple(row) for row in expected]
    assert frame["spread"].null_count() == len(rows)


@pytest.mark.parametrize("market", [SPOT, INVERSE], ids=["spot", "inverse"])
@pytest.mark.parametrize("name", SHAPES)
def test_rows_equal_ccxts_own(name, market):
    """Whatever numbers an exchange sends, the frame holds what ccxt's parse_ohlcv returns, also for inverse markets."""

    @settings(max_examples=30)  # of 8 exchanges and 2 kinds of markets each
    @given(st.lists(SHAPES[name], min_size=1, max_size=20))
    def check(rows):
        assert_same(name, rows, market)

    check()


@pytest.mark.parametrize("name", SHAPES)
def test_columns_are_learned_for_every_shape(name):
    """The fast path is taken for the ten exchanges measured, so that speed is not lost without notice."""
    stamp = {"kraken": 1_700_000_000, "kucoin": "1700000000", "gate": "1700000000"}.get(name, 1_700_000_000_000)
    row = [stamp, *["1.5"] * 11]
    if name == "coinbase":
        row = {"start": "1700000000", "low": "1", "high": "4", "open": "2", "close": "3", "volume": "5"}
    columns = learn(row, lambda probe: EXCHANGES[name].parse_ohlcv(probe, SPOT))
    assert columns is not None
    assert columns.time_factor == (1000 if name in {"kraken", "kucoin", "gate", "coinbase"} else 1)
    assert len(set(columns.keys)) == 6


@pytest.mark.parametrize("rows", [
    ["<html>"], [None], [[1_700_000_000_000, "1", "2", "1"]], [[1_700_000_000_000, None, "2", "1", "1", "1"] + ["0"] * 6],
    [[1_700_000_000_000, "1", "2", "1", "1", "x"] + ["0"] * 6], [[None] * 12], [{}], [{"a": 1}], [[]],
    [[1_700_000_000_000, "1", "2", "1", "1", "1"] + ["0"] * 6, [1_700_000_060_000, "1"]],
    [[1e300, "1", "2", "1", "1", "1"] + ["0"] * 6], [[-5, "1", "2", "1", "1", "1"] + ["0"] * 6],
    [["nan", "1", "2", "1", "1", "1"] + ["0"] * 6], [[[1], [2], [3], [4], [5], [6]]], [["inf", "1", "1", "1", "1", "1"]],
])
def test_garbage_is_refused_whole(rows):
    """One row that is not a candle makes the answer broken: nothing of it is returned."""
    with pytest.raises(BadPayloadError):
        read_rows(rows, lambda row: EXCHANGES["binance"].parse_ohlcv(row, SPOT))


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=4), max_leaves=20))
def test_no_json_gets_past_as_another_error(value):
    """Any JSON in place of the rows gives a frame of candles or BadPayloadError, nothing else."""
    rows = value if isinstance(value, list) else [value]
    try:
        frame = read_rows(rows, lambda row: EXCHANGES["kraken"].parse_ohlcv(row, SPOT))
    except BadPayloadError:
        return
    assert len(frame) == len(rows)
    assert frame.select("ts", "open", "high", "low", "close", "volume").null_count().sum_horizontal().item() == 0


def test_spaces_and_mixed_units_take_the_slow_way_to_the_same_result():
    """Spellings that only ccxt reads, and rows in two units, are still read as ccxt reads them."""
    rows = [["1700000000", " 1.5", "2", "3", "1", "9", "0"], ["1700000060000", "1", "2", "3", "1", "9", "0"]]
    assert_same("kucoin", rows, SPOT)


def test_a_time_that_is_text_is_left_to_ccxt():
    """An exchange with ISO times gets ccxt's own parser, row for row."""
    hitbtc = library.hitbtc({"enableRateLimit": False})
    row = {"timestamp": "2023-11-15T00:01:00.000Z", "open": "1", "max": "3", "min": "0.5", "close": "2", "volume": "10"}

    def parse(value):
        return hitbtc.parse_ohlcv(value, SPOT)

    assert learn(row, parse) is None
    assert read_rows([row], parse).row(0)[1:6] == (1.0, 3.0, 0.5, 2.0, 10.0)


def test_no_rows_are_no_candles():
    """An empty list is an empty frame with the right columns."""
    assert read_rows([], list).columns == ["ts", "open", "high", "low", "close", "volume", "spread"]
