"""Verify: check every file of the lake against the manifest's digests.

A flow of its own because no reader of Parquet notices a flipped bit, and a disk does not tell. It reads every file and
changes none; a file that is not as it was written fails the run, and its line says what to do.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE); no parameters, no blocks.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.upkeep import verify_files, verify_line


@flow(name="verify", validate_parameters=True)
async def verify() -> State[dict[str, int]]:
    """Check every file of the lake, and publish what is wrong."""
    report = await verify_files()
    line = verify_line(report)
    if report.problems:
        return Failed(message=line)
    return Completed(message=line, data={"files": report.files, "rows": report.rows})


if __name__ == "__main__":
    asyncio.run(verify())
