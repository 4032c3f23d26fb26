"""Automations that a Candlelake server needs, as bodies of Prefect's API.

* The zombie automation: a run whose host was killed stays Running for ever and holds its slot. Its heartbeats come every
  30 s; when none came for 90 s it is marked as Crashed (https://docs.prefect.io/v3/advanced/detect-zombie-flows).
* The late-run automation: after an outage every missed minute waits in the queue, and each would only do what the newest one
  does. A run of a deployment tagged `skip-late` that has been late for two minutes is cancelled; backfills are not.
"""

from __future__ import annotations

from typing import Any, Final

from deployments.settings import HEARTBEAT_SECONDS

SKIP_LATE_TAG: Final = "skip-late"
MISSED_HEARTBEATS: Final = 3
LATE_SECONDS: Final = 120.0

_RUN = "prefect.flow-run."
_ENDS = [_RUN + name for name in ("Completed", "Failed", "Cancelled", "Crashed")]

ZOMBIES: Final[dict[str, Any]] = {
    "name": "candlelake: crash zombie runs",
    "description": "A run without a heartbeat for 90 s is marked as Crashed, so that its slot is free again.",
    "trigger": {
        "type": "event", "posture": "Proactive", "threshold": 1, "within": float(MISSED_HEARTBEATS * HEARTBEAT_SECONDS),
        "match": {"prefect.resource.id": "prefect.flow-run.*"}, "for_each": ["prefect.resource.id"],
        "after": [_RUN + "heartbeat"],
        # Suspended and Paused runs have no process, and the name of an end may be one of ours (Skipped, ...).
        "expect": [_RUN + "heartbeat", *_ENDS, *(
            _RUN + name for name in ("CompletedWithGaps", "DryRun", "Skipped", "Paused", "Suspended", "AwaitingRetry"))],
    },
    "actions": [{
        "type": "change-flow-run-state", "state": "CRASHED",
        "message": "no heartbeat for 90 s: the process or its host is gone; the next run goes on where it stopped",
    }],
}

LATE_RUNS: Final[dict[str, Any]] = {
    "name": "candlelake: cancel late runs",
    "description": "A scheduled run that is late for two minutes is cancelled: the newest one does its work.",
    "trigger": {
        "type": "event", "posture": "Proactive", "threshold": 1, "within": LATE_SECONDS,
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{SKIP_LATE_TAG}"},
        "for_each": ["prefect.resource.id"],
        "after": [_RUN + "Late"],
        "expect": [_RUN + "Pending", _RUN + "Running", *_ENDS],
    },
    "actions": [{
        "type": "change-flow-run-state", "state": "CANCELLED", "name": "SkippedLate",
        "message": "two minutes late: the newest run does its work",
    }],
}

AUTOMATIONS: Final = (ZOMBIES, LATE_RUNS)
