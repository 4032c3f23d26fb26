"""A stream end to end: ordered at the server, run by the embedded runner, killed, begun again, told to end."""

import os
import signal

import pytest

from connections.service import ConnectionInput
from feed import open_feed
from storage.ticks.losses import list_losses
from storage.ticks.states import read_states
from tests.deployments.conftest import flow_process, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("only_ordered", "runner")]


@pytest.fixture
def streamed(home, box):
    """A connection of this test alone, to a market whose record has no hole at any time of day; its slug."""
    with open_feed(home) as feed:
        feed.connections.create(ConnectionInput(
            slug="streamed", provider="ccxt:binance", base_url=box.url, symbols=("BTC/BUSD",), timeframes=("1m",)))
    yield "streamed"
    with open_feed(home) as feed:
        feed.connections.delete("streamed", purge=True)


def look(home, slug):
    """Return the stream's state, the sources of its candles and the causes of its losses."""
    with open_feed(home) as feed:
        with feed.lake.metadata.read() as tx:
            state = next(iter(read_states(tx, slug)), None)
            causes = {item.cause for item in list_losses(tx, slug)}
        return state, set(feed.lake.candles(slug, "BTC/BUSD", "1m")["source"]), causes


def test_a_stream_runs_dies_comes_back_and_ends(streamed, home, server, order, end_of):
    """A run stores candles early and says so on the server; killed, its loss is booked by the next; told to end, that one ends well."""
    first = order("stream", connection=streamed)
    wait_for(lambda: (state := look(home, streamed)[0]) and state.state == "live" and state.ticks_per_second, 240)
    wait_for(lambda: "stream" in look(home, streamed)[1], 240)
    told = {"event": {"name": ["candlelake.data-received"]}, "resource": {"id": [f"candlelake.series.{streamed}.BTC/BUSD.1m"]}}
    wait_for(lambda: server.post("/events/filter", {"filter": told, "limit": 1})["events"], 120)
    os.kill(flow_process(first), signal.SIGKILL)
    assert end_of(first, 240)["type"] in {"CRASHED", "FAILED"}
    before = look(home, streamed)[0]
    second = order("stream", connection=streamed)
    wait_for(lambda: (state := look(home, streamed)[0]).run_id != before.run_id and state.state == "live", 240)
    wait_for(lambda: look(home, streamed)[2] & {"killed", "not_streaming"}, 60)
    server.post(f"/flow_runs/{second}/set_state", {"state": {"type": "CANCELLING"}})
    assert end_of(second, 240)["type"] in {"CANCELLED", "COMPLETED"}
    wait_for(lambda: look(home, streamed)[0].state == "stopped", 60)
