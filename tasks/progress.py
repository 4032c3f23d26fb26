"""Progress that people see: a progress artifact, and the same as log lines (the artifact page does not refresh itself)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

LOOK_SECONDS = 2.0  # how often what changed is shown

Log = logging.Logger | logging.LoggerAdapter[Any]


def run_logger() -> Log:
    """Return the run's logger, or the module's outside of a run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("candlelake.tasks")


@dataclass(slots=True)
class Meter:
    """The newest progress that a run has told; call it as a `feed.Progress`."""

    done: int = 0
    total: int = 0
    what: str = ""

    def __call__(self, done: int, total: int, what: str) -> None:
        """Take note; cheap, from any thread."""
        self.done, self.total, self.what = done, total, what

    @property
    def percent(self) -> float:
        """How much is done, 0 to 100; nothing to do counts as all done."""
        return 100.0 if self.total <= 0 else min(100.0, 100.0 * self.done / self.total)

    def line(self, unit: str) -> str:
        """Return e.g. `kraken BTC/USD 1m: 5000/50000 candles`."""
        return f"{self.what}: {self.done}/{self.total} {unit}"


@asynccontextmanager
async def shown_progress(key: str, description: str, unit: str) -> AsyncIterator[Meter]:
    """Show what the yielded meter is told, every two seconds and at the end, in the log and (in a run) as an artifact."""
    meter = Meter()
    stop = asyncio.Event()
    shower = asyncio.create_task(_show(meter, stop, key, description, unit))
    try:
        yield meter
    finally:
        stop.set()
        await shower


async def _show(meter: Meter, stop: asyncio.Event, key: str, description: str, unit: str) -> None:
    log = run_logger()
    artifact: UUID | None = None
    if TaskRunContext.get() is not None:
        artifact = await acreate_progress_artifact(progress=0.0, key=key, description=description)
    shown: tuple[int, int, str] | None = None
    while True:
        is_last = stop.is_set()
        now = (meter.done, meter.total, meter.what)
        if now != shown and meter.total:
            log.info(meter.line(unit))
            if artifact is not None:
                await aupdate_progress_artifact(artifact, progress=meter.percent)
            shown = now
        if is_last:
            return
        try:
            await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        except TimeoutError:
            continue
