"""How a run's end is shown to Prefect: the state's name and one line; failures are failures, gaps are said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from core.secrets import redact
from feed.result import RunResult, conclude


def state_of(result: RunResult) -> State[dict[str, Any]]:
    """Return the flow run's final state: Completed, CompletedWithGaps, Skipped or Failed, with the run's message."""
    data, message = result.as_dict(), redact(result.message)
    if result.status == "failed":
        return Failed(message=message)
    if result.only_skipped:
        return Completed(name="Skipped", message=message, data=data)
    if result.status == "complete_with_gaps":
        return Completed(name="CompletedWithGaps", message=message, data=data)
    return Completed(message=message, data=data)


def join_results(run_id: str, what: str, parts: Sequence[RunResult]) -> RunResult:
    """Return one result of the parts of a run."""
    return conclude(run_id, what, [item for part in parts for item in part.series])


def state_of_work(result: Mapping[str, Any]) -> State[dict[str, Any]]:
    """Return the final state of a run whose result has `status` (complete, skipped or failed) and `message`."""
    data, message = dict(result), redact(str(result["message"]))
    if result["status"] == "failed":
        return Failed(message=message)
    if result["status"] == "skipped":
        return Completed(name="Skipped", message=message, data=data)
    return Completed(message=message, data=data)
