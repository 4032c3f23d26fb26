"""The flows' forms and shape, without a server."""

import ast
import inspect
from pathlib import Path
from typing import get_type_hints

import pytest
from prefect import Flow
from pydantic import ValidationError

from deployments.declaration import read_declaration
from flows.backfill import BackfillConfig
from flows.cleanup import CleanupConfig
from flows.fetch import FetchConfig

FLOWS = {item.name: item.flow for item in read_declaration().deployments}


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_flows_are_async_and_take_one_config_at_most(name):
    """A sync flow costs up to a second more at its end; one model is the form."""
    flow = FLOWS[name]
    assert isinstance(flow, Flow)
    assert inspect.iscoroutinefunction(flow.fn)
    assert set(inspect.signature(flow.fn).parameters) <= {"config"}


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_flow_files_open_with_their_contract(name):
    """What, why it is one flow, and what it requires; and only tasks and core are imported."""
    path = Path(inspect.getfile(FLOWS[name].fn))
    tree = ast.parse(path.read_text())
    assert "Requires:" in ast.get_docstring(tree)
    imported = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"feed", "connections", "storage", "providers", "pipeline"}


@pytest.mark.parametrize(("name", "values", "told"), [
    ("backfill", {"connection": "kraken", "symbol": "BTC/USD", "timeframe": "1m", "start": "2026", "end": "2027"}, "kraken BTC/USD 1m"),
    ("backfill_ticks", {"connection": "kraken", "symbol": "BTC/USD", "start": "2026", "end": "2027"}, "kraken BTC/USD"),
    ("replay_pipeline", {"pipeline": "trend", "start": "2026", "end": "2027"}, "trend"),
    ("compare_pipelines", {"champion": "trend", "challenger": "fade", "start": "2026", "end": "2027"}, "trend and fade"),
    ("train_model", {"model": "trees", "connection": "kraken", "symbol": "BTC/USD", "timeframe": "1h"}, "trees on kraken BTC/USD 1h"),
])
def test_a_run_about_one_thing_bears_its_name(name, values, told):
    """The list of runs says what each run of such a flow is about, in place of a name that Prefect makes up."""
    flow = FLOWS[name]
    model = get_type_hints(flow.fn)["config"]
    assert flow.flow_run_name.format(config=model(**values)) == told


def test_cleanup_by_hand_is_a_dry_run():
    """Nothing is removed unless a person or the schedule says so."""
    assert CleanupConfig().apply is False


@pytest.mark.parametrize(("model", "values"), [
    (FetchConfig, {"conection": "x"}),
    (FetchConfig, {"connection": "x" * 64}),
    (CleanupConfig, {"retention_days": 0}),
    (BackfillConfig, {"connection": "x"}),
])
def test_forms_refuse_what_is_wrong(model, values):
    """Unknown fields, out of bounds values and missing ones never reach a task."""
    with pytest.raises(ValidationError):
        model(**values)
