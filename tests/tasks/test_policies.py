"""Whether and when a task tries again is decided by the error's class."""

import inspect

import pytest
from prefect.states import Failed

import core.errors
from core.errors import (
    CandlelakeError,
    InputError,
    KeyMissingError,
    LeaseHeldError,
    NetworkError,
    RateLimitedError,
    TransientError,
)
from feed.result import RunResult, SeriesResult
from tasks import candles, upkeep
from tasks.policies import (
    LONGEST_WAIT_SECONDS,
    POLICY,
    is_worth_another_try,
    raise_while_tries_are_left,
    retry_transient,
)

CLASSES = [c for _, c in inspect.getmembers(core.errors, inspect.isclass) if issubclass(c, TransientError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_transient_errors_are_tried_again(kind):
    """Each transient error is worth another try, but for a held lease: the other run does the work."""
    assert is_worth_another_try(kind("x")) is (kind is not LeaseHeldError)


@pytest.mark.parametrize("error", [InputError("a", 1, "2"), KeyMissingError("x", key_id="k"), ValueError("x"), None])
async def test_all_else_is_not(error):
    """Permanent and foreign errors are not tried again."""
    assert not is_worth_another_try(error)
    if error is not None:
        assert not await retry_transient(None, None, Failed(data=error))


async def test_retry_after_is_honoured(monkeypatch):
    """The wait that a provider asks for is waited for before the next try; one that is too long ends the tries."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    assert await retry_transient(None, None, Failed(data=RateLimitedError("slow down", retry_after=7.5)))
    assert waited == [7.5]
    assert not await retry_transient(None, None, Failed(data=RateLimitedError("x", retry_after=LONGEST_WAIT_SECONDS + 1)))


def test_without_prefect_a_failed_result_is_returned():
    """Outside of a task run nothing would try again, so the result stays what it is."""
    result = RunResult("r", "failed", "x", [SeriesResult("s", error=NetworkError("x"))])
    assert raise_while_tries_are_left(result) is result


@pytest.mark.parametrize("module", [candles, upkeep])
def test_every_task_that_touches_the_store_has_the_policy(module):
    """No task but the one that only joins results is without it."""
    tasks = [t for t in vars(module).values() if hasattr(t, "retry_condition_fn") and t.name != "conclude fetch"]
    assert tasks
    for item in tasks:
        assert item.retry_condition_fn is POLICY["retry_condition_fn"]
        assert item.retries == POLICY["retries"]


def test_the_tree_has_transient_errors():
    """Guards the parametrized test against an empty list."""
    assert len(CLASSES) >= 9
    assert all(issubclass(c, CandlelakeError) for c in CLASSES)
