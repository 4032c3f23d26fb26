"""The notebooks run from their first cell to their last over a real lake of the demo connections."""

import ast
import asyncio
import json
from pathlib import Path

import pytest

from cli.demo import prepare_demos
from core.clock import DAY_US, HOUR_US
from core.interval import Interval
from core.series import Series
from core.settings import Settings
from feed import open_feed
from feed.backfill import backfill
from sandbox.server import running

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def run(path):
    """Run a notebook's cells in one namespace, as a kernel does; returns what the cells' last expressions were."""
    space, shown = {}, []
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "clear the outputs before committing"
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), space)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), space))
    return shown


@pytest.fixture(scope="module")
def demo_home(tmp_path_factory):
    """A home with some days of both demo connections."""
    home = tmp_path_factory.mktemp("notebooks")
    with running(mode="replay") as box, open_feed(Settings(_env_file=None, home=home, allow_private_hosts=True)) as feed:
        prepare_demos(feed, box.url)
        now = feed.clock.now_us() // HOUR_US * HOUR_US
        for slug, symbol, timeframe, days in (("demo-exchange", "BTC/USD", "1m", 2), ("demo-exchange", "BTC/USD", "1h", 20),
                                              ("demo-mt5", "EURUSD", "1h", 20)):
            asyncio.run(backfill(feed, Series.parse(slug, symbol, timeframe), Interval(now - days * DAY_US, now)))
    return home


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs_and_shows_rows(path, demo_home, monkeypatch):
    """Each cell runs as it stands, and what it shows is not empty but where nothing was revised."""
    monkeypatch.setenv("CANDLELAKE_HOME", str(demo_home))
    monkeypatch.setenv("MPLBACKEND", "agg")
    from core.settings import settings

    settings.cache_clear()
    shown = run(path)
    assert len(shown) >= 5
    frames = [item for item in shown if hasattr(item, "height")]
    assert len(frames) >= 3
    assert [frame.columns for frame in frames if frame.is_empty() and "old_known_at" not in frame.columns] == []


def test_there_are_notebooks():
    """The folder holds what its README lists."""
    assert {path.stem for path in NOTEBOOKS} == {"first_look", "what_is_missing"}
