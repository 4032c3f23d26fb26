"""The flows' forms and shape, without a server."""

import ast
import inspect
from pathlib import Path

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
