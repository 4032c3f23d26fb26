"""What a stream closes reaches those who wait for it, in this process and through Prefect."""

import asyncio
import importlib

import pytest

from core.clock import MINUTE_US
from feed.stream import StreamOptions, Subscribers, stream
from pipeline import events
from tasks.ticks import telling
from tests.feed.streaming import home, until

LISTENER = "heard = []\n\n\ndef on_event(event):\n    heard.append(event)\n"


@pytest.fixture
def listener(tmp_path, monkeypatch):
    """An installed package that subscribes to the pipeline's events; its list of what it heard."""
    info = tmp_path / "site" / "stream_listener-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stream-listener\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{events.GROUP}]\nstream = stream_listener:on_event\n")
    (info.parent / "stream_listener.py").write_text(LISTENER)
    monkeypatch.syspath_prepend(info.parent)
    importlib.invalidate_caches()
    events.subscribers.cache_clear()
    yield importlib.import_module("stream_listener").heard
    events.subscribers.cache_clear()


async def test_a_candle_that_a_stream_closes_is_told_once_it_is_stored(tmp_path, listener):
    """Each minute that the stream closes is one `DataReceived` of its series, and its candles can be read when it comes."""
    with home(tmp_path, "binance") as place:
        stop = asyncio.Event()
        options = StreamOptions(lateness_seconds=10, allowance_seconds=15, confirm_seconds=0.2, beat_seconds=0.2)
        async with telling(place.feed, "r", stop) as closed:
            run = asyncio.create_task(
                stream(place.feed, "s", stop=stop, options=options, run_id="r", subscribers=Subscribers(candles=closed)))
            await until(lambda: run.done() or listener)
            stop.set()
            await run
        held = place.candles()["ts"].dt.epoch("us").to_list()
    assert {(type(event).name, str(event.series), event.run_id) for event in listener} == {
        ("candlelake.data-received", f"s {place.symbol} 1m", "r")}
    for event in listener:
        told = list(range(event.interval.start, event.interval.end, MINUTE_US))
        assert len(told) >= event.stored > 0
        assert set(held) >= {told[0], told[-1]}
