"""Pipelines in the metadata store: definitions and versions, watermarks, executions, signals, filter strategies.

Definitions are plain mappings here: what they mean is the pipeline's business. Functions take an open transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from core.clock import MINUTE_US, has_come
from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from storage.metadata.tables import connections, revisions
from storage.metadata.tables import series as series_table
from storage.metadata.tables_pipeline import (
    filter_strategies,
    pipeline_executions,
    pipeline_versions,
    pipeline_watermarks,
    pipelines,
    signals,
)

LONGEST_BACKOFF_MINUTES = 60


@dataclass(frozen=True, slots=True)
class PipelineRow:
    """A pipeline with the definition of the version in force."""

    id: int
    name: str
    owner: str
    version: int
    definition: Mapping[str, Any]
    digest: str
    is_enabled: bool
    shadow_of: str | None
    is_live: bool
    running_since_us: int | None
    failures: int
    retry_at_us: int | None
    last_error: str | None
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True)
class SignalRow:
    """A stored signal; `values` as it was decided."""

    id: int
    pipeline_id: int
    pipeline: str
    version: int
    series_id: int
    series: Series
    ts_us: int
    close_us: int
    side: str
    price: float
    confidence: float
    threshold: float
    reason: str
    values: Mapping[str, float | None]
    input_digest: str
    is_shadow: bool
    run_id: str
    as_of_us: int
    created_at_us: int
    execution: str
    execution_message: str | None


def create_pipeline(tx: Connection, definition: Mapping[str, Any], digest: str, owner: str, now_us: int) -> PipelineRow:
    """Store a new pipeline, switched off, as version 1.

    Raises:
        InputError: the name is taken.
    """
    name = definition["name"]
    if tx.execute(select(pipelines.c.id).where(pipelines.c.name == name)).first() is not None:
        raise InputError("pipeline", name, "a name that is free", "change the stored one with import, or take another name")
    made = tx.execute(pipelines.insert().values(
        name=name, owner=owner, version=1, is_enabled=False, is_live=False, failures=0, created_at_us=now_us, updated_at_us=now_us))
    (pipeline_id,) = made.inserted_primary_key or (0,)
    _add_version(tx, pipeline_id, {**definition, "version": 1}, digest=digest, author=owner, now_us=now_us)
    return get_pipeline(tx, name)


def change_pipeline(tx: Connection, definition: Mapping[str, Any], digest: str, author: str, now_us: int) -> PipelineRow:
    """Store a definition as the pipeline's next version; one that does the same as the version in force changes nothing."""
    row = get_pipeline(tx, definition["name"])
    if row.digest == digest:
        return row
    version = tx.execute(select(func.max(pipeline_versions.c.version)).where(
        pipeline_versions.c.pipeline_id == row.id)).scalar_one() + 1
    _add_version(tx, row.id, {**definition, "version": version}, digest=digest, author=author, now_us=now_us)
    _set(tx, row.id, now_us, version=version, failures=0, retry_at_us=None, last_error=None)
    return get_pipeline(tx, row.name)


def _add_version(
    tx: Connection, pipeline_id: int, definition: Mapping[str, Any], *, digest: str, author: str, now_us: int,
) -> None:
    tx.execute(pipeline_versions.insert().values(
        pipeline_id=pipeline_id, version=definition["version"], definition=dict(definition), digest=digest, author=author,
        created_at_us=now_us))


def get_pipeline(tx: Connection, name: str) -> PipelineRow:
    """Return a pipeline by its name; NotFoundError when there is none."""
    found = tx.execute(_rows().where(pipelines.c.name == name)).mappings().first()
    if found is None:
        raise NotFoundError(f"no pipeline {name!r}; `candlelake pipelines list` shows what there is")
    return PipelineRow(**found)


def list_pipelines(tx: Connection, *, only_enabled: bool = False) -> list[PipelineRow]:
    """Return the pipelines by name."""
    query = _rows().where(pipelines.c.is_enabled) if only_enabled else _rows()
    return [PipelineRow(**found) for found in tx.execute(query.order_by(pipelines.c.name)).mappings()]


def definition_of(tx: Connection, pipeline_id: int, version: int) -> Mapping[str, Any]:
    """Return the definition of one version; NotFoundError when there is none."""
    found = tx.execute(select(pipeline_versions.c.definition).where(
        pipeline_versions.c.pipeline_id == pipeline_id, pipeline_versions.c.version == version)).scalar()
    if found is None:
        raise NotFoundError(f"the pipeline has no version {version}")
    kept: Mapping[str, Any] = found
    return kept


def set_enabled(tx: Connection, name: str, *, enabled: bool, now_us: int) -> PipelineRow:
    """Switch a pipeline on or off; what failed before is forgotten."""
    row = get_pipeline(tx, name)
    _set(tx, row.id, now_us, is_enabled=enabled, failures=0, retry_at_us=None, running_since_us=None)
    return get_pipeline(tx, name)


def set_shadow(tx: Connection, name: str, champion: str | None, now_us: int) -> PipelineRow:
    """Make a pipeline a challenger of another one, which sees the same input and never trades; None ends that.

    Raises:
        InputError: the champion is itself a challenger, or the pipeline itself. NotFoundError: no such champion.
    """
    row = get_pipeline(tx, name)
    if champion is not None:
        if champion == name or get_pipeline(tx, champion).shadow_of is not None:
            raise InputError("shadow of", champion, "another pipeline that is no challenger itself", "name the champion")
        if tx.execute(select(pipelines.c.id).where(pipelines.c.shadow_of == name)).first() is not None:
            raise InputError("shadow", name, "a pipeline without challengers of its own", "end those first")
    _set(tx, row.id, now_us, shadow_of=champion)
    return get_pipeline(tx, name)


def set_live(tx: Connection, name: str, *, live: bool, now_us: int) -> PipelineRow:
    """Note whether the owner allows real orders for this pipeline; one of three switches."""
    row = get_pipeline(tx, name)
    _set(tx, row.id, now_us, is_live=live)
    return get_pipeline(tx, name)


def delete_pipeline(tx: Connection, name: str) -> None:
    """Remove a pipeline with its versions, executions and signals; orders stay."""
    row = get_pipeline(tx, name)
    tx.execute(pipelines.update().where(pipelines.c.shadow_of == name).values(shadow_of=None, is_enabled=False))
    tx.execute(pipelines.delete().where(pipelines.c.id == row.id))


def begin_run(tx: Connection, pipeline_ids: Iterable[int], now_us: int, *, suspect: bool = False) -> None:
    """Note that a process runs these pipelines. A suspect's next try is put off beforehand: its process may die again."""
    for pipeline_id in pipeline_ids:
        changes: dict[str, Any] = {"running_since_us": now_us}
        if suspect:
            changes |= _put_off(tx, pipeline_id, now_us) | {"last_error": "the process that ran it died; it is run alone and later"}
        tx.execute(pipelines.update().where(pipelines.c.id == pipeline_id).values(**changes))


def end_overdue(tx: Connection, pipeline_id: int, error: str, now_us: int, *, suspect: bool) -> None:
    """Note that a run ended without the pipeline's plug-in: its next try comes later each time. A suspect's is put off already."""
    later = {} if suspect else _put_off(tx, pipeline_id, now_us)
    tx.execute(pipelines.update().where(pipelines.c.id == pipeline_id).values(running_since_us=None, last_error=error, **later))


def _put_off(tx: Connection, pipeline_id: int, now_us: int) -> dict[str, Any]:
    failures = tx.execute(select(pipelines.c.failures).where(pipelines.c.id == pipeline_id)).scalar_one() + 1
    return {"failures": failures, "retry_at_us": now_us + min(2 ** failures, LONGEST_BACKOFF_MINUTES) * MINUTE_US}


def is_due(row: PipelineRow, now_us: int) -> bool:
    """Whether a pipeline is not put off."""
    return row.retry_at_us is None or has_come(row.retry_at_us, now_us, LONGEST_BACKOFF_MINUTES * MINUTE_US)


def end_run(tx: Connection, pipeline_id: int, error: str | None) -> None:
    """Note that the run is over, and its last error."""
    tx.execute(pipelines.update().where(pipelines.c.id == pipeline_id).values(
        running_since_us=None, failures=0, retry_at_us=None, last_error=error))


def watermarks_of(tx: Connection, pipeline_ids: Sequence[int]) -> dict[tuple[int, int], int]:
    """Return the open time of the last judged candle, by pipeline id and series id."""
    marks = pipeline_watermarks
    found = tx.execute(select(marks.c.pipeline_id, marks.c.series_id, marks.c.seen_us).where(marks.c.pipeline_id.in_(pipeline_ids)))
    return {(pipeline_id, series_id): seen for pipeline_id, series_id, seen in found}


def move_watermark(tx: Connection, pipeline_id: int, series_id: int, seen_us: int, now_us: int) -> None:
    """Note the last judged candle; never goes back."""
    key = and_(pipeline_watermarks.c.pipeline_id == pipeline_id, pipeline_watermarks.c.series_id == series_id)
    seen = tx.execute(select(pipeline_watermarks.c.seen_us).where(key)).scalar()
    if seen is None:
        tx.execute(pipeline_watermarks.insert().values(
            pipeline_id=pipeline_id, series_id=series_id, seen_us=seen_us, updated_at_us=now_us))
    elif seen_us > seen:
        tx.execute(pipeline_watermarks.update().where(key).values(seen_us=seen_us, updated_at_us=now_us))


def add_executions(tx: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store stage rows of `pipeline_executions`."""
    if rows:
        tx.execute(pipeline_executions.insert(), [dict(row) for row in rows])


def add_signal(tx: Connection, values: Mapping[str, Any]) -> bool:
    """Store a signal unless its candle has one of this pipeline and version; returns whether it is new."""
    key = [signals.c[name] == values[name] for name in ("pipeline_id", "version", "series_id", "ts_us")]
    if tx.execute(select(signals.c.id).where(*key)).first() is not None:
        return False
    tx.execute(signals.insert().values(**values))
    return True


def mark_execution(tx: Connection, signal_id: int, status: str, message: str) -> None:
    """Note what an executor answered."""
    tx.execute(signals.update().where(signals.c.id == signal_id).values(execution=status, execution_message=message[:2000]))


def list_signals(
    tx: Connection, pipeline: str | None = None, *, series: Series | None = None, interval: Interval | None = None,
    execution: str | None = None, version: int | None = None, limit: int | None = None,
) -> list[SignalRow]:
    """Return the signals that match all that is given, oldest first; with a limit the newest ones."""
    query = _signals()
    if pipeline is not None:
        query = query.where(pipelines.c.name == pipeline)
    if series is not None:
        query = query.where(
            connections.c.slug == series.connection, series_table.c.symbol == series.symbol,
            series_table.c.timeframe == series.timeframe.name)
    if interval is not None:
        query = query.where(signals.c.ts_us >= interval.start, signals.c.ts_us < interval.end)
    if execution is not None:
        query = query.where(signals.c.execution == execution)
    if version is not None:
        query = query.where(signals.c.version == version)
    query = query.order_by(signals.c.ts_us.desc(), signals.c.id.desc())
    found = tx.execute(query if limit is None else query.limit(limit)).mappings().all()
    return [_signal(dict(item)) for item in reversed(found)]


def decisions_of(tx: Connection, pipeline_id: int, version: int, series_id: int, interval: Interval) -> dict[int, int]:
    """Return when each candle was judged live: `as_of_us` by its open time."""
    rows = pipeline_executions.c
    found = tx.execute(select(rows.ts_us, func.min(rows.as_of_us)).where(
        rows.pipeline_id == pipeline_id, rows.version == version, rows.series_id == series_id, rows.stage == "cleaner",
        rows.ts_us >= interval.start, rows.ts_us < interval.end).group_by(rows.ts_us))
    return {int(ts): int(as_of) for ts, as_of in found}


def earlier_values_of(tx: Connection, series_id: int, before_us: int) -> list[tuple[int, int]]:
    """Return (known_at_us, ts_us) of every value that a provider replaced later, of candles before an instant."""
    found = tx.execute(select(revisions.c.old_known_at_us, revisions.c.ts_us).where(
        revisions.c.series_id == series_id, revisions.c.ts_us < before_us))
    return [(known, ts) for known, ts in found]


def execution_times(tx: Connection, pipeline_id: int, since_us: int = 0) -> list[tuple[str, str, float]]:
    """Return stage, status and milliseconds of each execution since an instant."""
    rows = pipeline_executions.c
    found = tx.execute(select(rows.stage, rows.status, rows.execution_time_ms).where(
        rows.pipeline_id == pipeline_id, rows.created_at_us >= since_us))
    return [(stage, status, ms) for stage, status, ms in found]


def list_executions(tx: Connection, pipeline_id: int, limit: int = 100) -> list[Mapping[str, Any]]:
    """Return the newest stage rows, newest first."""
    query = select(pipeline_executions).where(pipeline_executions.c.pipeline_id == pipeline_id)
    return [dict(row) for row in tx.execute(query.order_by(pipeline_executions.c.id.desc()).limit(limit)).mappings()]


def prune_executions(tx: Connection, before_us: int) -> int:
    """Remove stage rows older than an instant; signals stay. Returns how many."""
    return tx.execute(pipeline_executions.delete().where(pipeline_executions.c.created_at_us < before_us)).rowcount


def save_strategy(tx: Connection, owner: str, name: str, *, expression: str, description: str, now_us: int) -> None:
    """Store a person's filter expression under a name, in place of an earlier one."""
    table = filter_strategies
    key = and_(table.c.owner == owner, table.c.name == name)
    values = {"expression": expression, "description": description, "updated_at_us": now_us}
    if tx.execute(select(table.c.id).where(key)).first() is None:
        tx.execute(table.insert().values(owner=owner, name=name, created_at_us=now_us, **values))
    else:
        tx.execute(table.update().where(key).values(**values))


def list_strategies(tx: Connection, owner: str | None = None) -> list[Mapping[str, Any]]:
    """Return the stored filter expressions, of one owner or of all."""
    query = select(filter_strategies).order_by(filter_strategies.c.owner, filter_strategies.c.name)
    return [dict(row) for row in tx.execute(query if owner is None else query.where(filter_strategies.c.owner == owner)).mappings()]


def get_strategy(tx: Connection, owner: str, name: str) -> Mapping[str, Any]:
    """Return one; NotFoundError when the owner has none of that name."""
    table = filter_strategies
    found = tx.execute(select(table).where(table.c.owner == owner, table.c.name == name)).mappings().first()
    if found is None:
        raise NotFoundError(f"{owner} has no filter strategy {name!r}; `candlelake pipelines filters` lists them")
    return dict(found)


def delete_strategy(tx: Connection, owner: str, name: str) -> None:
    """Remove one; versions of pipelines keep their copies."""
    found = get_strategy(tx, owner, name)
    tx.execute(filter_strategies.delete().where(filter_strategies.c.id == found["id"]))


def _set(tx: Connection, pipeline_id: int, now_us: int, **values: Any) -> None:
    tx.execute(pipelines.update().where(pipelines.c.id == pipeline_id).values(updated_at_us=now_us, **values))


def _rows() -> Select[Any]:
    return select(pipelines, pipeline_versions.c.definition, pipeline_versions.c.digest).join(
        pipeline_versions, and_(
            pipeline_versions.c.pipeline_id == pipelines.c.id, pipeline_versions.c.version == pipelines.c.version))


def _signals() -> Select[Any]:
    return select(
        signals, pipelines.c.name.label("pipeline"), connections.c.slug, series_table.c.symbol, series_table.c.timeframe,
    ).select_from(signals).join(pipelines).join(series_table).join(connections)


def _signal(values: dict[str, Any]) -> SignalRow:
    series = Series(values.pop("slug"), values.pop("symbol"), Timeframe.parse(values.pop("timeframe")))
    return SignalRow(series=series, **values)
