"""A provider that rewrites twenty days of its history: exactly those revisions, both views readable, and nothing twice."""

import polars as pl
import pytest

from cli.main import run
from core.clock import MINUTE_US, to_datetime
from core.interval import Interval
from core.series import Series
from core.settings import settings
from feed.audit import AuditScope, audit, differences
from feed.backfill import backfill
from storage.lake.revisions import list_revisions
from storage.provenance import find_run, request_of, requests_of

KEY = ("binance", "BTC/USDT", "1m")
VALUES = ["ts", "open", "high", "low", "close", "volume"]
DAYS = 20


def changed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the history with every 97th candle's close moved to its high, and every 200th one's volume doubled."""
    number = pl.int_range(pl.len())
    return frame.with_columns(
        close=pl.when(number % 97 == 0).then(pl.col("high")).otherwise(pl.col("close")),
        volume=pl.when(number % 200 == 0).then((pl.col("volume") * 2 + 1).round(8)).otherwise(pl.col("volume")))


@pytest.mark.slow
async def test_twenty_days_of_changed_history(source, serve, connect, tmp_path, capsys) -> None:
    """Each changed candle is one revision, new values read now and old ones as of before; a second run adds nothing."""
    served = source(DAYS * 1440 + 5)  # the newest ones have not settled at the provider's present
    before, after = served.head(DAYS * 1440), changed(served).head(DAYS * 1440)
    first, last = (before["ts"].dt.epoch("us")[n] for n in (0, -1))
    whole = Interval(first, last + MINUTE_US)
    (tmp_path / "later").mkdir()
    changed(served).write_parquet(tmp_path / "later" / "binance_BTCUSDT_1m.parquet")
    box, later = serve(), serve(data=tmp_path / "later")
    feed = connect(box)
    await backfill(feed, Series.parse(*KEY), whole)
    assert feed.lake.candles(*KEY).select(VALUES).equals(before)
    then = feed.clock.now_us()
    feed.connections.update("binance", base_url=later.url)
    truly = before.join(after, on=VALUES, how="anti")["ts"].dt.epoch("us").to_list()

    compared, found = await differences(feed, AuditScope("binance", interval=whole))
    assert (compared, len(found)) == (before.height, len(truly))
    assert feed.lake.candles(*KEY).select(VALUES).equals(before)  # it only looks

    result = await audit(feed, AuditScope("binance", interval=whole), run_id="audit-1")
    assert (result.stored, result.revised) == (0, len(truly))
    with feed.lake.metadata.read() as tx:
        revisions = list_revisions(tx, *KEY)
    assert sorted(row.ts_us for row in revisions) == truly
    old, new = (dict(zip(f["ts"].dt.epoch("us"), f.rows(), strict=True)) for f in (before, after))
    for row in revisions:
        assert tuple(row.old[name] for name in VALUES[1:]) == old[row.ts_us][1:]
        assert tuple(row.new[name] for name in VALUES[1:]) == new[row.ts_us][1:]
    assert feed.lake.candles(*KEY).select(VALUES).equals(after)
    assert feed.lake.candles(*KEY, as_of=then).select(VALUES).equals(before)
    sql = feed.lake.sql("SELECT ts, open, high, low, close, volume FROM"
                        " candles('binance', 'BTC/USDT', '1m', as_of := $then) ORDER BY ts", {"then": to_datetime(then)})
    assert sql.equals(before)

    again = await audit(feed, AuditScope("binance", interval=whole), run_id="audit-2")
    assert (again.stored, again.revised) == (0, 0)
    with feed.lake.metadata.read() as tx:
        assert len(list_revisions(tx, *KEY)) == len(truly)
        assert tx.exec_driver_sql("SELECT run_id FROM runs WHERE run_id = 'audit-2'").all() == []
        run_row, requests = find_run(tx, "audit-1"), requests_of(tx, "audit-1")
        one = feed.lake.candles(*KEY, truly[5], truly[5] + 1).row(0, named=True)
        origin = request_of(tx, Series.parse(*KEY), truly[5], one["run_id"], revisions[0].known_at_us + 10**9)
    assert (run_row.revised, run_row.status) == (len(truly), "complete")
    assert sum(item.revised for item in requests) == len(truly)
    assert origin is not None
    assert truly[5] in origin.asked
    assert any(item.request_id == origin.request_id for item in requests)
    capsys.readouterr()
    settings.cache_clear()  # a command run before in this process read another home's
    assert run(["revisions", *KEY, "--json", "--limit", "100000"]) == 0
    assert capsys.readouterr().out.count("known_at") == len(truly)


async def test_the_sample_reaches_every_page(source, serve, connect) -> None:
    """Day by day the sampled pages differ, and together they are the whole history."""
    from feed.audit import sample
    from storage.series import find_series

    truth = source(30 * 500 + 5).head(30 * 500)
    feed = connect(serve())
    first, last = (truth["ts"].dt.epoch("us")[n] for n in (0, -1))
    await backfill(feed, Series.parse(*KEY), Interval(first, last + MINUTE_US))
    with feed.lake.metadata.read() as tx:
        row = find_series(tx, Series.parse(*KEY))
    pages = {page for day in range(40) for page in sample(row, 500, 3, day)}
    assert min(page.start for page in pages) == first
    assert max(page.end for page in pages) > last
    total = (last - first) // (500 * MINUTE_US) + 1
    assert len(pages) == total
