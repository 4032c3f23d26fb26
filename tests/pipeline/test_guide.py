"""The guide's own package: taken from the page, built, installed into a folder, and run by the command line."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from core.interval import Interval
from pipeline import events
from tests.pipeline.conftest import SERIES, market

GUIDE = Path(__file__).parents[2] / "docs" / "INTEGRATION_GUIDE.md"


def files_of_guide() -> dict[str, str]:
    """Return the files that the page shows."""
    return dict(re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL))


def test_the_guide_tells_each_events_payload():
    """The table names every event with its name in Prefect and exactly the fields that its payload has."""
    told = re.findall(r"^\| `(\w+)`, `([\w.-]+)` \| `([^`]+)`", GUIDE.read_text(), re.MULTILINE)
    assert {name for name, _, _ in told} == {"DataReceived", "DataCleaned", "DataFiltered", "SignalGenerated", "PipelineStageCompleted"}
    values = {"series": SERIES, "interval": Interval(0, 1)}
    for name, in_prefect, own in told:
        kind = getattr(events, name)
        payload = kind(*(values.get(item.name, 1) for item in fields(kind))).payload()
        common = "connection symbol timeframe run_id" + (" pipeline version ts" if name != "DataReceived" else "")
        assert (kind.name, set(payload)) == (in_prefect, {*common.split(), *own.split()})


@pytest.fixture
def installed(tmp_path):
    """Build the package of the guide and install it into a folder of its own."""
    source, target = tmp_path / "package", tmp_path / "site"
    source.mkdir()
    for name, text in files_of_guide().items():
        (source / name).write_text(text)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
         "--no-index", "--target", str(target), str(source)], check=True)
    return source, target


@pytest.mark.slow
def test_the_guides_package_takes_part_in_a_run(installed, store, tmp_path):
    """Installed from a folder, found by its entry point, created, checked, run; its listener is told of each signal."""
    source, target = installed
    store(market(400))
    log = tmp_path / "signals.log"
    environment = {
        **os.environ, "CANDLELAKE_HOME": str(tmp_path / "home"), "CANDLELAKE_KEY_FILE": str(tmp_path / "keys"),
        "PYTHONPATH": f"{target}{os.pathsep}{GUIDE.parents[1]}", "DECISIVE_LOG": str(log)}

    def candlelake(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "pipelines", *words], env=environment, capture_output=True, text=True, cwd=tmp_path,
            check=False)
        assert done.returncode == code, done.stderr
        return done

    plugins = {row["name"]: row for row in json.loads(candlelake("plugins", "--json").stdout)}
    assert plugins["decisive_candle"] == {
        "name": "decisive_candle", "kind": "filter", "package": "candlelake-decisive", "target": "decisive:DecisiveCandle", "problem": None}
    definition = source / "decisive.yaml"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(definition.read_text().replace("share: 0.3", "share: 7"))
    (told,) = re.findall(r"^`(pipeline decisive-trend .*)`\.$", GUIDE.read_text(), re.MULTILINE)
    assert candlelake("create", str(wrong), code=2).stderr.strip() == f"error: {told}"
    candlelake("create", str(definition), "--enable")
    (report,) = json.loads(candlelake("check", "decisive-trend", "--json").stdout)
    assert report["status"] == "ok"
    assert json.loads(candlelake("run", "--json").stdout)["candles"] == 1
    store(market(460).tail(60))
    result = json.loads(candlelake("run", "--json").stdout)
    assert result["candles"] == 60
    assert result["signals"]
    assert len(log.read_text().splitlines()) == len(result["signals"])
