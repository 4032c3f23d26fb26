"""Hostile and broken answers: one line says what happened, the store stays as it was, and memory stays bounded."""

import os
import time

import polars as pl
import pytest

from connections.inputs import ConnectionInput
from core.clock import MINUTE_US, ManualClock, isoformat, to_us
from core.errors import CandlelakeError, NotFoundError
from core.interval import Interval
from core.series import Series
from core.settings import Settings
from feed import open_feed
from feed.backfill import backfill
from feed.fetch import fetch
from tests.acceptance.conftest import COLUMNS

KLINES = "*/klines"
SERIES = Series.parse("binance", "BTC/USDT", "1m")
DEEP = "[" * 200_000 + "]" * 200_000
FOREIGN_ROWS = '[[1577836800000,"1","2","0.5"],["x","y"],{"a":1},null]'


@pytest.fixture
def history(source, serve, connect):
    """A box over 3,000 real minutes, a feed that has stored the first 1,000 of them, and the minutes."""
    truth = source(3_000)
    box = serve(ManualClock(to_us(truth["ts"][-1]) + 2 * MINUTE_US))
    return box, connect(box), truth


def whole(truth: pl.DataFrame, count: int | None = None) -> Interval:
    end = truth["ts"][-1] if count is None else truth["ts"][count - 1]
    return Interval(to_us(truth["ts"][0]), to_us(end) + MINUTE_US)


ATTACKS = {
    "huge": {"kind": "huge"}, "redirect": {"kind": "redirect", "location": "http://169.254.169.254/latest/meta-data/"},
    "redirect to itself": {"kind": "redirect", "location": "http://127.0.0.1:9/"}, "deep JSON": {"kind": "status", "status": 200, "body": DEEP},
    "foreign rows": {"kind": "status", "status": 200, "body": FOREIGN_ROWS}, "number": {"kind": "status", "status": 200, "body": "1e999"},
    "null": {"kind": "null"}, "object": {"kind": "empty_object"}, "slow": {"kind": "slow", "seconds": 3.0},
    "control characters": {"kind": "status", "status": 500, "body": "\x1b[2J\r\n\u202eevil\x00"},
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", list(ATTACKS))
async def test_a_hostile_answer_changes_nothing(history, attack) -> None:
    """Whatever comes instead of candles: the run fails in one clean line, what is stored stays byte for byte, later all is filled."""
    box, feed, truth = history
    assert (await backfill(feed, SERIES, whole(truth, 1000))).status != "failed"
    before = feed.lake.candles("binance", "BTC/USDT", "1m")
    settings = dict(ATTACKS[attack])
    box.faults.add(settings.pop("kind"), KLINES, **settings)
    asked = len(box.requests)
    result = await fetch(feed, connections=["binance"], due_only=False)
    assert result.status == "failed"
    assert len(result.message.splitlines()) == 1
    assert len(result.message) < 700
    assert result.message.isprintable()
    assert isinstance(result.errors[0], CandlelakeError)
    assert feed.lake.candles("binance", "BTC/USDT", "1m").equals(before)
    assert len(box.requests) - asked <= 12
    box.faults.clear()
    feed.connections.activate("binance")
    assert (await backfill(feed, SERIES, whole(truth))).status != "failed"
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).equals(truth)


@pytest.mark.slow
def test_memory_stays_bounded_under_huge_answers(history, start_child) -> None:
    """A process that is sent endless bodies ends with an error and never grows far beyond what it is without them."""
    box, _, truth = history
    interval = whole(truth)
    words = ["backfill", "binance", "BTC/USDT", "1m", isoformat(interval.start), isoformat(interval.end)]
    box.faults.add("huge", KLINES)
    child = start_child(*words)
    peak = 0
    until = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < until:
        peak = max(peak, _resident(child.pid))
        time.sleep(0.01)
    said = child.communicate(timeout=120)[0]
    assert child.returncode == 1, said
    assert "Traceback" not in said
    assert 0 < peak < 900 * 2**20


def _resident(pid: int) -> int:
    """Return how many bytes of a process are in memory now, 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:  # noqa: PTH123  a file of the kernel
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["off_grid", "nan", "negative_price", "high_below_low"])
async def test_wrong_rows_are_kept_apart(history, fault) -> None:
    """A row that cannot be true is quarantined with its reason and booked; the rest of its page is stored; later it is filled."""
    box, feed, truth = history
    box.faults.add(fault, KLINES, count=1)
    result = await backfill(feed, SERIES, whole(truth))
    held = feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS)
    assert held.join(truth, on=COLUMNS, how="anti").is_empty()
    assert truth.height - held.height <= 1
    assert result.status == "complete_with_gaps" or held.equals(truth)
    with feed.lake.metadata.write() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM quarantine").scalar_one() == result.quarantined
        tx.exec_driver_sql("UPDATE gaps SET next_try_us = 0 WHERE next_try_us IS NOT NULL")
    box.faults.clear()
    assert (await backfill(feed, SERIES, whole(truth))).status != "failed"
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).equals(truth)


@pytest.mark.slow
async def test_a_symbol_of_another_name_is_not_stored(history) -> None:
    """A connection whose symbol the exchange does not know says so and names near ones; no series of it stays behind."""
    _, feed, truth = history
    result = await backfill(feed, Series.parse("binance", "BTC/USDX", "1m"), whole(truth))
    assert result.status == "failed"
    assert "BTC/USDT" in result.message
    with pytest.raises(NotFoundError):
        feed.lake.candles("binance", "BTC/USDX", "1m")


@pytest.mark.slow
@pytest.mark.parametrize("skew", [-90.0, -3600.0, 90.0])
async def test_a_skewed_server_clock_stores_no_open_candle(source, serve, home, skew) -> None:
    """A server clock that is wrong by minutes or an hour never makes a forming candle a closed one; no endless asking either."""
    truth = source(3_000)
    clock = ManualClock(to_us(truth["ts"][2000]) + 30_000_000)
    box = serve(clock)
    with open_feed(Settings(), clock) as feed:
        feed.connections.create(ConnectionInput(
            slug="binance", name="Binance", provider="ccxt:binance", base_url=box.url, symbols=("BTC/USDT",), timeframes=("1m",)))
        box.faults.add("clock_skew", "*", seconds=skew)
        result = await fetch(feed)
        held = feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS)
        assert held.join(truth, on=COLUMNS, how="anti").is_empty(), result.message
        assert held.is_empty() or to_us(held["ts"][-1]) + MINUTE_US <= clock.now_us()
        assert len(box.requests) <= 12


@pytest.mark.slow
async def test_a_server_far_behind_is_not_asked_for_its_future(history) -> None:
    """A fetch long after the provider's own present asks for what it can have, not for every page up to ours."""
    box, feed, truth = history
    assert (await backfill(feed, SERIES, whole(truth, 2500))).status != "failed"
    asked = len(box.requests)
    assert (await fetch(feed)).status != "failed"
    assert sum(item.path.endswith("/klines") for item in box.requests[asked:]) <= 3
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).equals(truth)
