"""Artifacts that operators read in the Prefect UI: run summary, coverage table, gap table, health, cleanup plans and damaged files.

The rows are made by plain functions; the `publish_*` functions store them and do nothing outside of a run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.context import FlowRunContext, TaskRunContext

from connections.health import HealthRow
from core.clock import isoformat
from core.secrets import redact
from feed.result import RunResult
from feed.upkeep import CleanupPlan
from storage.coverage import CoverageRow
from storage.lake.verify import VerifyReport
from storage.ledger import GapRow

Row = dict[str, Any]
MOST_ROWS = 500  # an artifact is read by a person; the CLI and the lake have the rest


def artifact_key(*parts: str) -> str:
    """Return a key of lower-case letters, digits and dashes from any texts."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def coverage_rows(rows: Sequence[CoverageRow]) -> list[Row]:
    """Return coverage as table rows; times in ISO 8601 with Z, counts in candles."""
    return [
        {
            **_series(row), "first": _time(row.first_us), "last": _time(row.last_us), "expected": row.expected,
            "stored": row.stored, "explained": row.explained, "unexplained": row.unexplained,
        }
        for row in rows
    ]


def gap_rows(rows: Sequence[GapRow]) -> list[Row]:
    """Return booked gaps as table rows."""
    return [
        {
            **_series(row), "start": isoformat(row.interval.start), "end": isoformat(row.interval.end),
            "cause": row.cause, "attempts": row.attempts, "next_try": _time(row.next_try_us),
        }
        for row in rows
    ]


def health_rows(rows: Sequence[HealthRow]) -> list[Row]:
    """Return the connections' health as table rows."""
    return [
        {
            "connection": row.slug, "status": row.status, "reason": redact(row.reason),
            "last_candle": _time(row.last_candle_us), "lag_seconds": row.lag_seconds, "gaps": row.gaps, "stream": row.stream_line,
        }
        for row in rows
    ]


def cleanup_rows(plan: CleanupPlan) -> list[Row]:
    """Return what a cleanup would remove as table rows."""
    return [
        {**_series(item), "candles": item.rows, "whole_files": item.whole_files, "cut_files": item.cut_files}
        for item in plan.items
    ]


def problem_rows(report: VerifyReport) -> list[Row]:
    """Return what is wrong with the lake's files as table rows."""
    return [{"path": item.path, "what": item.what, "fix": item.fix} for item in report.problems]


def summary_markdown(result: RunResult) -> str:
    """Return a run's end as Markdown: the line, the counts, and a row for each series that has something to say."""
    lines = [
        f"**{result.status.replace('_', ' ')}**: {_cell(result.message)}", "",
        "| stored | revised | gaps | quarantined | series |", "|---|---|---|---|---|",
        f"| {result.stored} | {result.revised} | {result.gaps} | {result.quarantined} | {len(result.series)} |",
    ]
    telling = [s for s in result.series if s.error or s.skipped or s.stored or s.revised or s.gaps or s.quarantined]
    if telling:
        lines += ["", "| series | stored | revised | gaps | quarantined | note |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {_cell(s.series)} | {s.stored} | {s.revised} | {s.gaps} | {s.quarantined} "
            f"| {_cell(str(s.error or s.skipped or ''))} |"
            for s in telling[:MOST_ROWS]
        ]
    if len(telling) > MOST_ROWS:
        lines += ["", f"{len(telling) - MOST_ROWS} more series are not shown."]
    return "\n".join(lines)


async def publish_summary(result: RunResult, what: str) -> None:
    """Store the run's summary as a Markdown artifact."""
    if _in_run():
        await acreate_markdown_artifact(summary_markdown(result), key=artifact_key(what, "summary"), description=redact(result.message))


async def publish_table(rows: list[Row], key: str, description: str) -> None:
    """Store rows as a table artifact; says so when it shows only the first ones."""
    if not _in_run():
        return
    text = description if len(rows) <= MOST_ROWS else f"{description}; the first {MOST_ROWS} of {len(rows)} rows"
    await acreate_table_artifact(rows[:MOST_ROWS], key=artifact_key(key), description=text)


def _in_run() -> bool:
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None


def _series(row: Any) -> Row:
    return {
        "connection": row.series.connection, "symbol": row.series.symbol, "timeframe": row.series.timeframe.name}


def _time(us: int | None) -> str | None:
    return None if us is None else isoformat(us)


def _cell(text: str) -> str:
    return redact(text).replace("|", "\\|").replace("\n", " ")
