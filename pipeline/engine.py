"""Runs a pipeline: stage after stage on a frozen input, each timed, digested and kept from harming others.

`run` judges one candle, as a live run does. `scan` judges many candles of one chapter at once, as a replay does; where a
plug-in is not causal or not vectorised it goes candle by candle, so both always say the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import polars as pl

from core.candles import CANDLE_SCHEMA
from core.clock import to_datetime
from core.errors import CandlelakeError, InputError, PluginError, PluginOverdueError
from core.interval import Interval
from pipeline.deadline import OverdueError, within
from pipeline.definition import PipelineDefinition
from pipeline.frozen import FrozenInput, RowDigests, candles_only, output_digest, times_us
from pipeline.outcome import Outcome, Part, Scan, StageRun
from pipeline.registry import Built, Registry
from pipeline.stages import CONFIDENCE_MAX, FOUND_SCHEMA, NUMBERS, SIDES, Context, Kind, Signal, SignalRecord

MS: Final = 1_000.0
_COLUMNS: Final = list(CANDLE_SCHEMA)


@dataclass(slots=True)
class _State:
    """What stages hand on: cleaned rows with indicators, where signals may arise, which were found and how sure."""

    frame: pl.DataFrame
    passed: pl.Series | None = None
    found: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=FOUND_SCHEMA))
    confidence: pl.Series = field(default_factory=lambda: pl.Series("confidence", [], pl.Float64))
    first: int = 0  # rows before it are only there to look back on
    note: str = ""


class Engine:
    """One pipeline's plug-ins, made once; an engine holds no candles and can be used for every series."""

    def __init__(self, definition: PipelineDefinition, registry: Registry | None = None, *, stage_seconds: float | None = None) -> None:
        """Make the plug-ins.

        Args:
            definition: what to run.
            registry: where plug-ins come from.
            stage_seconds: how long to wait until a plug-in is made, and `run` for one call of a foreign one; None waits for ever, as
                `scan` does.

        Raises:
            InputError, PluginError, PluginOverdueError: as `Registry.build`.
        """
        self.definition = definition
        self.stage_seconds = stage_seconds
        self.registry = registry or Registry()
        self.built = self.registry.build(definition, seconds=stage_seconds)
        self.stages: dict[Kind, list[Built]] = {
            kind: [item for item in self.built if item.kind == kind]
            for kind in ("cleaner", "filter", "indicator", "signal", "confidence")}

    def again(self) -> Engine:
        """Return the same pipeline with plug-ins that have seen nothing yet."""
        return Engine(self.definition, self.registry, stage_seconds=self.stage_seconds)

    @property
    def is_causal(self) -> bool:
        """Whether the pipeline may be handed many candles at once."""
        return all(item.is_causal for items in self.stages.values() for item in items)

    def run(self, frozen: FrozenInput, ts_us: int, context: Context, as_of_us: int) -> Outcome:
        """Judge the candle that opens at `ts_us`, the last one of `frozen`; what a plug-in raises is in the outcome.

        Raises:
            InputError: the last candle is another one.
        """
        last = frozen.candles["ts"][-1] if len(frozen.candles) else None
        if last != to_datetime(ts_us):
            raise InputError("frozen input", str(last), f"a last candle at {to_datetime(ts_us)}", "cut it at the frontier")
        outcome = Outcome(ts_us)
        digest = frozen.digest
        state = _State(frozen.candles.select(_COLUMNS), first=len(frozen.candles) - 1)
        for kind, stage in _STAGES.items():
            stage_run, error = self._stage(kind, stage, state, context, digest)
            outcome.stages.append(stage_run)
            digest = stage_run.output_digest or digest
            if error is not None:
                outcome.error = error
                return outcome
            if kind == "cleaner" and (not len(state.frame) or state.frame["ts"][-1] != last):
                state.note = "the newest candle was cleaned away"
            if kind == "filter" and state.passed is not None and not state.passed[-1]:
                state.note = "the newest candle did not pass"
            if kind == "signal" and not len(state.found):
                state.note = "no signal"
            if state.note:
                outcome.stages[-1] = _stopped(stage_run, state.note)
                return outcome
        (outcome.signal,) = self._records(state, context, [frozen.digest], as_of_us)
        return outcome

    def scan(self, candles: pl.DataFrame, asked: Interval, context: Context, *, singly: bool = False) -> Scan:
        """Judge every candle in `asked` of one chapter's window.

        Args:
            candles: the window of the chapter (`frozen.cut`), up to the last candle to judge.
            asked: candles that open in it are judged.
            context: of the series.
            singly: judge them one by one even where all could be judged at once.

        Raises:
            PluginError: a plug-in raised; the whole scan is refused.
        """
        ts = times_us(candles)
        first, end = (int(i) for i in np.searchsorted(ts, [asked.start, asked.end]))
        window = candles_only(candles.head(end))
        if first >= end:
            return Scan(self._frame(_State(window), []), 0)
        if singly or not self.is_causal:
            return self._singly(window, first, context)
        state = _State(window, first=first)
        stages = []
        for kind, stage in _STAGES.items():
            if kind == "signal":  # rows before it were only there to look back on
                state.first = int(np.searchsorted(times_us(state.frame), ts[first]))  # cleaners may drop rows
            stage_run, error = self._stage(kind, stage, state, context, "", digests=False, last_only=False)
            stages.append(stage_run)
            if error is not None:
                raise error
        return Scan(self._frame(state, _digests(window, state)), end - first, stages)

    def columns(self, candles: pl.DataFrame, context: Context, until: Kind) -> tuple[pl.DataFrame, pl.Series | None]:
        """Return what the stages up to `until` make of a window: rows with indicator columns, and which passed the filters."""
        state = _State(candles.select(_COLUMNS), first=0)
        for kind, stage in _STAGES.items():
            _, error = self._stage(kind, stage, state, context, "", digests=False, last_only=False)
            if error is not None:
                raise error
            if kind == until:
                break
        return state.frame, state.passed

    def _singly(self, window: pl.DataFrame, first: int, context: Context) -> Scan:
        parts, stages = [], []
        for end in range(first + 1, len(window) + 1):
            state = _State(window.head(end), first=end - 1)
            newest = window["ts"][end - 1]
            for kind, stage in _STAGES.items():
                stage_run, error = self._stage(kind, stage, state, context, "", digests=False)
                stages.append(stage_run)
                if error is not None:
                    raise error
                if _is_over(kind, state, newest):
                    break
            else:
                parts.append(self._frame(state, _digests(window, state)))
        empty = self._frame(_State(window.clear()), [])
        return Scan(pl.concat(parts, how="diagonal_relaxed") if parts else empty, len(window) - first, stages)

    def _stage(
        self, kind: Kind, stage: _Stage, state: _State, context: Context, digest: str, *,
        digests: bool = True, last_only: bool = True,
    ) -> tuple[StageRun, CandlelakeError | None]:
        parts: list[Part] = []
        rows_in = len(state.frame)
        error: CandlelakeError | None = None
        began = time.perf_counter()
        for item in self.stages[kind]:
            at = time.perf_counter()
            try:
                self._call(item, partial(stage, item, state, context, last_only), last_only=last_only)
            except BaseException as failure:
                if isinstance(failure, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                    raise  # a person's Ctrl-C comes to the main thread and to no other
                error = _blame(item, failure)
            parts.append(Part(item.use.label, item.use.plugin, (time.perf_counter() - at) * MS))
            if error is not None:
                break
        spent = (time.perf_counter() - began) * MS
        if error is not None:
            return StageRun(kind, "error", rows_in, None, digest, None, spent, parts, str(error)), error
        if kind == "confidence" and not self.stages[kind]:  # nobody vouches for them
            state.confidence = pl.Series("confidence", [0.0] * len(state.found), pl.Float64)
        out = _output(kind, state)
        return StageRun(kind, "ok", rows_in, len(out), digest, output_digest(out) if digests else None, spent, parts), None

    def _call(self, item: Built, call: Callable[[], None], *, last_only: bool) -> None:
        """Call a plug-in; a foreign one of a live run gets so long and no longer."""
        if self.stage_seconds is None or item.is_ours or not last_only:
            return call()
        try:
            return within(self.stage_seconds, call)
        except OverdueError:
            raise PluginOverdueError(
                f"{item.kind} {item.use.label} ({item.use.plugin}) did not come back within {self.stage_seconds:g} s; correct the plug-in,"
                " or raise CANDLELAKE_STAGE_TIMEOUT when it needs more") from None

    def _frame(self, state: _State, digests: Sequence[str]) -> pl.DataFrame:
        """Return the signals of a state as SIGNAL_SCHEMA with `values`."""
        rows = state.found["row"].to_numpy()
        names = [name for name in state.frame.columns if name not in CANDLE_SCHEMA]
        columns = [pl.Series(name, state.frame[name].to_numpy()[rows]) for name in names]  # NumPy: a few rows of many
        values = pl.DataFrame(columns).to_struct("values") if names else pl.Series("values", [{}] * len(rows), pl.Struct([]))
        return pl.DataFrame([
            pl.Series("ts", times_us(state.frame)[rows]).cast(CANDLE_SCHEMA["ts"]), state.found["side"],
            pl.Series("price", state.frame["close"].to_numpy()[rows]), state.confidence.alias("confidence"),
            state.found["reason"], pl.Series("input_digest", digests, pl.String), values,
        ])

    def _records(self, state: _State, context: Context, digests: Sequence[str], as_of_us: int) -> list[SignalRecord]:
        return records(self._frame(state, digests), self.definition, context, as_of_us)


def records(
    signals: pl.DataFrame, definition: PipelineDefinition, context: Context, as_of_us: int = 0,
) -> list[SignalRecord]:
    """Return a scan's signals as records."""
    times = signals["ts"].dt.epoch("us").to_list()
    return [
        SignalRecord(
            context.pipeline, context.version, context.series, ts, context.grid.next(ts), SIDES[row["side"]], row["price"],
            row["confidence"], definition.threshold, row["reason"] or "",
            {name: _finite(value) for name, value in (row["values"] or {}).items()}, row["input_digest"], as_of_us)
        for ts, row in zip(times, signals.iter_rows(named=True), strict=True)
    ]


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _is_over(kind: Kind, state: _State, newest: Any) -> bool:
    """Whether a candle that is judged alone needs no further stage."""
    if kind == "cleaner":
        return not len(state.frame) or state.frame["ts"][-1] != newest
    if kind == "filter":
        return state.passed is not None and not state.passed[-1]
    return kind == "signal" and not len(state.found)


def _digests(window: pl.DataFrame, state: _State) -> list[str]:
    """Return the digest of the input of each found row: of the rows of `window` up to its candle."""
    if not len(state.found):
        return []
    rows = np.searchsorted(times_us(window), times_us(state.frame)[state.found["row"].to_numpy()])
    walk = RowDigests(window)
    return [walk.at(row) for row in rows.tolist()]


def _stopped(run: StageRun, note: str) -> StageRun:
    return StageRun(run.kind, "stopped", run.rows_in, run.rows_out, run.input_digest, run.output_digest, run.ms, run.parts, None, note)


def _blame(item: Built, failure: BaseException) -> CandlelakeError:
    where = f"{item.kind} {item.use.label} ({item.use.plugin})"
    if isinstance(failure, PluginError):
        return failure
    text = " ".join(str(failure).split())[:500]
    return PluginError(f"{where} raised {type(failure).__name__}: {text}; correct the plug-in or its parameters")


def _broken(item: Built, received: object, allowed: str) -> PluginError:
    return PluginError(
        f"{item.kind} {item.use.label} ({item.use.plugin}) gave {received}; allowed: {allowed}; correct the plug-in")


def _output(kind: Kind, state: _State) -> pl.DataFrame:
    if kind == "filter":
        return pl.DataFrame([state.passed]) if state.passed is not None else state.frame
    if kind == "signal":
        return state.found
    if kind == "confidence":
        return pl.DataFrame([state.confidence])
    return state.frame


def _clean(item: Built, state: _State, context: Context, _last_only: bool) -> None:
    out = item.plugin.clean(state.frame.clone(), context)
    if not isinstance(out, pl.DataFrame) or out.columns != _COLUMNS or dict(out.schema) != dict(CANDLE_SCHEMA):
        raise _broken(item, _shape(out), f"a frame with the columns {', '.join(_COLUMNS)}")
    if len(out) > len(state.frame) or not _are_rows_of(out, state.frame):
        raise _broken(item, f"{len(out)} rows of {len(state.frame)}", "some of the rows it got, in their order, unchanged times")
    state.frame = out


def _are_rows_of(out: pl.DataFrame, frame: pl.DataFrame) -> bool:
    if len(out) == len(frame):
        return out["ts"].equals(frame["ts"])
    times = out["ts"].dt.epoch("us").to_numpy()
    return bool(np.all(np.diff(times) > 0)) and bool(np.isin(times, frame["ts"].dt.epoch("us").to_numpy(), assume_unique=True).all())


def _filter(item: Built, state: _State, context: Context, _last_only: bool) -> None:
    out = item.plugin.filter(state.frame.clone(), context)
    if not isinstance(out, pl.Series) or out.dtype != pl.Boolean or len(out) != len(state.frame):
        raise _broken(item, _shape(out), f"a Boolean Series of {len(state.frame)} rows")
    mask = out.fill_null(value=False).alias("passed")
    state.passed = mask if state.passed is None else (state.passed & mask)


def _calculate(item: Built, state: _State, context: Context, _last_only: bool) -> None:
    out = item.plugin.calculate(state.frame.clone(), context)
    if not isinstance(out, pl.DataFrame) or len(out) != len(state.frame) or not out.columns:
        raise _broken(item, _shape(out), f"a frame of new columns with {len(state.frame)} rows")
    out = item.named(out)
    doubled = [name for name in out.columns if name in state.frame.columns]
    if doubled:
        raise _broken(item, f"the column {doubled[0]!r} again", f"none of {', '.join(state.frame.columns)}")
    wrong = [name for name, dtype in out.schema.items() if dtype != pl.Float64]
    if wrong:
        raise _broken(item, f"{wrong[0]!r} as {out.schema[wrong[0]]}", "Float64 columns")
    state.frame = state.frame.hstack(out)


def _generate(item: Built, state: _State, context: Context, last_only: bool) -> None:
    if last_only:
        if len(state.found):
            return  # the first generator that sees one decides
        state.found = _found_in_last(item, state, context)
        return
    whole = getattr(item.plugin, "generate_all", None)
    if whole is None:
        rows = [_found_at(item, state, row, context) for row in range(state.first, len(state.frame))]
        found = pl.concat([one for one in rows if len(one)]) if any(len(one) for one in rows) else state.found.clear()
    else:
        found = whole(state.frame.clone(), context)
        if not isinstance(found, pl.DataFrame) or dict(found.schema) != dict(FOUND_SCHEMA):
            raise _broken(item, _shape(found), "a frame of FOUND_SCHEMA (row, side, reason)")
        rows_found = found["row"].to_numpy()
        if len(found) and (np.any(np.diff(rows_found.astype(np.int64)) <= 0) or rows_found[-1] >= len(state.frame)):
            raise _broken(item, "rows out of order or outside", f"ascending rows below {len(state.frame)}")
        found = found.slice(int(np.searchsorted(rows_found, state.first)))
    if state.passed is not None:
        found = found.filter(state.passed.gather(found["row"]))
    if len(state.found) and len(found):
        found = pl.concat([state.found, found.join(state.found, on="row", how="anti")]).sort("row")
    state.found = found if len(found) else state.found


def _found_in_last(item: Built, state: _State, context: Context) -> pl.DataFrame:
    return _found_at(item, state, len(state.frame) - 1, context)


def _found_at(item: Built, state: _State, row: int, context: Context) -> pl.DataFrame:
    signal = item.plugin.generate(state.frame.head(row + 1), context)
    if signal is None:
        return pl.DataFrame(schema=FOUND_SCHEMA)
    if not isinstance(signal, Signal) or signal.side not in NUMBERS:
        raise _broken(item, repr(signal)[:100], "a Signal with side buy or sell, or None")
    return pl.DataFrame({"row": [row], "side": [NUMBERS[signal.side]], "reason": [signal.reason]}, schema=FOUND_SCHEMA)


def _evaluate(item: Built, state: _State, context: Context, last_only: bool) -> None:
    if not len(state.found):
        state.confidence = pl.Series("confidence", [], pl.Float64)
        return
    whole = None if last_only else getattr(item.plugin, "evaluate_all", None)
    if whole is not None:
        out = whole(state.found.clone(), state.frame.clone(), context)
        if not isinstance(out, pl.Series) or out.dtype != pl.Float64 or len(out) != len(state.found):
            raise _broken(item, _shape(out), f"a Float64 Series of {len(state.found)} rows")
    else:
        out = pl.Series("confidence", [
            _confidence(item, item.plugin.evaluate(Signal(SIDES[side], reason or ""), state.frame.head(row + 1), context))
            for row, side, reason in state.found.iter_rows()], pl.Float64)
    valid = out.is_between(0.0, CONFIDENCE_MAX).fill_null(value=False)  # NaN is none either: it compares as greatest
    if not valid.all():
        raise _broken(item, f"the confidence {out.filter(~valid)[0]!r}", "0 to 100")
    before = state.confidence
    state.confidence = out.alias("confidence") if len(before) != len(out) else pl.select(
        pl.min_horizontal(before, out).alias("confidence")).to_series()


def _confidence(item: Built, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating)):
        raise _broken(item, repr(value)[:60], "a number from 0 to 100")
    return float(value)


def _shape(value: object) -> str:
    if isinstance(value, pl.DataFrame):
        return f"a frame of {len(value)} rows with {', '.join(f'{n}: {d}' for n, d in value.schema.items())}"
    if isinstance(value, pl.Series):
        return f"a Series of {len(value)} {value.dtype}"
    return f"a {type(value).__name__}"


_Stage = Callable[[Built, _State, Context, bool], None]
_STAGES: Final[dict[Kind, _Stage]] = {
    "cleaner": _clean, "filter": _filter, "indicator": _calculate, "signal": _generate, "confidence": _evaluate}
