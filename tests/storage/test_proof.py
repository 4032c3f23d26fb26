"""The proof on real data: what disagrees is located, what leaves the others is named, what is needed is kept."""

import json
from pathlib import Path

import polars as pl
import pytest

from core.calendar import Closure, MarketCalendar
from core.candles import CANDLE_SCHEMA
from core.clock import DAY_US, HOUR_US, MINUTE_US, isoformat, parse_instant, to_datetime
from core.derive import derivation, derive
from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.series import Series
from storage import Batch, open_lake
from storage.calendars import put_calendar
from storage.consistency import check_consistency
from storage.coverage import coverage
from storage.lake.retention import list_retired
from storage.lake.revisions import list_revisions
from storage.lake.sources import declare_derivation, drop_derivation, shortest_base
from storage.ledger import Gap, book_gaps, list_gaps
from storage.proof_report import make_report
from storage.reconcile import reconcile
from storage.series import ensure_series
from storage.snapshots import compare, delete_snapshot, find_snapshot, verify_snapshot
from tests.storage.conftest import BOTH_STORES, add_connection, candles

DATA = Path(__file__).parents[2] / "sandbox" / "data"
KEY = ("kraken", "BTC/USDT")
MINUTES = parse_instant("2018-04-04")
ALL = Interval(0, parse_instant("2100-01-01"))


def real(name):
    frame = pl.read_parquet(DATA / f"{name}.parquet").sort("ts")
    frame = frame.with_columns(pl.col("ts").dt.cast_time_unit("us"), spread=pl.lit(None, pl.Float64))
    return frame.select(list(CANDLE_SCHEMA)).cast(CANDLE_SCHEMA)


def longer(minutes, timeframe):
    made = derive(minutes.with_columns(known_at=pl.col("ts")), derivation("1m", timeframe), explained=[Interval(0, 4 * 10**15)])
    return made.select(list(CANDLE_SCHEMA))


@pytest.fixture
def told(lake, add_series):
    """Two real days of minutes, and the 5m, 1h and 1d that a consistent provider shows; empty minutes are proved."""

    def store(alter_minutes=lambda f: f, alter_hours=lambda f: f):
        minutes = real("coinbase_BTCUSD_1m").filter(pl.col("ts").is_between(to_datetime(MINUTES), to_datetime(MINUTES + 2 * DAY_US), closed="left"))
        series = add_series()
        stored = set(minutes["ts"].dt.epoch("us").to_list())
        empty = [slot for slot in range(MINUTES, MINUTES + 2 * DAY_US, MINUTE_US) if slot not in stored]
        lake.write([Batch(series, alter_minutes(minutes), "rest", gaps=[
            Gap(series, Interval(slot, slot + MINUTE_US), "no_trade") for slot in empty])], run_id="r")
        for timeframe in ("5m", "1h", "1d"):
            frame = longer(minutes, timeframe)
            lake.write([Batch(add_series(timeframe=timeframe), alter_hours(frame) if timeframe == "1h" else frame, "rest")], run_id="r")
        return minutes

    return store


def changed(at, **values):
    def change(frame):
        hit = pl.col("ts") == to_datetime(at)
        return frame.with_columns(pl.when(hit).then(value).otherwise(pl.col(name)).alias(name) for name, value in values.items())

    return change


def test_a_consistent_provider_has_no_disagreement(lake, told) -> None:
    """Real minutes and their own aggregates agree in every value, over every complete candle."""
    minutes = told()
    report = check_consistency(lake, *KEY, ALL)
    assert report.disagreements == []
    assert report.compared == {name: minutes["ts"].dt.truncate(name).n_unique() for name in ("5m", "1h", "1d")}
    assert report.compared["5m"] > 400


@pytest.mark.parametrize("values", [
    {"high": pl.col("high") * 1.5}, {"low": pl.col("low") * 0.5}, {"volume": pl.col("volume") + 100_000.0}])
def test_one_altered_minute_is_located(lake, told, values) -> None:
    """Its parents disagree, all of them point to the minute, and to no other candle."""
    at = MINUTES + 613 * MINUTE_US
    told(changed(at, **values))
    found = check_consistency(lake, *KEY, ALL).disagreements
    assert {item.timeframe for item in found} == {"5m", "1h", "1d"}
    assert {item.altered for item in found} == {"1m"}
    assert {item.altered_us for item in found} == {at}
    assert {item.field for item in found} == set(values)


def test_an_altered_hour_is_not_blamed_on_its_minutes(lake, told) -> None:
    """The 5m stand by the minutes: the hour itself is the altered candle."""
    at = MINUTES + 5 * HOUR_US
    told(alter_hours=changed(at, volume=pl.col("volume") * 3, high=pl.col("high") * 2))
    found = check_consistency(lake, *KEY, ALL).disagreements
    assert {(item.timeframe, item.altered, item.altered_us) for item in found} == {("1h", "1h", at)}
    assert {item.field for item in found} == {"volume", "high"}


def test_two_witnesses_alone_decide_nothing(lake, add_series) -> None:
    """With one longer timeframe it cannot be told which was altered, and it is not pretended."""
    minutes = candles(MINUTES, 120)
    lake.write([Batch(add_series(), minutes, "rest")], run_id="r")
    lake.write([Batch(add_series(timeframe="1h"), changed(MINUTES, high=pl.lit(999.0))(longer(minutes, "1h")), "rest")], run_id="r")
    found = check_consistency(lake, *KEY, ALL).disagreements
    assert [(item.altered, item.altered_us) for item in found] == [("undecided", None)]
    with pytest.raises(InputError, match="longer timeframe"):
        check_consistency(lake, *KEY, ALL, base="1h")


def test_the_bad_print_of_2018_is_found() -> None:
    """Coinbase's 5,200 of 2018-04-03 is the greatest outlier against Binance, and only Coinbase is blamed for it."""
    binance = derive(real("binance_BTCUSDT_1h").with_columns(known_at=pl.col("ts")), derivation("1h", "4h")).filter("is_complete")
    coinbase = real("coinbase_BTCUSD_4h")
    coinbase = coinbase.filter(pl.col("ts").is_between(binance["ts"][0], binance["ts"][-1]))
    found = reconcile({"coinbase": coinbase, "binance": binance})
    worst = sorted(found.outliers, key=lambda item: -abs(item.deviation))[:2]
    assert {(item.connection, isoformat(item.ts_us), item.field, item.value) for item in worst} == {
        ("coinbase", "2018-04-03T20:00:00Z", field, 5200.0) for field in ("low", "close")}
    assert all(7_200 < item.expected < 7_600 for item in worst)
    assert not [item for item in found.outliers if item.connection == "binance" and isoformat(item.ts_us) == "2018-04-03T20:00:00Z"]
    day = {item.connection: item for item in found.days if item.day == "2018-04-03"}
    assert (day["coinbase"].outliers, day["binance"].outliers) == (1, 0)
    assert day["coinbase"].score < day["binance"].score == 100.0
    assert [(pair.lag, pair.candles > 14_000) for pair in found.pairs] == [(0, True)]
    assert found.pairs[0].correlation > 0.9
    span = pl.col("ts").is_between(to_datetime(parse_instant("2018-04-01")), to_datetime(parse_instant("2018-04-10")))
    near = reconcile({"coinbase": coinbase.filter(span), "binance": binance.filter(span)}).pairs[0]
    assert (near.lag, near.correlation > 0.7) == (0, True)  # a bad print does not decide where two series agree


def test_a_late_connection_is_seen_as_late() -> None:
    """A feed whose candles carry the next hour's stamp lags by one candle; a spike at one of three is that one's."""
    truth = real("binance_BTCUSDT_1h").head(2000)
    late = truth.with_columns(pl.col("ts") + pl.duration(hours=1))
    pair = reconcile({"a": truth, "b": late}).pairs[0]
    assert (pair.lag, round(pair.correlation, 6)) == (1, 1.0)
    at = truth["ts"].dt.epoch("us")[777]
    spiked = changed(at, high=pl.col("high") * 1.05)(truth)
    found = reconcile({"a": truth, "b": spiked, "c": truth})
    assert [(item.connection, item.ts_us, item.field) for item in found.outliers] == [("b", at, "high")]


@BOTH_STORES
def test_retention_does_not_take_the_only_source(lake, add_series, clock) -> None:
    """Minutes of which hours were never stored, or that are declared as needed, stay, with the reason; force takes them."""
    minutes = add_series()
    lake.write([Batch(minutes, candles(MINUTES, 300), "rest")], run_id="r")
    add_series(timeframe="1h")
    before = MINUTES + 240 * MINUTE_US
    plan = lake.plan_retention(before)
    assert plan.items == []
    assert [(item.rows, "only source of 4 candles of 1h" in item.reason) for item in plan.refused] == [(240, True)]
    assert lake.apply_retention(plan).rows == 0
    with lake.metadata.write() as tx:
        hours = ensure_series(tx, 1, "BTC/USDT", "1h").id
    lake.write([Batch(hours, longer(candles(MINUTES, 300), "1h"), "rest")], run_id="r")
    assert [item.rows for item in lake.plan_retention(before, timeframe="1m").items] == [240]
    with lake.metadata.write() as tx:
        assert shortest_base(tx, *KEY).timeframe.name == "1m"
        with pytest.raises(NotFoundError):
            declare_derivation(tx, Series.parse(*KEY, "5m"), "4h", "new_york", 0)  # not stored: it would keep nothing
        declare_derivation(tx, Series.parse(*KEY, "1m"), "4h", "new_york", 0)
        declare_derivation(tx, Series.parse(*KEY, "1m"), "4h", "new_york", 0)
    refused = lake.plan_retention(before, timeframe="1m").refused
    assert "4h (new_york), declared" in refused[0].reason
    forced = lake.plan_retention(before, timeframe="1m", is_forced=True)
    assert lake.apply_retention(forced).rows == 240
    with lake.metadata.write() as tx:
        drop_derivation(tx, *KEY, "4h", anchor="new_york")
    assert lake.plan_retention(before + HOUR_US, timeframe="1m").refused == ()
    assert lake.candles(*KEY, "1h").height == 5


@BOTH_STORES
def test_retention_keeps_revisions_and_ledger(lake, add_series, clock) -> None:
    """What was changed and what was missing below the boundary is still on record; nothing there is expected any more."""
    series = add_series()
    gap = Gap(series, Interval(MINUTES + 20 * MINUTE_US, MINUTES + 30 * MINUTE_US), "provider_empty", next_try_us=1)
    lake.write([Batch(series, candles(MINUTES, 20), "rest", gaps=[gap])], run_id="r")
    clock.set(clock.now_us() + 1000)
    lake.write([Batch(series, candles(MINUTES, 20, price=200.0), "rest")], run_id="r2")
    lake.write([Batch(series, candles(MINUTES + 30 * MINUTE_US, 20), "rest")], run_id="r3")
    clock.set(clock.now_us() + 1000)
    lake.apply_retention(lake.plan_retention(MINUTES + 30 * MINUTE_US))
    with lake.metadata.read() as tx:
        assert len(list_revisions(tx)) == 20
        assert list_gaps(tx) == []
        kept = list_retired(tx, "kraken", KEY[1], "1m")
        assert list_retired(tx, "kraken", KEY[1], "1h") == []
    assert [(row.interval, row.cause, row.retired_at_us) for row in kept] == [(gap.interval, "provider_empty", clock.now_us())]
    report = make_report(lake.place, "kraken")
    assert (report.totals["unexplained"], report.retentions[0]["rows"]) == (0, 20)


@BOTH_STORES
def test_a_snapshot_reads_the_same_whatever_happens_later(lake, add_series, clock) -> None:
    """Revised, removed by retention and swept: the snapshot's rows and digest stay, until it is deleted."""
    series = add_series()
    lake.write([Batch(series, candles(MINUTES, 300), "rest")], run_id="r")
    row = lake.create_snapshot("before", "for a test")
    want = lake.candles(*KEY, "1m")
    lake._grace_hours = 0
    lake.write([Batch(series, candles(MINUTES, 300, price=500.0), "rest")], run_id="r2")
    lake.flush()
    lake.sweep()
    lake.apply_retention(lake.plan_retention(MINUTES + 299 * MINUTE_US))
    lake.flush()
    lake.sweep()
    assert lake.candles(*KEY, "1m").height == 1
    assert lake.candles(*KEY, "1m", snapshot="before").equals(want)
    assert lake.candles(*KEY, "1m", start=MINUTES + 5 * MINUTE_US, end=MINUTES + 9 * MINUTE_US, snapshot="before").height == 4
    assert verify_snapshot(lake.place, "before") == []
    with pytest.raises(InputError, match="taken"):
        lake.create_snapshot("before")
    with pytest.raises(NotFoundError, match="before"):
        lake.candles(*KEY, "1m", snapshot="after")
    assert compare(lake.place, row.manifest)[0].what == "1 candles here, 300 in the manifest, not the same"
    path = row.manifest["series"][0]["files"][0]["path"]
    place = lake.root / ".old" / path
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    assert [problem.path for problem in verify_snapshot(lake.place, "before")] == [path]
    with lake.metadata.write() as tx:
        delete_snapshot(tx, "before")
    lake.sweep()
    assert not place.exists()


def test_another_home_with_the_same_rows_has_the_same_digest(lake, add_series, tmp_path, clock) -> None:
    """Written otherwise, at another time, in other files: the same rows give the same digest, another value does not."""
    lake.write([Batch(add_series(), candles(MINUTES, 300), "rest")], run_id="r")
    row = lake.create_snapshot("one")
    with open_lake(tmp_path / "other", clock) as other:
        add_connection(other, "kraken")
        with other.metadata.write() as tx:
            series = ensure_series(tx, 1, "BTC/USDT", "1m", 0).id
        clock.set(clock.now_us() + DAY_US)
        other.import_candles(series, candles(MINUTES, 300).head(100), run_id="x")
        other.import_candles(series, candles(MINUTES, 300).tail(200), run_id="y")
        assert other.create_snapshot("same").digest == row.digest
        assert compare(other.place, json.loads(json.dumps(row.manifest))) == []
        other.write([Batch(series, candles(MINUTES, 1, price=7.0), "rest")], run_id="z")
        assert len(compare(other.place, row.manifest)) == 1
        assert other.create_snapshot("changed").digest != row.digest
    with pytest.raises(InputError, match="manifest"):
        compare(lake.place, {"series": [{"symbol": "x"}]})


@BOTH_STORES
def test_the_report_counts_what_an_independent_look_counts(lake, add_series, clock) -> None:
    """Slots, causes, revisions, repairs and digest are those of the store, inside the period and nowhere else."""
    series = add_series()
    at = lambda n: MINUTES + n * MINUTE_US  # noqa: E731  shorter here
    gaps = [Gap(series, Interval(at(100), at(110)), "no_trade"), Gap(series, Interval(at(110), at(113)), "unknown"),
            Gap(series, Interval(at(113), at(115)), "unknown", proof={"withheld": "the clock"}),
            Gap(series, Interval(at(115), at(145)), "market_closed"), Gap(series, Interval(at(300), at(320)), "fetch_failed", next_try_us=1)]
    lake.write([Batch(series, candles(MINUTES, 100), "rest", gaps=gaps)], run_id="fetch-1")
    lake.write([Batch(series, candles(at(145), 155), "rest")], run_id="fetch-2")
    clock.set(clock.now_us() + 7 * MINUTE_US)
    lake.write([Batch(series, candles(at(300), 10), "rest")], run_id="repair-1")
    lake.write([Batch(series, candles(at(150), 3, price=900.0), "rest")], run_id="audit-1")
    report = make_report(lake.place, "kraken", Interval(at(50), at(400)))
    one = report.series[0]
    assert (one.expected, one.stored, one.explained, one.unexplained, one.withheld) == (270, 215, 50, 5, 2)
    assert one.causes == {"fetch_failed": 10, "market_closed": 30, "no_trade": 10, "unknown": 5}
    assert one.completeness == pytest.approx(215 / 240)
    assert (report.totals["revisions"], len(report.revisions)) == (3, 3)
    assert (report.repairs["ranges"], report.repairs["median_seconds"]) == (1, 420.0)
    assert [gap["cause"] for gap in report.gaps] == ["no_trade", "fetch_failed", "unknown", "unknown"]
    assert {name for part in one.strip for name in part} == {"stored", "closed", "waiting", "open", "explained"}
    assert {} in one.strip  # after the series' last slot nothing is expected
    assert [gap["why"] for gap in report.gaps] == ["nothing was traded (proved twice)", "no answer yet; asked again", "not explained",
                                                 "withheld: the clock"]
    with lake.metadata.read() as tx, pytest.raises(NotFoundError):
        find_snapshot(tx, "none")
    assert lake.sql("SELECT run_id FROM runs ORDER BY run_id")["run_id"].to_list() == ["audit-1", "fetch-1", "fetch-2", "repair-1"]
    assert lake.sql("SELECT cause FROM repairs")["cause"].to_list() == ["fetch_failed"]
    assert lake.sql("FROM retired_gaps").is_empty()
    later = make_report(lake.place, "kraken", Interval(at(50), at(400)))
    assert later.digest == report.digest


@BOTH_STORES
def test_the_report_tells_of_a_series_that_holds_nothing(lake, add_series) -> None:
    """A series of which no candle ever came is in the report: what was asked for in vain counts, as `coverage` counts it."""
    series, span = add_series(), Interval(MINUTES, MINUTES + 20 * MINUTE_US)
    assert [item.expected for item in make_report(lake.place, "kraken").series] == [0]
    with lake.metadata.write() as tx:
        book_gaps(tx, [Gap(series, span, "fetch_failed", next_try_us=1, proof={"message": "502 from the proxy"})], 1)
    report = make_report(lake.place, "kraken", Interval(MINUTES, MINUTES + 60 * MINUTE_US))
    one = report.series[0]
    assert (one.expected, one.stored, one.explained, one.completeness) == (20, 0, 20, 0.0)
    assert (one.expected, one.explained) == (coverage(lake)[0].expected, coverage(lake)[0].explained)
    assert report.gaps[0]["why"] == "no answer yet; asked again: 502 from the proxy"


@BOTH_STORES
def test_the_report_does_not_hide_what_never_came(lake, add_series, clock) -> None:
    """A hole that nobody booked at the period's edge is unexplained, a feed that died is behind; closed time and a kept-no-more one are not."""
    series = add_series()
    at = lambda n: MINUTES + n * MINUTE_US  # noqa: E731  shorter here
    lake.write([Batch(series, candles(MINUTES, 100), "rest")], run_id="fetch-1")
    lake.write([Batch(series, candles(at(300), 100), "rest")], run_id="fetch-2")
    clock.set(at(500))
    edge = make_report(lake.place, "kraken", Interval(MINUTES, at(200))).series[0]  # nothing after minute 99 in this period
    assert (edge.expected, edge.stored, edge.unexplained, edge.behind) == (200, 100, 100, 90)
    inside = make_report(lake.place, "kraken", Interval(at(150), at(250))).totals
    assert (inside["expected"], inside["unexplained"], inside["completeness"]) == (100, 100, 0.0)
    dead = make_report(lake.place, "kraken", Interval(at(300), at(480))).series[0]
    assert (dead.expected, dead.stored, dead.unexplained, dead.behind) == (100, 100, 0, 90)  # of 490: the last ten are not overdue
    whole = make_report(lake.place, "kraken").series[0]
    assert (whole.expected, whole.unexplained, whole.behind) == (400, 200, 90)
    with lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        closed = MarketCalendar(closures=(Closure(Interval(at(400), at(470)), "maintenance"),))
        put_calendar(tx, number, "", closed, origin="set", now_us=1)
    assert make_report(lake.place, "kraken", Interval(at(300), at(480))).series[0].behind == 20
    with lake.metadata.write() as tx:
        tx.exec_driver_sql("UPDATE series SET is_active = (1 = 0)")
    assert make_report(lake.place, "kraken").totals["behind"] == 0
