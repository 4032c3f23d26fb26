"""Hours for which a broker's clock is no ground to store are withheld: booked with their reason, never stored beside their instant."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sandbox
from connections.clocks import history, replace_clock
from connections.inputs import ConnectionInput
from core.clock import DAY_US, HOUR_US, ManualClock, parse_instant
from core.interval import Interval
from core.series import Series
from core.server_clock import ServerClock
from core.settings import Settings
from feed import Feed, open_feed
from feed.audit import AuditScope, audit
from feed.backfill import backfill
from feed.repair import repair
from storage.ledger import list_gaps
from storage.metadata.tables import notifications

SANDBOX = Path(sandbox.__file__).parent / "data"
OTHERS = Path(__file__).parent.parent / "core" / "data"
PAIRS = {"GBPUSD": SANDBOX, "AUDUSD": OTHERS, "USDJPY": OTHERS}
AUTUMN = Interval.parse("2017-08-01", "2018-02-01")
RULES = [{"offset_minutes": 60, "dst": "eu"}, {"since": "2014-11-22T22:00:00Z", "offset_minutes": 120, "dst": "eu"}]
# The server's wall clock stood an hour further on than its weeks' rules in these readings, at each of its three pairs.
FURTHER_ON = [("2013-06-06T00", "2013-06-14T00"), ("2013-06-27T00", "2013-06-29T00"), ("2017-10-30T00", "2017-11-02T18")]


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    """A home with the recorded server, its clock said rightly by weeks, and a reference on UTC."""
    folder = tmp_path / "server"
    folder.mkdir()
    for name in PAIRS:
        recorded(name).write_parquet(folder / f"mt5_{name}_H1_brokertime.parquet")
    with open_feed(Settings(home=tmp_path / "home", settle_seconds=0), ManualClock(parse_instant("2022-06-01"))) as feed:
        feed.connections.create(ConnectionInput(
            slug="broker", provider="replay", symbols=tuple(PAIRS), timeframes=("1h",),
            config={"folder": str(folder), "server_clock": RULES}))
        feed.connections.create(ConnectionInput(
            slug="reference", provider="replay", symbols=("EURUSD",), timeframes=("1h",),
            config={"folder": str(SANDBOX), "prefix": "oanda"}))
        yield feed


def recorded(pair: str) -> pl.DataFrame:
    """Return a recorded pair on the server's wall clock; of some only closes and ticks are kept here."""
    frame = pl.read_parquet(PAIRS[pair] / f"mt5_{pair}_H1_brokertime.parquet").sort("ts")
    if "open" in frame.columns:
        return frame
    return frame.select("ts", *(pl.col("close").alias(name) for name in ("open", "high", "low", "close")), pl.col("volume").cast(pl.Float64))


def truth(pair: str, whole: Interval) -> pl.DataFrame:
    """Return a recorded pair's hours around `whole` at their own instants: the weeks' rules, and an hour less where the clock stood further on."""
    clock = ServerClock.from_config({"server_clock": RULES})
    assert clock is not None
    wide = Interval(whole.start - DAY_US, whole.end + DAY_US)
    frame = recorded(pair).filter(pl.col("ts").is_between(wide.start_at, wide.end_at))
    wall = frame["ts"].cast(pl.Datetime("us")).dt.epoch("us").to_list()
    late = [Interval(parse_instant(first), parse_instant(end)) for first, end in FURTHER_ON]
    at = [clock.to_utc_us(us) - (HOUR_US if any(us in part for part in late) else 0) for us in wall]
    return frame.select("open", "high", "low", "close", us=np.array(at, dtype=np.int64))


def not_where_they_belong(feed: Feed, pair: str) -> int:
    """Return how many stored hours do not lie at the instant where the recorded one lies in truth."""
    stored = feed.lake.candles("broker", pair, "1h").select(
        "open", "high", "low", "close", us=pl.col("ts").dt.epoch("us"))
    assert stored.height > 0
    whole = Interval(int(stored["us"][0]), int(stored["us"][-1]))
    return stored.join(truth(pair, whole), on=["us", "open", "high", "low", "close"], how="anti").height


def withheld_gaps(feed: Feed, pair: str = "GBPUSD") -> list[Interval]:
    with feed.lake.metadata.read() as tx:
        return [gap.interval for gap in list_gaps(tx, "broker", pair) if "withheld" in gap.proof]


async def test_days_before_a_late_change_of_the_clock_are_withheld_and_told(feed: Feed) -> None:
    """The autumn of 2017: the days that the rule has an hour late are booked with the reason; what is stored is at its instant.

    Nothing asks for them again, an audit does not miss them, and the clock's history names the days with their evidence.
    """
    await backfill(feed, Series.parse("reference", "EURUSD", "1h"), Interval.parse("2017-06-01", "2018-04-01"))
    series = Series.parse("broker", "GBPUSD", "1h")
    result = await backfill(feed, series, AUTUMN)
    assert result.status == "complete_with_gaps", result.message
    booked = withheld_gaps(feed)
    assert sum(part.end - part.start for part in booked) < 6 * DAY_US
    late = Interval(parse_instant("2017-10-29T22"), parse_instant("2017-11-02T16"))
    assert all(us in part for us in range(late.start, late.end, HOUR_US) for part in [Interval(booked[0].start, booked[-1].end)])
    assert not_where_they_belong(feed, "GBPUSD") == 0
    with feed.lake.metadata.read() as tx:
        line = next(line for line in history(tx, "broker") if "withheld" in line.evidence)
    assert [(part["ruled_minutes"], part["shown_minutes"]) for part in line.evidence["withheld"]] == [(120, 180)]
    assert line.evidence["strength"] == "strong"
    again = await backfill(feed, series, AUTUMN)
    await repair(feed, "broker")
    checked = await audit(feed, AuditScope("broker", "GBPUSD", "1h", AUTUMN))
    assert (again.stored, checked.stored, checked.revised) == (0, 0, 0)
    assert withheld_gaps(feed) == booked


@pytest.mark.slow
async def test_other_rules_bring_back_what_was_withheld(feed: Feed) -> None:
    """A person who knows the clock of those days says it: they are asked for and stored then, at their own instants."""
    await backfill(feed, Series.parse("reference", "EURUSD", "1h"), Interval.parse("2017-06-01", "2018-04-01"))
    series = Series.parse("broker", "GBPUSD", "1h")
    await backfill(feed, series, AUTUMN)
    before = feed.lake.candles("broker", "GBPUSD", "1h").height
    known = ServerClock.from_config({"server_clock": [
        *RULES, {"since": "2017-10-28T00:00Z", "offset_minutes": 180}, {"since": "2017-11-02T15:00Z", "offset_minutes": 120, "dst": "eu"}]})
    assert known is not None
    with feed.lake.metadata.write() as tx:
        replace_clock(tx, feed.connections.get("broker"), known, "set", feed.clock.now_us(), {})
    result = await backfill(feed, series, AUTUMN)
    assert result.status != "failed", result.message
    assert feed.lake.candles("broker", "GBPUSD", "1h").height > before + 80
    assert not_where_they_belong(feed, "GBPUSD") <= 1  # the hour in which the clock was put back holds two hours' ticks
    assert withheld_gaps(feed) == []


async def test_without_a_reference_the_servers_own_rhythm_withholds_the_days_until_a_person_stands_for_them(feed: Feed) -> None:
    """No reference at all: the autumn of 2017 is withheld by the ticks of three pairs, and the clock's history says by what.

    A person who says the same rules again has it asked for and stored, by the next repair, and nothing else happens.
    """
    series = Series.parse("broker", "GBPUSD", "1h")
    assert (await backfill(feed, series, AUTUMN)).status == "complete_with_gaps"
    assert not_where_they_belong(feed, "GBPUSD") == 0
    assert sum(part.end - part.start for part in withheld_gaps(feed)) < 7 * DAY_US
    with feed.lake.metadata.read() as tx:
        line = next(line for line in history(tx, "broker") if "withheld" in line.evidence)
    assert (line.evidence["strength"], line.evidence["reference"]) == ("weak", None)
    assert line.evidence["half_days"]["rhythm"] > 300
    assert [list(part["nats_by"]) for part in line.evidence["withheld"]] == [["rhythm"]]
    before = feed.lake.candles("broker", "GBPUSD", "1h").height
    same = ServerClock.from_config({"server_clock": RULES})
    assert same is not None
    with feed.lake.metadata.write() as tx:
        replace_clock(tx, feed.connections.get("broker"), same, "set", feed.clock.now_us(), {"by": "a person"})
    result = await repair(feed, "broker")
    assert result.stored > 80, result.message
    assert feed.lake.candles("broker", "GBPUSD", "1h").height == before + result.stored
    assert withheld_gaps(feed) == []


async def test_a_reference_that_comes_later_is_held_against_what_is_stored(feed: Feed) -> None:
    """Ticks that nobody counts let the autumn of 2017 pass; once a reference is stored, people are told what lies there by a doubted clock, once."""
    for name in PAIRS:
        recorded(name).with_columns(volume=pl.lit(1.0)).write_parquet(
            Path(str(feed.connections.get("broker").config["folder"])) / f"mt5_{name}_H1_brokertime.parquet")
    series = Series.parse("broker", "GBPUSD", "1h")
    await backfill(feed, series, AUTUMN)
    assert withheld_gaps(feed) == []
    with feed.lake.metadata.read() as tx:
        assert {line.evidence["strength"] for line in history(tx, "broker") if "strength" in line.evidence} == {"weak"}
    await backfill(feed, Series.parse("reference", "EURUSD", "1h"), Interval.parse("2017-06-01", "2018-04-01"))
    for _ in range(2):
        await backfill(feed, series, AUTUMN)
    with feed.lake.metadata.read() as tx:
        told = [row["title"] for row in tx.execute(notifications.select()).mappings() if row["kind"] == "clock_changed"]
        assert [line.evidence["strength"] for line in history(tx, "broker") if "strength" in line.evidence] == ["strong", "weak"]
    assert len(told) == 1
    assert "in doubt" in told[0]


@pytest.mark.slow
async def test_gold_on_another_clock_than_the_pairs_is_withheld(feed: Feed) -> None:
    """The recorded server wrote gold an hour further on than its pairs until November 2014: gold of that time is not stored by their clock."""
    span = Interval.parse("2014-06-01", "2015-06-01")
    await backfill(feed, Series.parse("reference", "EURUSD", "1h"), Interval.parse("2014-03-01", "2015-08-01"))
    folder = Path(str(feed.connections.get("broker").config["folder"]))
    pl.read_parquet(SANDBOX / "mt5_XAUUSD_H1_brokertime.parquet").write_parquet(folder / "mt5_XAUUSD_H1_brokertime.parquet")
    result = await backfill(feed, Series.parse("broker", "XAUUSD", "1h"), span)
    assert result.status == "complete_with_gaps", result.message
    stored = feed.lake.candles("broker", "XAUUSD", "1h")
    assert stored.height > 2500
    assert int(stored["ts"].dt.epoch("us")[0]) >= parse_instant("2014-11-21")
    with feed.lake.metadata.read() as tx:
        assert {line.evidence.get("of") for line in history(tx, "broker")} == {None, "XAUUSD"}
    assert (await backfill(feed, Series.parse("broker", "XAUUSD", "1h"), span)).stored == 0
    assert withheld_gaps(feed, "GBPUSD") == []


@pytest.mark.slow
async def test_every_stored_hour_of_every_year_is_at_its_instant(feed: Feed) -> None:
    """2012 to the reference's end in 2018, three pairs: every change of summer time, the move of 2014 and the odd stretches.

    Each stored hour lies where the recorded one lies in truth, each other one is booked.
    """
    whole = Interval.parse("2012-11-20", "2018-12-20")
    await backfill(feed, Series.parse("reference", "EURUSD", "1h"), Interval.parse("2012-10-01", "2018-12-31"))
    for pair in PAIRS:
        result = await backfill(feed, Series.parse("broker", pair, "1h"), whole)
        assert result.status == "complete_with_gaps", result.message
        assert not_where_they_belong(feed, pair) == 0
        at = truth(pair, whole).filter(pl.col("us").is_between(whole.start, whole.end, closed="left"))
        stored = feed.lake.candles("broker", pair, "1h")
        doubted = sum(part.end - part.start for part in withheld_gaps(feed, pair))
        assert at.height - stored.height <= doubted // HOUR_US
        assert doubted < 30 * DAY_US
