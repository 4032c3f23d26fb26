"""Tasks on the workers of a Dask cluster: Prefect's own task runner, chosen by a setting when the run begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from core.errors import NetworkError, UnsupportedError


@asynccontextmanager
async def dask_cluster(address: str) -> AsyncIterator[TaskRunner[PrefectFuture[Any]]]:
    """Give a started task runner of the cluster whose scheduler is at `address` (tcp:// or tls://); disconnect at the end.

    Raises:
        UnsupportedError: the extra `dask` is not installed. NetworkError: no scheduler answers there.
    """
    runner = _runner(address)
    with runner:
        try:
            await asyncio.to_thread(lambda: runner.client)  # connects; it would hold up the run's event loop
        except OSError as error:
            raise NetworkError(
                f"no Dask scheduler answers at {address} ({error}); start it, or leave CANDLELAKE_DASK_ADDRESS empty") from error
        yield runner


def _runner(address: str) -> Any:
    try:
        from prefect_dask.task_runners import DaskTaskRunner  # noqa: PLC0415  an extra: only who uses it needs it
    except ImportError:
        raise UnsupportedError("replays on a Dask cluster need the extra `dask`: pip install 'candlelake[dask]'") from None
    return DaskTaskRunner(address=address)
