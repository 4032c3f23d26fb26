"""feed.asking: patience with transient errors, none with permanent ones."""

import polars as pl
import pytest

from core.candles import CANDLE_SCHEMA
from core.errors import CredentialsRefusedError, NetworkError, RateLimitedError
from core.interval import Interval
from core.timeframe import Timeframe
from feed.asking import LONGEST_WAIT, Asker
from providers.base import CandlePage

MINUTE = Timeframe.parse("1m")
PAGE = CandlePage(pl.DataFrame(schema=CANDLE_SCHEMA), Interval(0, 1), 0, "request")


class Failing:
    """Fails with the errors given, one for each request, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def fetch_candles(self, symbol, timeframe, interval):
        if self.errors:
            raise self.errors.pop(0)
        return PAGE


async def test_transient_errors_are_tried_again() -> None:
    """Up to four failures are survived; each request is counted."""
    asker = Asker(Failing(*[NetworkError("reset")] * 4), 0)
    assert await asker.page("X", MINUTE, Interval(0, 1)) is PAGE
    assert asker.requests == 5


async def test_the_fifth_failure_rises() -> None:
    """Patience ends; the last error is what rises."""
    asker = Asker(Failing(*[NetworkError(str(n)) for n in range(9)]), 0)
    with pytest.raises(NetworkError, match="4"):
        await asker.page("X", MINUTE, Interval(0, 1))


async def test_a_permanent_error_rises_at_once() -> None:
    """A refused login is never sent twice."""
    asker = Asker(Failing(CredentialsRefusedError("no")), 0)
    with pytest.raises(CredentialsRefusedError):
        await asker.page("X", MINUTE, Interval(0, 1))
    assert asker.requests == 1


async def test_a_long_pause_is_not_slept_through() -> None:
    """When the provider wants more than we wait, the error rises with its pause instead of hammering."""
    asker = Asker(Failing(RateLimitedError("slow down", retry_after=LONGEST_WAIT + 1)), 0)
    with pytest.raises(RateLimitedError):
        await asker.page("X", MINUTE, Interval(0, 1))
    assert asker.requests == 1


def test_retry_after_is_the_least_wait() -> None:
    """The provider's pause wins over a shorter back-off, and the back-off doubles."""
    asker = Asker(Failing(), 0.5)
    assert asker._wait(1, RateLimitedError("", retry_after=20)) == 20
    assert 0.25 <= asker._wait(1, NetworkError("")) <= 0.75
    assert 2.0 <= asker._wait(4, NetworkError("")) <= 6.0
