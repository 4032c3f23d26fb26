"""A backfill over a provider that answers with everything that goes wrong ends with exactly the source's candles."""

import polars as pl
import pytest

from core.clock import MINUTE_US
from core.interval import Interval
from core.series import Series
from feed.backfill import backfill
from storage.ledger import list_gaps

KLINES = "*/klines"
COLUMNS = ["ts", "open", "high", "low", "close", "volume"]


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_250_000_real_candles_survive_every_fault(source, serve, connect) -> None:
    """429, 502, HTML with 200, cut JSON, short, empty, double, unsorted and hung answers: nothing lost, nothing invented."""
    truth = source(250_002).head(250_000)  # the newest two may not have settled yet by the box's clock
    box = serve()
    feed = connect(box)
    box.faults.seed = 11
    for kind, settings in (
        ("status", {"status": 429, "retry_after": 0}), ("status", {"status": 502}), ("html", {}), ("truncated", {}),
        ("short_page", {"rows": 40}), ("empty_page", {}), ("duplicate_rows", {}), ("unsorted", {}), ("drop", {}),
    ):
        box.faults.add(kind, KLINES, probability=0.03, **settings)
    box.faults.add("hang", KLINES, probability=0.01, count=5)
    series = Series.parse("binance", "BTC/USDT", "1m")
    first, last = truth["ts"].dt.epoch("us")[0], truth["ts"].dt.epoch("us")[-1]
    shown = []
    result = await backfill(feed, series, Interval(first, last + MINUTE_US), progress=lambda *p: shown.append(p))
    assert result.status in {"complete", "complete_with_gaps"}, result.message
    stored = feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS)
    assert stored.join(truth, on=COLUMNS, how="anti").is_empty()  # nothing invented, nothing altered
    with feed.lake.metadata.read() as tx:
        booked = {slot for gap in list_gaps(tx) for slot in range(gap.interval.start, gap.interval.end, MINUTE_US)}
    lost = truth.filter(~pl.col("ts").is_in(stored["ts"].implode()))["ts"].dt.epoch("us").to_list()
    assert set(lost) <= booked  # what the faults hid is in the ledger
    assert len(lost) <= 2_000
    slots = set(range(first, last + MINUTE_US, MINUTE_US))
    assert set(stored["ts"].dt.epoch("us").to_list()) | booked == slots
    assert shown[-1][0] == shown[-1][1]
    assert sum(fault.hits for fault in box.faults.active) > 30

    box.faults.clear()
    with feed.lake.metadata.write() as tx:  # all booked gaps are due: as if their waits were over
        tx.exec_driver_sql("UPDATE gaps SET next_try_us = 0 WHERE next_try_us IS NOT NULL")
    healed = await backfill(feed, series, Interval(first, last + MINUTE_US))
    assert healed.status != "failed"
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).equals(truth)
