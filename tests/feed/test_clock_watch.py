"""A wrong rule for a broker's clock is found before anything is stored under it; a right one is proved and kept."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import sandbox
from connections.clocks import history, replace_clock
from connections.inputs import ConnectionInput
from core.clock import DAY_US, HOUR_US, ManualClock, parse_instant
from core.clock_fit import lag_readings, week_readings
from core.errors import ClockRuleError, InputError
from core.interval import Interval
from core.series import Series
from core.server_clock import ServerClock
from core.settings import Settings
from feed import Feed, open_feed
from feed.backfill import backfill
from feed.clock_watch import joined, learn_clock, plain_name
from storage.ledger import list_gaps
from storage.metadata.tables import notifications

DATA = Path(sandbox.__file__).parent / "data"
GBP = Series.parse("broker", "GBPUSD", "1h")
SPAN = Interval.parse("2013-06-01", "2015-12-01")


@pytest.fixture
def feed(tmp_path) -> Iterator[Feed]:
    with open_feed(Settings(home=tmp_path / "home", settle_seconds=0), ManualClock(parse_instant("2022-06-01"))) as feed:
        yield feed


def broker(feed: Feed, **clock: object) -> None:
    """Add the recorded broker, with a word on its clock."""
    feed.connections.create(ConnectionInput(
        slug="broker", provider="replay", symbols=("GBPUSD",), timeframes=("1h",),
        config={"folder": str(DATA), "prefix": "mt5", "server_clock": clock}))


def believed(feed: Feed, clock: ServerClock) -> None:
    """Let the rules in force be ones that we had learned, not a person's."""
    with feed.lake.metadata.write() as tx:
        replace_clock(tx, feed.connections.get("broker"), clock, "learned", 1, {})


async def with_reference(feed: Feed) -> None:
    """Store a reference on UTC."""
    feed.connections.create(ConnectionInput(
        slug="reference", provider="replay", symbols=("EURUSD",), timeframes=("1h",),
        config={"folder": str(DATA), "prefix": "oanda"}))
    await backfill(feed, Series.parse("reference", "EURUSD", "1h"), SPAN)


def stored(feed: Feed) -> pl.DataFrame:
    return feed.lake.candles("broker", "GBPUSD", "1h")


def kinds(feed: Feed) -> list[str]:
    with feed.lake.metadata.read() as tx:
        return [row["kind"] for row in tx.execute(notifications.select()).mappings()]


async def test_a_persons_wrong_rule_stops_the_backfill_before_anything_is_stored(feed) -> None:
    """UTC+2/+3 for all years, said by a person: refused with the rules that fit, an alarm, and not one candle."""
    broker(feed, offset_minutes=120, dst="eu")
    result = await backfill(feed, GBP, SPAN)
    assert result.status == "failed"
    assert "contradict" in result.message
    assert '"offset_minutes": 60' in result.message
    assert "\n" not in result.message
    with feed.lake.metadata.read() as tx:
        assert list_gaps(tx) == []
        assert history(tx, "broker")[0].kind == "contradicted"
    assert stored(feed).is_empty()
    assert kinds(feed) == ["clock_changed"]
    await backfill(feed, GBP, SPAN)
    assert kinds(feed) == ["clock_changed"]  # told once


@pytest.mark.slow
async def test_rules_that_we_had_learned_are_replaced_by_better_ones(feed) -> None:
    """Our own wrong guess is replaced before storing: every hour lands where a UTC reference says, none doubled or shifted."""
    broker(feed, offset_minutes=120, dst="eu")
    believed(feed, ServerClock.fixed(120, "eu"))
    await with_reference(feed)
    result = await backfill(feed, GBP, SPAN)
    assert result.status != "failed", result.message
    assert result.revised == 0
    rules = feed.connections.get("broker").config["server_clock"]
    assert [(rule["offset_minutes"], rule["dst"]) for rule in rules] == [(60, "eu"), (120, "eu")]
    candles = stored(feed)
    truth = pl.read_parquet(DATA / "mt5_GBPUSD_H1_brokertime.parquet")
    inside = truth.filter(pl.col("ts").is_between(SPAN.start_at, SPAN.end_at)).height
    with feed.lake.metadata.read() as tx:
        withheld = sum(gap.interval.end - gap.interval.start for gap in list_gaps(tx, "broker") if "withheld" in gap.proof)
    assert withheld <= 12 * DAY_US  # two stretches of June 2013, when the clock showed another hour than its weeks
    assert abs(candles.height + withheld // HOUR_US - inside) <= 3  # the range's ends lie an hour or two elsewhere on the wall clock
    reference = feed.lake.candles("reference", "EURUSD", "1h")
    lags = lag_readings(candles["ts"].dt.epoch("us").to_numpy(), candles["close"].to_numpy(),
                        reference["ts"].dt.epoch("us").to_numpy(), reference["close"].to_numpy())
    assert len(lags) > 80
    assert [item.offset_us for item in lags if item.offset_us and item.at_us > parse_instant("2013-07-01")] == []
    assert "clock_learned" in kinds(feed)
    again = await backfill(feed, GBP, SPAN)
    assert (again.stored, again.revised) == (0, 0)


async def test_right_rules_are_proved_once_and_kept_with_their_evidence(feed) -> None:
    """The true rules are confirmed by the weeks; the proved range is not read again."""
    feed.connections.create(ConnectionInput(
        slug="broker", provider="replay", symbols=("GBPUSD",), timeframes=("1h",),
        config={"folder": str(DATA), "prefix": "mt5", "server_clock": [
            {"offset_minutes": 60, "dst": "eu"}, {"since": "2014-11-22T00:00Z", "offset_minutes": 120, "dst": "eu"}]}))
    assert (await backfill(feed, GBP, SPAN)).status != "failed"
    with feed.lake.metadata.read() as tx:
        lines = [line for line in history(tx, "broker") if "weeks" in line.evidence]
    assert len(lines) == 1
    assert lines[0].kind == "confirmed"
    assert lines[0].evidence["weeks"] > 100
    ends = week_readings(stored(feed)["ts"].dt.epoch("us").to_numpy())
    assert sum(item.offset_us == 0 for item in ends) > 0.8 * len(ends)  # the broker quotes past some Fridays' end in 2013
    await backfill(feed, GBP, SPAN)
    with feed.lake.metadata.read() as tx:
        assert len([line for line in history(tx, "broker") if "weeks" in line.evidence]) == 1


async def test_the_rules_can_be_learned_by_hand(feed) -> None:
    """`clock --learn` finds the rules of all that is kept and puts them in force; a provider on UTC has none."""
    broker(feed, offset_minutes=120, dst="us")
    await with_reference(feed)
    with pytest.raises(InputError, match="UTC"):
        await learn_clock(feed, "reference")
    await backfill(feed, GBP, Interval.parse("2016-06-10", "2016-06-20"))
    found = await learn_clock(feed, "broker")
    assert found.rules[-1].offset_minutes == 120
    assert feed.connections.get("broker").config["server_clock"] == found.as_config()


def test_rules_are_joined_where_they_were_measured() -> None:
    """Rules found in a range hold there; outside of it the old ones stay."""
    old = ServerClock.fixed(120, "us")
    new = ServerClock.from_config({"server_clock": [
        {"offset_minutes": 60, "dst": "eu"}, {"since": "2014-11-22T00:00Z", "offset_minutes": 120, "dst": "eu"}]})
    assert new is not None
    both = joined(old, new, SPAN)
    for us in range(SPAN.start, SPAN.end, 7 * DAY_US):
        assert both.offset_us(us) == new.offset_us(us)
    assert both.offset_us(parse_instant("2020-01-15")) == 2 * HOUR_US
    assert plain_name("EURUSD.m") == plain_name("EUR/USD") == "EURUSD"
    assert issubclass(ClockRuleError, InputError)
