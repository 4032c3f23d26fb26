"""When a task tries again: the error's class decides, and the provider's own wish is honoured."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypedDict

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import exponential_backoff

from core.errors import LeaseHeldError, TransientError
from feed.result import RunResult

RETRIES: Final = 3
BACKOFF_SECONDS: Final = 2  # doubles with each try
JITTER: Final = 0.5  # up to this share more
LONGEST_WAIT_SECONDS: Final = 300.0  # a provider that asks for more is left to the next run


class RetryPolicy(TypedDict):
    """The keywords of `@task` that say when and how it tries again."""

    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any


def is_worth_another_try(error: object) -> bool:
    """Whether trying again can help within this run; a held lease cannot: the other run does the work."""
    if not isinstance(error, TransientError) or isinstance(error, LeaseHeldError):
        return False
    return error.retry_after is None or error.retry_after <= LONGEST_WAIT_SECONDS


async def retry_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Say whether to try again. Prefect knows no delay of a single error, so `retry_after` is waited for here."""
    error = await state.aresult(raise_on_failure=False)
    if not is_worth_another_try(error):
        return False
    if isinstance(error, TransientError) and error.retry_after:
        await asyncio.sleep(error.retry_after)
    return True


def raise_while_tries_are_left(result: RunResult) -> RunResult:
    """Return `result`, or raise its error when that is transient and Prefect would try this task again."""
    context = TaskRunContext.get()
    errors = [error for error in result.errors if not isinstance(error, LeaseHeldError)]
    if context is None or not errors or not all(is_worth_another_try(error) for error in errors):
        return result
    if context.task_run.run_count <= (context.task.retries or 0):
        raise max(errors, key=lambda error: getattr(error, "retry_after", None) or 0.0)
    return result


POLICY: Final = RetryPolicy(
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(backoff_factor=BACKOFF_SECONDS),
    retry_jitter_factor=JITTER,
    retry_condition_fn=retry_transient,
)
