"""History stands still, replays never change what has closed, and bad files are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_US, HOUR_US, MINUTE_US, ManualClock, to_us
from core.clock_days import Hours, judge_days
from core.errors import InputError
from core.server_clock import ServerClock
from sandbox.market import WallClock
from sandbox.server import running, serve
from sandbox.sources import BUNDLED, load

SHELF = load(None, "replay", WallClock(120, "us"))
FX, CRYPTO = SHELF.books["broker", "EURUSD"], SHELF.books["coinbase", "BTCUSD"]
FIRST, LAST = to_us(datetime(2016, 1, 1, tzinfo=UTC)), to_us(datetime(2030, 1, 1, tzinfo=UTC))
START = datetime(2024, 1, 1, tzinfo=UTC)


def write(folder, name, **columns):
    """Write a small file of candles."""
    frame = pl.DataFrame({
        "ts": [START + timedelta(minutes=i) for i in range(4)], "open": [1.0] * 4, "high": [2.0] * 4, "low": [0.5] * 4,
        "close": [1.5] * 4, "volume": [1.0] * 4, **columns})
    frame.write_parquet(folder / f"{name}.parquet")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([FX, CRYPTO]), st.sampled_from([MINUTE_US, 5 * MINUTE_US, HOUR_US, 4 * HOUR_US, DAY_US]),
       st.integers(FIRST, LAST), st.integers(1, 400 * DAY_US), st.integers(0, 400 * DAY_US))
def test_a_closed_candle_never_changes(book, length, at, wait, longer):
    """Asked at any two presents and within any range, a closed candle is the same."""
    start, end = at - at % DAY_US, at - at % DAY_US + 2 * DAY_US
    early_now = end + wait
    early = book.candles(length, start, end, early_now).filter(pl.col("us") + length <= early_now)
    late = book.candles(length, start, end, early_now + longer)
    assert early.equals(late.filter(pl.col("us").is_in(early["us"].implode())))
    wider = book.candles(length, start - 3 * DAY_US, end + DAY_US, early_now + longer)
    assert late.equals(wider.filter((pl.col("us") >= start) & (pl.col("us") < end)))


@settings(max_examples=60, deadline=None)
@given(st.integers(FIRST, LAST))
def test_replayed_fx_keeps_new_york_weeks(at):
    """No replayed FX candle opens between Friday 17:00 and Sunday 17:00 in New York, whatever the season."""
    rows = FX.candles(MINUTE_US, at, at + 7 * DAY_US, LAST + 30 * DAY_US)
    local = rows.select(pl.col("us").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("America/New_York"))["us"]
    minutes = (local.dt.weekday().cast(pl.Int64) - 1) * 1440 + local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
    assert rows.height > 5000
    assert not ((minutes >= 4 * 1440 + 17 * 60) & (minutes < 6 * 1440 + 17 * 60)).any()


@pytest.mark.parametrize("symbols", [
    ["EURUSD"], ["GBPUSD"], pytest.param(["EURUSD.fxcm"], marks=pytest.mark.slow), ["XAUUSD"],
    pytest.param(["EURUSD", "GBPUSD"], marks=pytest.mark.slow)], ids=" ".join)
def test_replayed_fx_has_the_rhythm_of_a_real_pair(symbols):
    """Fourteen years of a practice broker show Europe's mornings by its summer time and afternoons by America's: no day looks an hour off."""
    series = []
    for symbol in symbols:
        rows = SHELF.books["broker", symbol].candles(HOUR_US, FIRST, LAST, LAST)
        series.append(Hours(rows["us"].to_numpy(), rows["close"].to_numpy(), rows["volume"].to_numpy()))
    assert len(series[0].times) > 80_000
    assert judge_days(ServerClock.fixed(120, "us"), series).doubts == ()


def test_a_week_without_a_like_one_is_replayed_with_europes_mornings_where_they_are():
    """Two weeks of May repeated between the two changes of summer time: the morning begins at the same hour in London."""
    begins = {}
    for week in (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 16, tzinfo=UTC), datetime(2026, 4, 6, tzinfo=UTC)):
        rows = FX.candles(HOUR_US, to_us(week), to_us(week + timedelta(days=5)), LAST)
        local = pl.col("us").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("Europe/London").dt.hour()
        busy = rows.group_by(local.alias("hour")).agg(pl.col("volume").mean()).sort("hour")["volume"].to_list()
        begins[week] = max(range(4, 11), key=lambda hour: busy[hour] / busy[hour - 1])
    assert len(set(begins.values())) == 1, begins


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["BTCUSD", "ETHUSD"]), st.integers(FIRST, LAST))
def test_the_practice_exchange_trades_at_every_hour(symbol, now):
    """Whenever a demo is looked at, the exchange has a candle of the last quarter of an hour: no day of its file is cut short."""
    newest = SHELF.books["coinbase", symbol].newest(1, MINUTE_US, now, now)
    assert now - int(newest["us"][0]) < 15 * MINUTE_US


def test_long_candles_stay_where_they_open(tmp_path):
    """Candles of four hours, two weeks of May: between the two changes of summer time they open at the same hours of New York."""
    opens = [datetime(2014, 5, 4, 21, tzinfo=UTC) + timedelta(weeks=week, hours=4 * step) for week in range(3) for step in range(30)]
    pl.DataFrame({"ts": opens, **{name: [1.0] * 90 for name in ("open", "high", "low", "close", "volume")}}).write_parquet(
        tmp_path / "mt5_XYZUSD_H4.parquet")
    book = load(tmp_path, "replay", WallClock()).books["broker", "XYZUSD"]
    rows = book.candles(4 * HOUR_US, to_us(datetime(2026, 3, 16, tzinfo=UTC)), to_us(datetime(2026, 3, 20, tzinfo=UTC)), LAST)
    local = rows.select(pl.col("us").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone("America/New_York").dt.hour())["us"]
    assert rows.height > 20
    assert set(local) == {1, 5, 9, 13, 17, 21}


@settings(max_examples=60, deadline=None)
@given(st.integers(FIRST, LAST), st.integers(0, MINUTE_US))
def test_the_forming_candle_lies_within_the_closed_one(at, first):
    """A forming candle has its open, stays within its final high and low, and its volume only grows."""
    minute = at - at % MINUTE_US
    final = CRYPTO.candles(MINUTE_US, minute, minute + 1, LAST + DAY_US)
    early = CRYPTO.candles(MINUTE_US, minute, minute + 1, minute + first)
    assert early.height == final.height
    for one, whole in zip(early.iter_rows(named=True), final.iter_rows(named=True), strict=True):
        assert whole["low"] <= one["low"] <= one["close"] <= one["high"] <= whole["high"]
        assert one["open"] == whole["open"]
        assert one["volume"] <= whole["volume"]


@settings(max_examples=200, deadline=None)
@given(st.integers(FIRST, LAST), st.sampled_from(["none", "eu", "us"]), st.integers(-12, 14))
def test_the_wall_clock_is_cores(at, dst, hours):
    """The frame-wide clock agrees with core.server_clock in both directions."""
    one, other = WallClock(hours * 60, dst), ServerClock.fixed(hours * 60, dst)
    assert one.wall(at) == other.from_utc_us(at)
    assert one.utc(at) == other.to_utc_us(at)


SEASONS = {  # weeks on both sides of each change that the recorded broker's clock made, and in between
    "winter 2012": ("2012-11-19", "2013-03-29"), "summer 2013": ("2013-04-01", "2013-10-25"), "winter 2013": ("2013-10-28", "2014-03-28"),
    "autumn 2014": ("2014-10-27", "2014-11-21"), "after its move": ("2014-11-24", "2015-03-27"), "summer 2015": ("2015-03-30", "2015-10-23"),
    "dates apart 2015": ("2015-10-26", "2015-10-31"), "dates apart 2017": ("2017-10-30", "2017-11-04"), "winter 2017": ("2017-11-06", "2018-03-23"),
    "back before its date": ("2017-11-02T15", "2017-11-04"), "spring 2018": ("2018-03-12", "2018-03-24"), "autumn 2018": ("2018-10-29", "2018-11-03"),
}


@pytest.mark.parametrize("season", list(SEASONS))
def test_broker_time_is_read_by_the_clock_of_its_file(season):
    """Pounds recorded in a broker's wall clock move with euros recorded in UTC in the same hour, not in one beside it, in every season."""
    moves = {}
    shelf = load(None, "history", WallClock(120, "us"))
    for symbol in ("EURUSD", "GBPUSD"):
        hours = next(source for source in shelf.books["broker", symbol].sources if source.length_us == HOUR_US)
        moves[symbol] = hours.frame.select("us", move=(pl.col("close") / pl.col("open")).log())
    start, end = (to_us(datetime.fromisoformat(text).replace(tzinfo=UTC)) for text in SEASONS[season])
    euros = moves["EURUSD"].filter(pl.col("us").is_between(start, end, closed="left"))
    alike = {}
    for hours in range(-3, 4):
        beside = moves["GBPUSD"].with_columns(us=pl.col("us") + hours * HOUR_US)
        alike[hours] = euros.join(beside, on="us").select(pl.corr("move", "move_right")).item()
    assert max(alike, key=alike.__getitem__) == 0, alike
    assert alike[0] > 0.25


def test_replay_is_the_same_after_a_restart():
    """Two servers started apart, at different presents, serve the same closed candles."""
    seen = []
    for now in ("2026-01-07T12:00:00+00:00", "2026-02-11T09:30:30+00:00"):
        clock = ManualClock(datetime.fromisoformat(now))
        with running(mode="replay", clock=clock) as box, httpx.Client(base_url=box.url) as client:
            start = int(datetime(2026, 1, 6, tzinfo=UTC).timestamp())
            seen.append(client.get(
                "/api.coinbase.com/api/v3/brokerage/market/products/BTC-USD/candles",
                params={"start": start, "end": start + 3600, "granularity": "ONE_MINUTE"}).json()["candles"])
    assert seen[0] == seen[1]
    assert len(seen[0]) > 50


def test_your_own_files_are_served_to_the_bit(tmp_path):
    """However a file writes its venue, zone, unit, columns and order, each row is served once with its very values."""
    tiny = [0.1 / 3 / 10**power for power in (6, 7, 8, 9)]
    columns = {"open": tiny, "high": [2 * price for price in tiny], "low": [price / 2 for price in tiny], "close": tiny}
    write(tmp_path, "BINANCE_XYZUSDT_1m", **columns)
    whole = pl.read_parquet(tmp_path / "BINANCE_XYZUSDT_1m.parquet")
    (tmp_path / "BINANCE_XYZUSDT_1m.parquet").unlink()
    berlin = pl.col("ts").cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone("Europe/Berlin")
    pl.concat([whole, whole.head(2)]).reverse().select("close", "volume", "low", berlin, "high", "open", extra=pl.lit("x")).write_parquet(
        tmp_path / "BINANCE_XYZ-USDT_1m.parquet")
    with running(tmp_path) as box:
        assert box.served() == {"binance": ["XYZUSDT"]}
        rows = httpx.get(f"{box.url}/api.binance.com/api/v3/klines", params={"symbol": "XYZUSDT", "interval": "1m"}).json()
    assert [[float(cell) for cell in row[1:6]] for row in rows] == [
        list(row) for row in whole.select("open", "high", "low", "close", "volume").rows()]
    assert [row[0] * 1000 for row in rows] == whole["ts"].dt.epoch("us").to_list()


def test_rows_that_are_no_candles_are_left_out_and_told(tmp_path):
    """One time with two values and a price that is none cost their own rows alone, and a line says how many."""
    write(tmp_path, "mt5_XYZUSD_M1", ts=[START, START, START + timedelta(minutes=1), START + timedelta(minutes=2)],
          close=[1.5, 1.6, float("nan"), 1.5])
    shelf = load(tmp_path, "history", WallClock())
    assert shelf.books["broker", "XYZUSD"].base.frame["us"].to_list() == [to_us(START) + 2 * MINUTE_US]
    assert ["3 of 4 rows" in str(problem) for problem in shelf.problems] == [True]


def test_your_own_files(tmp_path):
    """Files named by the rule are served by their venue, unknown ones at the broker; each bad one is told and left out."""
    write(tmp_path, "mt5_XYZUSD_M1", volume=[None] * 4)
    write(tmp_path, "kraken_BTCUSD_1m", spread=[0.1] * 4)
    write(tmp_path, "kraken_BTCUSD_1m_more", ts=[START + timedelta(minutes=i + 4) for i in range(4)])
    write(tmp_path, "fxcm_XYZUSD_M1")
    write(tmp_path, "noname")
    write(tmp_path, "mt5_BADUSD_M7")
    write(tmp_path, "mt5_NANUSD_M1", close=[float("nan")] * 4)
    write(tmp_path, "mt5_DUPUSD_M1", ts=[START] * 4, close=[1.1, 1.2, 1.3, 1.4])
    write(tmp_path, "icm_ABCUSD_M1")
    write(tmp_path, "mt5_TXTUSD_M1", open=["a"] * 4)
    write(tmp_path, "mt5_INTUSD_M1", ts=[1, 2, 3, 4])
    (tmp_path / "mt5_CUTUSD_M1.parquet").write_bytes(b"PAR1")
    pl.DataFrame({"ts": [START]}).write_parquet(tmp_path / "mt5_COLUSD_M1.parquet")
    shelf = load(tmp_path, "history", WallClock())
    assert set(shelf.books) == {
        ("broker", "XYZUSD"), ("broker", "XYZUSD.fxcm"), ("broker", "ABCUSD"), ("kraken", "BTCUSD")}
    assert shelf.of("kraken")["BTCUSD"].base.frame.height == 8
    assert shelf.books["broker", "XYZUSD"].base.frame["volume"].to_list() == [16.0] * 4
    assert len(shelf.problems) == 8
    assert all("\n" not in str(problem) for problem in shelf.problems)


@pytest.mark.parametrize("text", ["{", "[]", '{"mt5_XYZUSD_M1_brokertime": {"offset": 2}}', '{"mt5_XYZUSD_M1_brokertime": []}'])
def test_a_wrong_file_of_clocks_is_refused(tmp_path, text):
    """A `brokertime.json` that is no object of clocks ends the start in one line instead of shifting every candle."""
    write(tmp_path, "mt5_XYZUSD_M1_brokertime")
    (tmp_path / "brokertime.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load(tmp_path, "history", WallClock())
    assert "\n" not in str(caught.value)


def test_broker_time_without_a_file_of_clocks_is_the_bridges(tmp_path):
    """Your own file in broker time, with no word on its clock, is read by the clock that the bridge shows."""
    write(tmp_path, "mt5_XYZUSD_M1_brokertime")
    shelf = load(tmp_path, "history", WallClock(120))
    assert shelf.books["broker", "XYZUSD"].base.first_us == to_us(START) - 2 * HOUR_US


def test_no_data_is_an_input_error(tmp_path):
    """A folder that is missing or holds nothing usable, and a mode that is none, are refused."""
    for data, mode in ((tmp_path / "none", "history"), (tmp_path, "history"), (None, "tomorrow")):
        with pytest.raises(InputError), running(data, mode=mode):
            pass


def test_a_taken_port_is_an_os_error(box):
    """Serving on a port that is in use raises OSError to the caller."""
    with pytest.raises(OSError, match="in use"):
        serve(port=int(box.url.rsplit(":", 1)[1]))


def test_every_bundled_file_names_its_source():
    """SOURCES.md names each file that is shipped, and they stay small."""
    text = (BUNDLED / "SOURCES.md").read_text()
    files = list(BUNDLED.glob("*.parquet"))
    assert all(path.stem in text for path in files)
    assert sum(path.stat().st_size for path in files) < 9_000_000
