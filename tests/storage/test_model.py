"""The store against a plain model: any order of writes, flushes, revisions, imports and retention reads as a dict would."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US, ManualClock, parse_instant, to_datetime
from core.interval import Interval
from storage import Batch, open_lake
from storage.series import ensure_series
from tests.storage.conftest import START_US, add_connection

KEY = ("kraken", "BTC/USDT", "1m")
SLOTS = st.sets(st.integers(0, 59), min_size=1, max_size=12)
NOW = parse_instant("2026-03-01")


class StoreMachine(RuleBasedStateMachine):
    """Drives a lake and a dict side by side; `history` holds what was known at each past instant."""

    @initialize()
    def open(self) -> None:
        """Open an empty lake with one series."""
        self.home = Path(tempfile.mkdtemp())
        self.clock = ManualClock(NOW)
        self.lake = open_lake(self.home, self.clock)
        add_connection(self.lake, "kraken")
        with self.lake.metadata.write() as tx:
            self.series = ensure_series(tx, 1, "BTC/USDT", "1m", 0).id
        self.stored: dict[int, float] = {}
        self.history: list[tuple[int, dict[int, float]]] = []

    @rule(slots=SLOTS, price=st.sampled_from([1.0, 2.0, 3.0]), bulk=st.booleans())
    def write(self, slots: set[int], price: float, bulk: bool) -> None:
        """Store candles at one price, through the head or straight into the lake."""
        self._tick()
        new = {START_US + slot * MINUTE_US: price for slot in slots}
        revised = sum(1 for ts, value in new.items() if self.stored.get(ts, value) != value)
        frame = _frame(new)
        if bulk:
            written = self.lake.import_candles(self.series, frame, run_id="i")
        else:
            written = self.lake.write([Batch(self.series, frame, "rest")], run_id="r")[0]
        added = len(new.keys() - self.stored.keys())
        assert (written.stored, written.revised, written.unchanged) == (added, revised, len(new) - added - revised)
        self.stored.update(new)

    @rule()
    def flush(self) -> None:
        """Move the head into the lake."""
        self.lake.flush()

    @rule(slot=st.integers(0, 60))
    def retain(self, slot: int) -> None:
        """Remove all candles before a slot; what was known before them is gone with them."""
        self._tick()
        boundary = START_US + slot * MINUTE_US
        plan = self.lake.plan_retention(boundary)
        gone = [ts for ts in self.stored if ts < boundary]
        assert plan.rows == len(gone)
        assert self.lake.apply_retention(plan).rows == len(gone)
        self.stored = {ts: value for ts, value in self.stored.items() if ts >= boundary}
        self.history = [(at, {ts: value for ts, value in known.items() if ts >= boundary}) for at, known in self.history]

    @rule()
    def sweep(self) -> None:
        """Clear leftovers; nothing that is stored may go."""
        self.lake.sweep()

    @rule(first=st.integers(0, 60), length=st.integers(0, 60), count=st.integers(1, 70))
    def read_parts(self, first: int, length: int, count: int) -> None:
        """Ranges, slots and the newest candles are what the dict says."""
        span = Interval(START_US + first * MINUTE_US, START_US + (first + length) * MINUTE_US)
        want = sorted(ts for ts in self.stored if ts in span)
        assert self.lake.stored_slots(self.series, span).tolist() == want
        assert list(_plain(self.lake.candles(*KEY, start=span.start, end=span.end))) == want
        assert list(_plain(self.lake.latest(*KEY, count))) == sorted(self.stored)[-count:]

    @rule(choice=st.integers(0, 1000))
    def read_past(self, choice: int) -> None:
        """`as_of` gives exactly what was known then."""
        if self.history:
            at, known = self.history[choice % len(self.history)]
            assert _plain(self.lake.candles(*KEY, as_of=at)) == known

    @invariant()
    def holds(self) -> None:
        """The whole series is what the dict says, now and as of every earlier instant."""
        if hasattr(self, "lake"):
            assert _plain(self.lake.candles(*KEY)) == self.stored
            for at, known in self.history:
                assert _plain(self.lake.candles(*KEY, as_of=at)) == known
            assert self.lake.verify().problems == []

    def _tick(self) -> None:
        self.history.append((self.clock.now_us(), dict(self.stored)))
        self.clock.set(self.clock.now_us() + 1_000)

    def teardown(self) -> None:
        """Close the lake and remove its folder."""
        if hasattr(self, "lake"):
            self.lake.close()
            shutil.rmtree(self.home)


def _frame(values: dict[int, float]) -> pl.DataFrame:
    rows = [(to_datetime(ts), value, value + 1, value / 2, value, 1.0, None) for ts, value in sorted(values.items())]
    return pl.DataFrame(rows, schema=CANDLE_SCHEMA, orient="row")


def _plain(frame: pl.DataFrame) -> dict[int, float]:
    out = dict(zip(frame["ts"].dt.epoch("us").to_list(), frame["close"].to_list(), strict=True))
    assert len(out) == frame.height
    assert list(out) == sorted(out)
    return out


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck))
