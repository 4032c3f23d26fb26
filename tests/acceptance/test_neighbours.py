"""Runs that meet: on one series, over one dead or stopped holder, beside a connection that is bad."""

import asyncio
import os
import signal
import time

import polars as pl
import pytest

from connections.inputs import ConnectionInput
from core.clock import MINUTE_US, ManualClock, isoformat, to_us
from core.interval import Interval
from core.secrets import Secret
from core.series import Series
from core.settings import Settings
from feed import open_feed
from feed.backfill import backfill
from feed.fetch import fetch
from tests.acceptance.conftest import COLUMNS

KLINES = "*/klines"
SERIES = Series.parse("binance", "BTC/USDT", "1m")


def pages(box) -> int:
    """Return how many pages of candles were asked for."""
    return sum(item.path.endswith("/klines") for item in box.requests)


@pytest.fixture
def history(source, serve):
    """A box over 6,000 real minutes whose present is after the last one; and those minutes."""
    truth = source(6_000)
    return serve(ManualClock(to_us(truth["ts"][-1]) + 2 * MINUTE_US)), truth


def words(truth: pl.DataFrame) -> list[str]:
    return ["backfill", "binance", "BTC/USDT", "1m", isoformat(to_us(truth["ts"][0])), isoformat(to_us(truth["ts"][-1]) + MINUTE_US)]


@pytest.mark.slow
def test_a_second_backfill_of_the_same_series_says_who_has_it_and_waits(history, connect, start_child) -> None:
    """The second process asks for nothing while the first works, says so in one line, and does what is left when the first is stopped."""
    box, truth = history
    feed = connect(box)
    hold = box.faults.add("hang", KLINES)
    first = start_child(*words(truth), CANDLELAKE_REQUEST_TIMEOUT="60")
    while not pages(box):
        time.sleep(0.02)
    second = start_child(*words(truth))
    said = ""
    while "is being worked on by" not in said:
        line = second.stdout.readline()
        assert line, said
        said += line
    assert pages(box) == 1
    box.faults.remove(hold)
    os.kill(first.pid, signal.SIGINT)  # it hangs in its request: a person stops it
    first.communicate(timeout=60)
    said += second.stdout.read()  # until its end: the lease is free at once
    assert second.wait(60) in {0, 3}
    assert said.count("is being worked on by") == 1
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).equals(truth)


@pytest.mark.slow
def test_two_fetches_at_once_ask_for_a_connection_once(history, connect, start_child) -> None:
    """Of two processes that fetch one connection at the same time, one does; the other says so; the candles are there once."""
    box, truth = history
    feed = connect(box)
    interval = Interval(to_us(truth["ts"][0]), to_us(truth["ts"][3000]))
    assert asyncio.run(backfill(feed, SERIES, interval)).status != "failed"
    box.faults.add("hang", KLINES, count=1)
    both = [start_child("fetch", "binance", CANDLELAKE_REQUEST_TIMEOUT="5") for _ in range(2)]
    said = [child.communicate(timeout=120)[0] for child in both]
    assert sum("is being worked on by" in text for text in said) == 1, said
    assert sorted(child.returncode for child in both) == [0, 3], said  # the one that fetched has booked the holes of the history
    held = feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS)
    assert held.equals(truth)


@pytest.mark.slow
def test_a_stopped_holder_that_wakes_up_harms_nothing(history, connect, start_child) -> None:
    """A holder that slept through its lease is overtaken; when it wakes, nothing is doubled, lost or altered."""
    box, truth = history
    feed = connect(box)
    first = start_child(*words(truth))
    while not pages(box):
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)
    with feed.lake.metadata.write() as tx:  # as if its minute were over
        tx.exec_driver_sql("UPDATE leases SET expires_at_us = 0")
    interval = Interval(to_us(truth["ts"][0]), to_us(truth["ts"][-1]) + MINUTE_US)
    result = asyncio.run(backfill(feed, SERIES, interval))
    assert result.status != "failed", result.message
    assert not result.only_skipped
    held = feed.lake.candles("binance", "BTC/USDT", "1m")
    assert held.select(COLUMNS).equals(truth)
    os.kill(first.pid, signal.SIGCONT)
    said = first.communicate(timeout=120)[0]
    assert "Traceback" not in said
    assert feed.lake.candles("binance", "BTC/USDT", "1m").equals(held)  # known_at too: no row was written anew
    assert feed.lake.verify().problems == []


@pytest.fixture
def mixed(serve, home):
    """A box of now, and a feed with good and bad connections to it."""
    box = serve(data=None, mode="replay")
    with open_feed(Settings(request_timeout=3)) as feed:
        yield box, feed


def add_broker(feed, box, slug: str, password: str) -> None:
    feed.connections.create(ConnectionInput(
        slug=slug, name=slug, provider="mtapi:mt5", base_url=f"{box.url}/mt5", symbols=("EURUSD",), timeframes=("1h",),
        credentials={"user": Secret("50000001"), "password": Secret(password), "server": Secret("Sandbox-Demo")},
        config={"server_clock": {"offset_minutes": 120, "dst": "us"}}))


@pytest.mark.slow
async def test_bad_connections_do_not_hinder_a_good_one(mixed) -> None:
    """In one fetch, a hanging exchange and a refused login fail alone and by name; the good connection is stored first."""
    box, feed = mixed
    for slug, provider, symbol in (("hanging", "ccxt:kraken", "BTC/USD"), ("good", "ccxt:binance", "BTC/USDT")):
        feed.connections.create(ConnectionInput(
            slug=slug, name=slug, provider=provider, base_url=box.url, symbols=(symbol,), timeframes=("1h",)))
    add_broker(feed, box, "refused", "wrong")
    box.faults.add("hang", "/api.kraken.com/*")
    order: list[str] = []
    result = await fetch(feed, progress=lambda _done, _total, slug: order.append(slug))
    assert result.status == "failed"
    errors = {item.series.split()[0]: item.error for item in result.series}
    assert errors["good"] is None
    assert errors["hanging"] is not None
    assert errors["refused"] is not None
    assert order.index("good") < order.index("hanging")
    assert feed.lake.candles("good", "BTC/USDT", "1h").height > 100
    assert feed.connections.get("good").status == "active"
    states = {slug: feed.connections.get(slug) for slug in ("hanging", "refused")}
    assert states["refused"].status == "error"
    assert states["hanging"].consecutive_failures == 1
    again = await fetch(feed)  # both back off: the next round is not held up by them
    assert again.status == "complete", again.message


@pytest.mark.slow
async def test_refused_credentials_are_tried_once(mixed) -> None:
    """A wrong password is sent once over many fetches, backfills and fresh processes: no account is locked out."""
    box, feed = mixed
    add_broker(feed, box, "broker", "wrong")
    for _ in range(3):
        result = await fetch(feed, connections=["broker"], due_only=False)
        assert result.status == "failed"
        assert "refused" in result.message
        await fetch(feed)
        await backfill(feed, Series.parse("broker", "EURUSD", "1h"), Interval.parse("2024-05-06", "2024-05-07"))
    assert sum("onnect" in item.path and "isconnect" not in item.path for item in box.requests) == 1
    assert feed.connections.get("broker").status == "error"
