"""A manifest that changes under a writer's hands: nothing of its work goes in, it tries again, and at last it says so."""

from __future__ import annotations

import threading

import pytest

from core.clock import MINUTE_US, ManualClock
from core.errors import StoreBusyError
from storage import Batch, Lake, Written, open_lake
from storage.lake.place import Place
from storage.statements import execute_many
from tests.storage.conftest import START_US, candles

KEY = ("kraken", "BTC/USDT", "1m")


class _BusyClock(ManualClock):
    """A clock that lets somebody else write each of its first calls."""

    def __init__(self, now_us: int, writes: list) -> None:
        super().__init__(now_us)
        self._writes = writes

    def now_us(self) -> int:
        if self._writes:
            self._writes.pop(0)()
        return super().now_us()


@pytest.mark.parametrize("others", [1, 3, 9])
def test_candles_written_while_an_import_runs_are_seen_by_it(lake, add_series, clock, others):
    """A candle stored between an import's look and its commit makes it look again; after many times it gives up, whole."""
    series = add_series()

    def write(number: int) -> None:
        lake.write([Batch(series, candles(START_US, 50).slice(number, 1), "rest")], run_id="r")

    slow = Lake(Place(lake.root, lake.metadata, _BusyClock(clock.now_us(), [lambda n=n: write(n) for n in range(others)])))
    frame = candles(START_US, 50)
    if others == 9:
        with pytest.raises(StoreBusyError, match="keep changing"):
            slow.import_candles(series, frame, run_id="i")
        assert lake.candles(*KEY).height == 5
    else:
        assert slow.import_candles(series, frame, run_id="i") == Written(50 - others, 0, others, 0)
        assert lake.candles(*KEY).height == 50
    assert not list((lake.root / ".staging").iterdir())
    assert lake.verify().problems == []


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["flush", "retention"])
def test_a_manifest_that_never_rests_is_said_and_costs_nothing(lake, add_series, operation):
    """While another hand changes the manifest all the time, flush and retention give up by name; afterwards they work."""
    series = add_series()
    lake.import_candles(series, candles(START_US, 20_000), run_id="i")
    stop = threading.Event()

    def disturb() -> None:
        with open_lake(lake.root.parent) as other:
            while not stop.is_set():
                with other.metadata.write() as tx:
                    execute_many(tx, "UPDATE lake_files SET generation = generation + 1 WHERE series_id = ?", [(series,)])

    thread = threading.Thread(target=disturb)
    thread.start()
    said, count = None, 20_000
    try:
        for turn in range(1, 30):
            lake.write([Batch(series, candles(START_US + (19_999 + turn) * MINUTE_US, 1, price=1.0), "rest")], run_id="r")
            count += 1
            try:
                if operation == "flush":
                    lake.flush()
                else:
                    lake.apply_retention(lake.plan_retention(START_US + turn * MINUTE_US))
                    count -= 1
            except StoreBusyError as error:
                said = str(error)
                break
    finally:
        stop.set()
        thread.join()
    assert said is not None
    assert "keep changing" in said
    assert lake.candles(*KEY).height == count
    assert not list((lake.root / ".staging").iterdir())
    assert lake.flush().rows > 0
    assert lake.candles(*KEY).height == count
    assert lake.verify().problems == []
