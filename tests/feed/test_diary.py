"""Past views against a diary: an adversarial provider, any work in any order, and each moment read again as of then."""

import random

import polars as pl
import pytest

from core.clock import MINUTE_US, to_datetime
from core.interval import Interval
from feed import Feed
from feed.audit import AuditScope, audit
from feed.backfill import backfill
from feed.fetch import fetch
from feed.repair import repair
from storage.coverage import coverage
from storage.ledger import list_gaps
from tests.feed.conftest import START

VALUES = ["ts", "open", "high", "low", "close", "volume"]
WORK = ("fetch", "stale", "backfill", "audit", "repair", "flush", "retain")


class Adversary:
    """A provider that rewrites its history, shows hidden minutes later, and hides shown ones."""

    def __init__(self, truth: pl.DataFrame, dice: random.Random) -> None:
        self.truth, self.dice, self.hidden = truth, dice, set(dice.sample(range(400), 40))

    def change(self, what: str) -> None:
        if what == "rewrite":
            hit = pl.int_range(pl.len()).is_in(self.dice.sample(range(500), 7))
            self.truth = self.truth.with_columns(close=pl.when(hit).then(pl.col("low") + self.dice.random()).otherwise(pl.col("close")))
        elif what == "show":
            self.hidden -= set(sorted(self.hidden)[:5])
        else:
            self.hidden |= set(self.dice.sample(range(400), 3))

    def shown(self) -> pl.DataFrame:
        return self.truth.filter(~pl.int_range(pl.len()).is_in(sorted(self.hidden)))


def held(feed: Feed, as_of: int | None = None) -> pl.DataFrame:
    return feed.lake.candles("played", "BTC/USDT", "1m", as_of=as_of).select(VALUES)


def held_by_sql(feed: Feed, as_of: int) -> pl.DataFrame:
    frame = feed.lake.sql(f"SELECT {', '.join(VALUES)} FROM candles('played', 'BTC/USDT', '1m', as_of := TIMESTAMPTZ"
                          f" '{to_datetime(as_of).isoformat()}') ORDER BY ts")
    return frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def check_ledger(feed: Feed, stored: pl.DataFrame) -> None:
    """No slot is booked twice, none is booked and stored; coverage counts what is read."""
    with feed.lake.metadata.read() as tx:
        booked = [us for gap in list_gaps(tx) for us in range(gap.interval.start, gap.interval.end, MINUTE_US)]
    assert len(booked) == len(set(booked))
    assert not set(booked) & set(stored["ts"].dt.epoch("us").to_list())
    assert coverage(feed.lake)[0].stored == stored.height


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
async def test_each_moment_reads_again_as_it_was(make_feed, series, clock, candles_of, seed) -> None:
    """Whatever the provider changes between any two runs, flushes and cleanups: a view as of a moment is what was read then.

    By Python and by SQL, to the microsecond and to the last digit, below a retention's boundary excepted; at each moment
    store and ledger do not overlap.
    """
    dice = random.Random(seed)
    adversary = Adversary(candles_of(3000), dice)
    feed, provider = make_feed(adversary.shown(), faults=0.15 if seed % 2 else 0.0)
    clock.set(START + 600 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 300 * MINUTE_US))
    diary, cut = [(clock.now_us(), held(feed))], START
    for what in dice.choices((*WORK, "rewrite", "show", "hide"), k=20):
        clock.set(clock.now_us() + dice.choice([1, 7, 45, 700]) * MINUTE_US + dice.randrange(1_000_000))
        now, provider.stands_us = clock.now_us(), None
        if what not in WORK:
            adversary.change(what)
            provider.truth = adversary.shown()
        elif what in {"fetch", "stale"}:
            provider.stands_us = now - dice.choice([5, 60, 300]) * MINUTE_US if what == "stale" else None
            await fetch(feed, due_only=False)
        elif what == "backfill":
            first = START + dice.randrange(300) * MINUTE_US
            await backfill(feed, series, Interval(first, first + 200 * MINUTE_US))
        elif what == "audit":
            await audit(feed, AuditScope("played", interval=Interval(START, now)))
        elif what == "repair":
            await repair(feed)
        elif what == "flush":
            feed.lake.flush()
        else:
            cut = max(cut, START + dice.randrange(20, 120) * MINUTE_US)
            feed.lake.apply_retention(feed.lake.plan_retention(cut, is_forced=True))
        diary.append((now, held(feed)))
        check_ledger(feed, diary[-1][1])
    kept = pl.col("ts") >= to_datetime(cut)
    for at, then in diary:
        assert held(feed, at).filter(kept).equals(then.filter(kept))
        assert held_by_sql(feed, at).filter(kept).equals(then.filter(kept))
