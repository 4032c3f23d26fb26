"""feed.audit: old candles are asked for again; what changed is a revision, what vanished stays, what is cut proves nothing."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_US, MINUTE_US, to_datetime
from core.errors import ProviderUnavailableError
from core.interval import Interval
from core.series import Series
from feed.audit import AuditScope, audit, differences, sample
from feed.backfill import backfill
from feed.fetch import fetch
from storage.lake.revisions import list_revisions
from storage.ledger import list_gaps
from storage.provenance import list_runs, request_of
from storage.series import SeriesRow

START = 1_704_067_200_000_000  # 2024-01-01
WHOLE = AuditScope(interval=Interval(0, START + DAY_US))


async def filled(make_feed, series, clock, truth, **options):
    feed, provider = make_feed(truth, **options)
    clock.set(START + 500 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 400 * MINUTE_US))
    clock.set(START + 501 * MINUTE_US)
    return feed, provider


def changed(truth, *numbers):
    hit = pl.int_range(pl.len()).is_in(numbers)
    return truth.with_columns(close=pl.when(hit).then(pl.col("high")).otherwise(pl.col("close")))


def counts(feed):
    with feed.lake.metadata.read() as tx:
        return {name: tx.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
                for name in ("revisions", "runs", "requests", "gaps", "repairs", "head_candles", "lake_files", "quarantine")}


async def test_an_audit_without_news_writes_nothing(make_feed, series, clock, candles_of) -> None:
    """Not a row in any table: no candle, no revision, no run, no request; candles after the stored ones are no difference."""
    feed, _ = await filled(make_feed, series, clock, candles_of(500))
    before = counts(feed)
    assert (await audit(feed, AuditScope(pages=9))).stored == 0
    assert await differences(feed, AuditScope(pages=9)) == (400, [])
    result = await audit(feed, WHOLE)
    assert (result.status, result.stored, result.revised) == ("complete", 0, 0)
    assert result.series[0].compared == 400
    assert counts(feed) == before
    assert await differences(feed, WHOLE) == (400, [])


async def test_a_changed_candle_is_one_revision_with_its_request(make_feed, series, clock, candles_of, caplog) -> None:
    """Old and new value, the run and the request that brought it, and a line in the log."""
    caplog.set_level("INFO")  # a command line that ran in this process before may have set another
    feed, provider = await filled(make_feed, series, clock, candles_of(500))
    provider.truth = changed(provider.truth, 30, 320)
    assert [row["what"] for row in (await differences(feed, WHOLE))[1]] == ["changed", "changed"]
    result = await audit(feed, WHOLE, run_id="audit-x")
    assert (result.stored, result.revised) == (0, 2)
    with feed.lake.metadata.read() as tx:
        revisions = sorted(list_revisions(tx), key=lambda row: row.ts_us)
        run = list_runs(tx)[0]
        origin = request_of(tx, series, revisions[0].ts_us, "audit-x", revisions[0].known_at_us)
    assert [row.ts_us for row in revisions] == [START + 30 * MINUTE_US, START + 320 * MINUTE_US]
    assert (run.run_id, run.kind, run.revised, run.status) == ("audit-x", "audit", 2, "complete")
    assert origin is not None
    assert revisions[0].ts_us in origin.asked
    assert origin.request_id.startswith("r")
    assert sum("revision: played BTC/USDT 1m" in line for line in caplog.messages) == 2
    assert (await audit(feed, WHOLE)).revised == 0


async def test_an_audit_that_is_cut_short_tells_the_revisions_made_until_then(make_feed, series, clock, candles_of, caplog) -> None:
    """The session breaks after the pages were written: the run has failed, and its revisions are counted and logged all the same."""
    caplog.set_level("INFO")
    feed, provider = await filled(make_feed, series, clock, candles_of(500))
    provider.truth = changed(provider.truth, 30, 320)
    feed.connections.ends_with = ProviderUnavailableError("gone at the end")
    result = await audit(feed, WHOLE)
    assert (result.status, result.revised) == ("failed", 2)
    assert "gone at the end" in result.message
    assert sum("revision: played BTC/USDT 1m" in line for line in caplog.messages) == 2


async def test_what_vanished_stays_stored_and_a_cut_answer_proves_nothing(make_feed, series, clock, candles_of) -> None:
    """A stored candle that the provider shows no longer is counted and kept; after the end of an answer nothing is missing."""
    feed, provider = await filled(make_feed, series, clock, candles_of(500))
    want = feed.lake.candles("played", "BTC/USDT", "1m")
    provider.truth = provider.truth.filter(pl.col("ts") != to_datetime(START + 150 * MINUTE_US)).head(360)
    result = await audit(feed, WHOLE)
    assert (result.revised, result.series[0].vanished) == (0, 1)
    assert feed.lake.candles("played", "BTC/USDT", "1m").equals(want)
    with feed.lake.metadata.read() as tx:
        assert list_gaps(tx) == []
    assert [row["what"] for row in (await differences(feed, WHOLE))[1]] == ["vanished"]


async def test_a_provider_that_is_away_fails_the_audit_in_one_line(make_feed, series, clock, candles_of) -> None:
    """What was not asked is not called sound; another audit at work is no failure."""
    feed, provider = await filled(make_feed, series, clock, candles_of(500))
    provider.error = ProviderUnavailableError("502 from the proxy")
    result = await audit(feed, WHOLE)
    assert (result.status, result.exit_code) == ("failed", 1)
    assert "502" in result.message
    with pytest.raises(ProviderUnavailableError):
        await differences(feed, WHOLE)
    provider.error = None
    async with feed.leases.hold("audit:played", seconds=60):
        assert (await audit(feed, WHOLE)).only_skipped


async def test_every_stored_row_leads_to_its_request(make_feed, series, clock, candles_of) -> None:
    """Backfilled or fetched, each candle's run and request are on record, and the request asked for that candle."""
    feed, _ = await filled(make_feed, series, clock, candles_of(600))
    await fetch(feed, due_only=False)
    frame = feed.lake.candles("played", "BTC/USDT", "1m")
    assert frame["run_id"].n_unique() == 2
    with feed.lake.metadata.read() as tx:
        for row in frame.select(pl.col("ts").dt.epoch("us"), "run_id", pl.col("known_at").dt.epoch("us")).rows():
            origin = request_of(tx, series, row[0], row[1], row[2])
            assert origin is not None
            assert row[0] in origin.asked


@given(first=st.integers(0, 10**6), length=st.integers(0, 10**5), page=st.integers(2, 2000), count=st.integers(1, 7),
       number=st.integers(1, 10**6))
def test_the_days_reach_every_page(first, length, page, count, number) -> None:
    """Within a few rounds of days as many pages come up as a history has, each whole and on the series' own cut."""
    row = SeriesRow(number, 1, Series.parse("a", "B", "1m"), True, first * MINUTE_US, (first + length) * MINUTE_US, None, None, 0)
    total = length // page + 1
    days = range(min(400, 5 * (total // count + 1)))
    seen = {span for day in days for span in sample(row, page, count, day)}
    assert all((span.start - row.first_us) % (page * MINUTE_US) == 0 for span in seen)
    assert all(span.start <= row.last_us and span.end <= row.last_us + MINUTE_US for span in seen)  # what came later is a fetch's work
    if len(days) < 400:
        assert len(seen) == total
