"""The console's figures in the report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.others import _markdown

FOUND: dict[str, Any] = {
    "share_under_50_ms": 0.96, "p95_by_path_ms": {"/slow": 70.5, "/quick": 2.0}, "chart_candles": 10_000, "chart_painted_ms": 354,
    "viewers": 200, "viewers_served": 200}


@pytest.mark.parametrize(("change", "line"), [
    ({}, "* 95 % of reads below 50 ms: met"), ({"share_under_50_ms": 0.949}, "* 95 % of reads below 50 ms: **missed**"),
    ({}, "* chart of 10,000 candles below 150 ms: **missed**"), ({"chart_painted_ms": 149}, "* chart of 10,000 candles below 150 ms: met"),
    ({"chart_painted_ms": None}, "* chart of 10,000 candles below 150 ms: not compared"),
    ({"viewers_served": 199}, "* 200 live viewers served: **missed**"), ({"viewers": 5}, "* 200 live viewers served: not compared")])
def test_each_target_is_told(change: dict[str, Any], line: str) -> None:
    """Progress before the figures is left out; a target that was not measured is never called met."""
    said = _markdown("console", "  venue0: 50 series\n" + json.dumps(FOUND | change, indent=1) + "\n")
    assert line in said.splitlines()
    assert "venue0" not in said
    assert "`/slow` 70.5" in said
