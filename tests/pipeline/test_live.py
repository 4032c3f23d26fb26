"""Live runs: each candle is judged once, one pipeline's failure is its own, and replays give the same bytes."""

import random

import polars as pl
import pytest

from core.clock import DAY_US, HOUR_US
from core.errors import InputError, LeaseHeldError, LookAheadError, PluginError, PluginOverdueError
from core.interval import Interval
from feed.executing import record_of
from feed.pipelines import change, create, load, shadow
from feed.processing import LEASE, process
from feed.replaying import check_pipeline, compare_pipelines, compare_shadow, replay_pipeline
from pipeline.events import DataCleaned, DataFiltered, PipelineStageCompleted, SignalGenerated
from pipeline.registry import SHIPPED, Registry
from storage.pipelines import (
    begin_run,
    decisions_of,
    delete_pipeline,
    get_pipeline,
    is_due,
    list_executions,
    list_pipelines,
    list_signals,
    set_enabled,
)
from tests.pipeline.conftest import START, definition, market
from tests.pipeline.plugins import PLUGINS, Hanging, Noting, Unborn

REGISTRY = Registry({**SHIPPED, **PLUGINS}, extra=[])
FIRST = 300  # candles that are there before the first run


@pytest.fixture
def enabled(feed, store):
    """Store the first candles, create a pipeline and switch it on."""
    store(market(FIRST))

    def make(name="trend", **changes):
        create(feed, definition(name, **changes), "me", REGISTRY)
        with feed.lake.metadata.write() as tx:
            return set_enabled(tx, name, enabled=True, now_us=feed.clock.now_us())

    return make


def told(feed, name="trend"):
    """Return the stored signals of a pipeline as lines."""
    with feed.lake.metadata.read() as tx:
        return b"".join(record_of(row).as_line() for row in list_signals(tx, name))


async def live(feed, store, candles, upto, first=FIRST):
    """Store candle after candle, a run after each."""
    for at in range(first, upto):
        store(candles.slice(at, 1), run_id=f"fetch-{at}")
        result = await process(feed, registry=REGISTRY)
        assert result.candles >= 1
        assert not result.errors


async def test_a_replay_gives_the_live_runs_bytes(feed, store, enabled):
    """Signal for signal the same JSON lines, over the border of a chapter too, and one row for each stage of each candle."""
    enabled()
    candles = market(FIRST + 40)
    await process(feed, registry=REGISTRY)
    await live(feed, store, candles, FIRST + 40)
    (replayed,) = replay_pipeline(feed, "trend", Interval(START + (FIRST - 1) * HOUR_US, START + (FIRST + 40) * HOUR_US))
    assert replayed.result.candles == 41
    assert told(feed)
    assert replayed.result.lines == told(feed)
    with feed.lake.metadata.read() as tx:
        rows = list_executions(tx, 1, 1000)
    assert len([row for row in rows if row["stage"] == "cleaner"]) == 41
    first, second = [row for row in reversed(rows) if row["ts_us"] == rows[-1]["ts_us"]][:2]
    assert first["output_digest"] == second["input_digest"]


@pytest.mark.slow
async def test_thirty_days_live_equal_their_replay(feed, store, enabled):
    """720 hourly candles, each judged when it came; the replay of the month says the same, byte for byte."""
    enabled()
    candles = market(FIRST + 720)
    await process(feed, registry=REGISTRY)
    await live(feed, store, candles, FIRST + 720)
    (replayed,) = replay_pipeline(feed, "trend", Interval(START + FIRST * HOUR_US - HOUR_US, START + (FIRST + 720) * HOUR_US))
    assert replayed.result.candles == 721
    assert replayed.result.lines == told(feed)
    assert len(replayed.result.signals) > 20


async def test_as_first_seen_uses_the_values_known_then(feed, store, enabled):
    """After corrections a plain replay may differ; as first seen it gives the live run's bytes, correction by correction."""
    enabled()
    candles = market(FIRST + 40)
    await process(feed, registry=REGISTRY)
    await live(feed, store, candles, FIRST + 20)
    for at, factor in ((FIRST - 5, 1.05), (FIRST + 10, 0.93), (FIRST + 10, 1.08)):
        changed = candles.slice(at, 1).with_columns(pl.col("open", "high", "low", "close") * factor)
        store(changed, run_id="correction")
    await live(feed, store, candles, FIRST + 40, first=FIRST + 20)
    span = Interval(START + (FIRST - 1) * HOUR_US, START + (FIRST + 40) * HOUR_US)
    (now,) = replay_pipeline(feed, "trend", span)
    (then,) = replay_pipeline(feed, "trend", span, as_first_seen=True)
    assert then.result.lines == told(feed)
    assert now.result.lines != told(feed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 4, 9])
async def test_whatever_happened_is_replayed_as_it_was_seen(feed, store, seed):
    """Late candles, holes filled behind the present, corrections, flushes, runs that skip: each judged candle replays to the live run's bytes."""
    dice, count, at, holes = random.Random(seed), 260, 80, []
    candles = market(count, seed=seed)
    store(candles.head(at))
    create(feed, definition(chapter=64, lookback=40, catch_up=dice.choice([5, 500])), "me")
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=1)
    while at < count:
        await process(feed)
        part = candles.slice(at, dice.choice([1, 1, 2, 5]))
        at += len(part)
        if len(part) > 1 and dice.random() < 0.3:
            holes.append(part.slice(1, 1))
            part = pl.concat([part.head(1), part.slice(2)])
        store(part, run_id=f"fetch-{at}")
        if dice.random() < 0.2:
            factor = dice.choice([0.9, 1.02, 1.1])
            store(candles.slice(dice.randrange(at - 60, at), 1).with_columns(pl.col("open", "high", "low", "close") * factor), run_id=f"change-{at}")
        if holes and dice.random() < 0.3:
            store(holes.pop(), run_id=f"repair-{at}")
        if dice.random() < 0.3:
            feed.lake.flush()
    await process(feed)
    span = Interval(START, START + count * HOUR_US)
    (then,) = replay_pipeline(feed, "trend", span, as_first_seen=True)
    with feed.lake.metadata.read() as tx:
        judged = decisions_of(tx, 1, 1, 1, span)
    assert told(feed)
    assert b"".join(record.as_line() for record in then.result.records if record.ts_us in judged) == told(feed)


async def test_a_lost_event_loses_nothing(feed, store, enabled):
    """Candles that no run was started for are all judged by the next run, whatever starts it; a second run finds nothing."""
    enabled()
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 12).tail(12))
    result = await process(feed, registry=REGISTRY)
    assert result.candles == 12
    assert (await process(feed, registry=REGISTRY)).candles == 0


async def test_events_tell_each_step(feed, store, enabled):
    """Cleaned, filtered, each stage, and the signal: typed, with the candle's name, after the rows are stored."""
    enabled()
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 30).tail(30))
    events = []
    result = await process(feed, registry=REGISTRY, listeners=[events.append])
    assert len([event for event in events if isinstance(event, DataCleaned)]) == 30
    assert {type(event) for event in events} == {DataCleaned, DataFiltered, PipelineStageCompleted, SignalGenerated}
    signal = next(event for event in events if isinstance(event, SignalGenerated))
    assert signal.payload()["pipeline"] == "trend"
    assert signal.confidence == result.signals[0].confidence


async def test_a_subscriber_that_raises_harms_nobody(feed, store, enabled):
    """The run ends well and other subscribers are told."""
    enabled()
    heard = []

    def fails(event):
        raise KeyError("not mine")

    result = await process(feed, registry=REGISTRY, listeners=[fails, heard.append])
    assert not result.errors
    assert heard


async def test_a_failing_plugin_touches_no_other_pipeline(feed, store, enabled):
    """The one that raises is noted by name, with its stage; the other one's signals are the same as without it."""
    enabled("broken", indicators=[{"plugin": "Raising"}], signals=[{"plugin": "breakout"}], confidence=[])
    enabled_row = create(feed, definition("trend"), "me", REGISTRY)
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, enabled_row.name, enabled=True, now_us=1)
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 30).tail(30))
    result = await process(feed, registry=REGISTRY)
    (error,) = result.errors
    assert "broken: kraken BTC/USD 1h" in error
    assert "indicator Raising (Raising) raised ZeroDivisionError: a plug-in's own mistake" in error
    (replayed,) = replay_pipeline(feed, "trend", Interval(START + (FIRST - 1) * HOUR_US, START + (FIRST + 30) * HOUR_US))
    assert replayed.result.lines == told(feed)
    with feed.lake.metadata.read() as tx:
        assert "ZeroDivisionError" in get_pipeline(tx, "broken").last_error
        assert get_pipeline(tx, "trend").last_error is None


@pytest.mark.parametrize("what", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StrangeError", "MemoryError"])
async def test_whatever_a_plugin_raises_ends_its_own_pipeline_only(feed, store, enabled, what):
    """What is no Exception, too: one error that names it, and the pipeline beside it has judged its candle."""
    enabled("broken", indicators=[{"plugin": "Raising", "parameters": {"what": what}}], signals=[{"plugin": "breakout"}], confidence=[])
    create(feed, definition("trend"), "me", REGISTRY)
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=1)
    result = await process(feed, registry=REGISTRY)
    (error,) = result.errors
    assert f"raised {what}: a plug-in's own mistake" in error
    assert result.candles == 2


@pytest.fixture
def hanging():
    """The calls of the plug-in that does not come back; it is let go after the test."""
    Hanging.release.clear()
    Hanging.calls.clear()
    yield Hanging.calls
    Hanging.release.set()


@pytest.mark.parametrize("spins", [pytest.param(True, marks=pytest.mark.slow), False])
async def test_a_plugin_that_hangs_holds_nobody_up(feed, store, enabled, hanging, spins):
    """It is given up after the stage's time and tried later and later; pipelines beside it judge every candle, and the run ends."""
    object.__setattr__(feed, "settings", feed.settings.model_copy(update={"stage_timeout": 1.0}))
    enabled("hung", indicators=[{"plugin": "Hanging", "parameters": {"spins": spins}}], signals=[{"plugin": "breakout"}], confidence=[])
    hanging.clear()  # it was asked for its columns and did not come back: stored all the same
    create(feed, definition("trend"), "me", REGISTRY)
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=1)
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 5).tail(5))
    result = await process(feed, registry=REGISTRY)
    assert hanging == ["hung", "hung"]  # once a run, however many candles wait
    (error,) = result.errors
    assert "hung: kraken BTC/USD 1h" in error
    assert "indicator Hanging (Hanging) did not come back within 1 s" in error
    (replayed,) = replay_pipeline(feed, "trend", Interval(START + (FIRST - 1) * HOUR_US, START + (FIRST + 5) * HOUR_US))
    assert replayed.result.lines == told(feed)
    with feed.lake.metadata.read() as tx:
        row = get_pipeline(tx, "hung")
        rows = [item for item in list_executions(tx, row.id) if item["stage"] == "indicator"]
    assert row.retry_at_us > feed.clock.now_us()
    assert row.running_since_us is None
    assert not is_due(row, feed.clock.now_us())
    assert is_due(row, feed.clock.now_us() - 30 * DAY_US)  # put off by a clock that was a month ahead
    assert "did not come back" in row.last_error
    assert {item["status"] for item in rows} == {"error"}
    with feed.lake.metadata.write() as tx:
        begin_run(tx, [row.id], feed.clock.now_us())  # its process died: run alone, and the same try is not counted twice
    store(market(FIRST + 6).tail(1))
    await process(feed, registry=REGISTRY)
    with feed.lake.metadata.read() as tx:
        assert get_pipeline(tx, "hung").failures == row.failures + 1


@pytest.fixture
def unborn():
    """The plug-in whose making can hang or raise; what was left behind in its thread is let go after the test."""
    Unborn.release.clear()
    Unborn.made.clear()
    yield Unborn
    Unborn.hangs, Unborn.fails, Unborn.look = False, "", staticmethod(lambda: None)
    Unborn.release.set()


async def test_a_plugin_whose_making_hangs_holds_nobody_up(feed, store, enabled, unborn):
    """It is given up after its time, named and tried later; the pipelines beside it judge on, and its candles wait for it."""
    patient = feed.settings
    enabled("unborn", indicators=[{"plugin": "Unborn"}], signals=[{"plugin": "breakout"}], confidence=[])
    create(feed, definition("trend"), "me", REGISTRY)
    object.__setattr__(feed, "settings", patient.model_copy(update={"stage_timeout": 0.3}))
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=1)
    unborn.hangs = True
    result = await process(feed, registry=REGISTRY)
    assert result.errors == [
        "unborn: indicator Unborn (Unborn) was not made within 0.3 s; correct the plug-in, or raise CANDLELAKE_STAGE_TIMEOUT when it needs more"]
    assert result.candles == 1  # of the pipeline beside it
    with feed.lake.metadata.read() as tx:
        row = get_pipeline(tx, "unborn")
    assert (row.failures, row.running_since_us) == (1, None)
    assert row.retry_at_us > feed.clock.now_us()
    assert "was not made" in row.last_error
    tries = len(unborn.made)
    assert not (await process(feed, registry=REGISTRY)).errors  # its next try is not due
    assert len(unborn.made) == tries
    with pytest.raises(PluginOverdueError, match="was not made within"):
        change(feed, definition("unborn", indicators=[{"plugin": "Unborn"}], signals=[{"plugin": "breakout"}], confidence=[], lookback=61),
               "me", REGISTRY)
    unborn.hangs = False
    object.__setattr__(feed, "settings", patient)
    store(market(FIRST + 1).tail(1))  # an hour later
    assert (await process(feed, registry=REGISTRY)).candles == 2
    with feed.lake.metadata.read() as tx:
        assert get_pipeline(tx, "unborn").last_error is None


async def test_a_process_that_dies_in_a_constructor_is_found_out(feed, store, enabled, unborn):
    """Whoever makes a plug-in has noted its pipeline as running before: if it dies there, the next run takes that pipeline alone and last."""
    enabled("unborn", indicators=[{"plugin": "Unborn"}], signals=[{"plugin": "breakout"}], confidence=[])
    create(feed, definition("trend"), "me", REGISTRY)
    marks = []

    def look():
        with feed.lake.metadata.read() as tx:
            marks.append({row.name for row in list_pipelines(tx) if row.running_since_us is not None})

    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=1)
    unborn.look = staticmethod(look)
    await process(feed, registry=REGISTRY)
    assert marks == [{"trend", "unborn"}]
    with feed.lake.metadata.write() as tx:
        begin_run(tx, [get_pipeline(tx, "unborn").id], feed.clock.now_us())  # as a process leaves it that died there
    store(market(FIRST + 1).tail(1))
    await process(feed, registry=REGISTRY)
    assert marks[1:] == [{"unborn"}]


@pytest.mark.parametrize("what", ["ZeroDivisionError", "SystemExit", "KeyboardInterrupt", "StrangeError"])
async def test_a_plugin_whose_making_raises_touches_no_other_pipeline(feed, store, enabled, unborn, what):
    """Whatever a constructor raises is that pipeline's error by name; the others judge their candles."""
    enabled("unborn", indicators=[{"plugin": "Unborn"}], signals=[{"plugin": "breakout"}], confidence=[])
    create(feed, definition("trend"), "me", REGISTRY)
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=1)
    unborn.fails = what
    result = await process(feed, registry=REGISTRY)
    assert (result.candles, len(result.errors)) == (1, 1)
    assert result.errors[0].startswith(f"unborn: indicator Unborn (Unborn) raised {what} when it was made: a plug-in's own mistake")
    with feed.lake.metadata.read() as tx:
        assert get_pipeline(tx, "unborn").running_since_us is None


async def test_a_pipeline_whose_process_died_runs_alone_and_later(feed, store, enabled):
    """What a killed process left marked is run after all others; a second death puts it off, success clears it."""
    row = enabled()
    with feed.lake.metadata.write() as tx:
        begin_run(tx, [row.id], feed.clock.now_us())
    assert (await process(feed, registry=REGISTRY)).candles == 1  # suspect, run alone, lived
    with feed.lake.metadata.write() as tx:
        begin_run(tx, [row.id], feed.clock.now_us(), suspect=True)
    store(market(FIRST + 1).tail(1))
    assert (await process(feed, registry=REGISTRY)).candles == 1  # an hour has passed: its back-off is over
    with feed.lake.metadata.read() as tx:
        assert get_pipeline(tx, "trend").running_since_us is None
    with feed.lake.metadata.write() as tx:
        begin_run(tx, [row.id], feed.clock.now_us(), suspect=True)
    assert (await process(feed, registry=REGISTRY)).candles == 0
    with feed.lake.metadata.read() as tx:
        assert get_pipeline(tx, "trend").failures == 1


async def test_two_runs_at_once_do_not_share_work(feed, enabled):
    """A second run that starts while the first one holds the lease is told so."""
    enabled()
    async with feed.leases.hold(LEASE, seconds=60):
        with pytest.raises(LeaseHeldError):
            await process(feed, registry=REGISTRY)


async def test_executors_are_asked_until_they_answer_and_only_at_the_threshold(feed, store, enabled):
    """A signal below the threshold is never handed on; one whose executor raised is handed on again with the same key."""
    Noting.asked.clear()
    Noting.fails = True
    enabled(executors=[{"plugin": "Noting"}])
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 60).tail(60))
    events = []
    result = await process(feed, registry=REGISTRY, listeners=[events.append])
    told_of = [event for event in events if isinstance(event, PipelineStageCompleted) and event.stage == "executor"]
    assert {(event.status, "ConnectionError" in event.error) for event in told_of} == {("error", True)}
    assert len(told_of) == len(Noting.asked)
    assert "ConnectionError" in result.errors[0]
    actionable = [record.key for record in result.signals if record.is_actionable]
    assert actionable
    assert len(actionable) < len(result.signals)
    assert Noting.asked == actionable
    Noting.fails = False
    Noting.asked.clear()
    assert (await process(feed, registry=REGISTRY)).executed == len(actionable)
    assert Noting.asked == actionable
    assert (await process(feed, registry=REGISTRY)).executed == 0
    with feed.lake.metadata.read() as tx:
        assert {row.execution for row in list_signals(tx, "trend")} == {"done", "none"}


async def test_a_challenger_sees_the_same_input_and_never_trades(feed, store, enabled):
    """Champion and challenger are judged on one reading; the challenger's executors are never asked; the report compares."""
    Noting.asked.clear()
    Noting.fails = False
    enabled(executors=[{"plugin": "Noting"}])
    slower = definition("slower", executors=[{"plugin": "Noting"}], threshold=0)
    slower["indicators"][1]["parameters"]["options"]["timeperiod"] = 30
    create(feed, slower, "me", REGISTRY)
    shadow(feed, "slower", "trend")
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "slower", enabled=True, now_us=1)
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 80).tail(80))
    await process(feed, registry=REGISTRY)
    assert Noting.asked
    assert all(key.startswith("trend@") for key in Noting.asked)
    (report,) = compare_shadow(feed, "trend", "slower", Interval(START, START + (FIRST + 80) * HOUR_US))
    assert report.candles == 81
    assert report.challenger.signals > 0
    assert report.agree <= report.both
    assert "too few signals to tell" in report.verdict
    with pytest.raises(InputError, match="one whose champion is slower"):
        compare_shadow(feed, "slower", "trend", Interval(START, START + 1))


async def test_a_planted_look_ahead_is_caught(feed, store, enabled):
    """A plug-in that knows the next close is named by `check`, with its column; a replay that uses it is refused."""
    enabled(
        "seer", indicators=[{"plugin": "Peeking"}], signals=[{"plugin": "crossover", "parameters": {"fast": "peek", "slow": 0}}],
        confidence=[])
    (report,) = check_pipeline(feed, "seer", registry=REGISTRY)
    assert not report.is_clean
    assert "the column peek after the indicator stage" in report.findings[0]
    with pytest.raises(LookAheadError, match="seer"):
        replay_pipeline(feed, "seer", Interval(START, START + FIRST * HOUR_US), registry=REGISTRY)
    enabled_trend = create(feed, definition("trend"), "me", REGISTRY)
    (clean,) = check_pipeline(feed, enabled_trend.name, registry=REGISTRY)
    assert clean.is_clean
    assert clean.signals > 0


async def test_what_is_not_causal_is_replayed_candle_by_candle(feed, store, enabled):
    """A generator that counts its rows says the same live and replayed, because it is never handed a longer window."""
    enabled(signals=[{"plugin": "Alone"}], filters=[{"plugin": "Scribbling"}])
    await process(feed, registry=REGISTRY)
    store(market(FIRST + 30).tail(30))
    await process(feed, registry=REGISTRY)
    (replayed,) = replay_pipeline(feed, "trend", Interval(START + (FIRST - 1) * HOUR_US, START + (FIRST + 30) * HOUR_US), registry=REGISTRY)
    assert replayed.result.lines == told(feed)
    assert b'"scribble"' not in told(feed)


def test_versions_count_up_and_old_ones_stay(feed, store):
    """A changed definition is the next version, an equal one is none; the old one can still be read and replayed."""
    store(market(FIRST))
    create(feed, definition(), "me", REGISTRY)
    assert change(feed, definition(), "me", REGISTRY).version == 1
    assert change(feed, definition(threshold=80), "me", REGISTRY).version == 2
    assert load(feed, "trend", 1)[1].threshold == 50
    (old,) = replay_pipeline(feed, "trend", Interval(START, START + FIRST * HOUR_US), version=1)
    assert b'"version":1' in old.result.lines
    with pytest.raises(InputError, match="a name that is free"):
        create(feed, definition(), "me", REGISTRY)
    with feed.lake.metadata.write() as tx:
        delete_pipeline(tx, "trend")
        assert list_pipelines(tx) == []


def test_comparison_is_on_the_same_candles(feed, store):
    """A pipeline against itself under another name agrees on every signal, and the report does not claim a winner."""
    store(market(600))
    create(feed, definition("one"), "me", REGISTRY)
    create(feed, definition("two"), "me", REGISTRY)
    (report,) = compare_pipelines(feed, "one", "two", Interval(START, START + 600 * HOUR_US))
    assert report.agreement == 1.0
    assert report.candles == 600
    assert not report.can_tell
    assert report.champion.outcomes.low < report.champion.outcomes.mean < report.champion.outcomes.high


def test_a_comparison_gives_each_of_the_two_its_whole_window(feed, store):
    """The one that looks further back gets its candles, also where the other's chapter is longer: it says what its own replay says."""
    store(market(500, seed=6))
    boundary = START + (-(START // HOUR_US) % 512) * HOUR_US  # a chapter of either begins here
    span = Interval(boundary, START + 500 * HOUR_US)
    create(feed, definition("short", lookback=10, chapter=512), "me", REGISTRY)
    slow = {"plugin": "talib", "name": "slow", "parameters": {"function": "SMA", "options": {"timeperiod": 60}}}
    create(feed, definition("long", lookback=100, chapter=64, filters=[], indicators=[*definition()["indicators"][::2], slow]), "me", REGISTRY)
    (report,) = compare_pipelines(feed, "short", "long", span)
    (alone,) = replay_pipeline(feed, "long", span)
    assert alone.result.records[0].ts_us < boundary + 40 * HOUR_US
    assert report.challenger.signals == len(alone.result.signals) > 0


@pytest.mark.parametrize(("changes", "told"), [
    ({"signals": [{"plugin": "crossover", "parameters": {"fast": "fast", "slow": "slo"}}]},
     r"pipeline trend signals.0 \(crossover\) column: received 'slo'; allowed: ts, open, .*, fast, slow, rsi; add an indicator"),
    ({"confidence": [{"plugin": "weighted", "parameters": {"components": [{"column": "rsy", "low": 30, "high": 70}]}}]},
     r"pipeline trend confidence.0 \(weighted\) column: received 'rsy'"),
    ({"indicators": [{"plugin": "talib", "name": "rsi", "parameters": {"function": "RSI", "inputs": ["fats"]}}], "signals": [{"plugin": "breakout"}]},
     r"input of rsi: received 'fats'; allowed: .*put the indicator that makes it before this one"),
])
def test_a_column_that_nobody_makes_is_refused_before_it_is_stored(feed, store, changes, told):
    """Generators, evaluators and indicators that name a column which is not there: the place, the name, and the columns there are."""
    store(market(10))
    with pytest.raises((InputError, PluginError), match=told):
        create(feed, definition(**changes), "me", REGISTRY)
    with feed.lake.metadata.read() as tx:
        assert list_pipelines(tx) == []


def test_a_series_that_is_not_stored_is_refused(feed):
    """The definition's error names the place, the series, and that it is not there."""
    wrong = definition()
    wrong["series"] = [{"connection": "kraken", "symbol": "ETH/USD", "timeframe": "1h"}]
    with pytest.raises(InputError, match=r"series\.0.*ETH/USD.*a stored series"):
        create(feed, wrong, "me", REGISTRY)


