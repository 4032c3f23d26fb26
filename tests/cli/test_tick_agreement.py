"""The command that lists where candles built from ticks differ from the provider's."""

from core.timeframe import Grid
from feed.tick_candles import build
from storage import open_lake
from tests.feed.test_tick_agreement import SERIES, changed, connected, keep, stored, trades


def test_the_command_lists_them_and_its_exit_code_tells(candlelake, home):
    """`tick-agreement --json` gives one object a difference and exits 1; where none is unexplained it exits 0."""
    ticks = trades(60)
    with open_lake(home) as lake:
        connected(lake)
        keep(lake, SERIES, stored(ticks), changed(build(ticks, Grid(SERIES.timeframe)), 2, close=99.0, high=99.0))
    answer = candlelake("tick-agreement", "k", "A/B", "--json")
    assert answer.code == 1
    assert [(row["ts"], row["field"], row["stored"], row["cause"]) for row in answer.json] == [
        ("2024-03-01T10:02:00Z", "high", 99.0, "unexplained"), ("2024-03-01T10:02:00Z", "close", 99.0, "unexplained")]
    assert candlelake("tick-agreement", "k", "A/B", "--start", "2024-03-01T10:04Z").code == 0
    assert candlelake("tick-agreement", "k", "B/A").code == 1
