"""What operators read about the deployments is what is deployed."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_each_deployment_is_explained() -> None:
    """The table of `docs/operations.md` has one row for each deployment, with its limit."""
    declared = {item["name"]: item["concurrency_limit"] for item in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    page = (ROOT / "docs" / "operations.md").read_text().split("## Deployments")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", page, re.MULTILINE))
    assert set(told) == set(declared)
    for name, limit in declared.items():
        count = limit if isinstance(limit, int) else limit["limit"]
        assert told[name].startswith(str(count)), name
