"""prefect.yaml is right, and what is wrong in it is found: Prefect itself ignores misspelt keys."""

import json
import re
import tomllib

import pytest
import yaml

from core.errors import InputError
from deployments.automations import AUTOMATIONS, SKIP_LATE_TAG
from deployments.declaration import PREFECT_YAML, read_declaration
from deployments.settings import PREFECT_TOML, prefect_environment


@pytest.fixture
def changed(tmp_path):
    """Write a copy of prefect.yaml after `change(content)` and read it."""

    def read(change):
        content = json.loads(json.dumps(yaml.safe_load(PREFECT_YAML.read_text())))  # no shared anchors
        change(content)
        path = tmp_path / "prefect.yaml"
        path.write_text(yaml.safe_dump(content))
        return read_declaration(path)

    return read


def test_the_file_is_right():
    """Every key is known, every entrypoint imports, every parameter exists, every pool is declared, every cron parses."""
    declared = read_declaration()
    assert {item.name for item in declared.deployments} == {
        "fetch", "backfill", "repair", "audit", "flush", "cleanup", "verify", "health", "stream", "backfill_ticks",
        "process_pipeline", "replay_pipeline", "compare_pipelines", "train_model"}
    assert {item.name for item in declared.deployments if item.schedules} == {
        "fetch", "repair", "audit", "flush", "cleanup", "verify", "health", "stream", "process_pipeline"}


def test_every_flow_file_is_deployed():
    """No flow is left without its deployment."""
    files = {path.stem for path in (PREFECT_YAML.parent / "flows").glob("*.py")} - {"__init__"}
    assert files == {item.name for item in read_declaration().deployments}


def test_every_parameter_is_described():
    """Each field of each flow's form has a description, and no form has more than eight fields."""
    for item in read_declaration().deployments:
        for model in item.as_api()["parameter_openapi_schema"].get("definitions", {}).values():
            assert len(model["properties"]) <= 8
            assert all(prop.get("description") for prop in model["properties"].values())


def test_schedules_leave_an_operators_pause_alone():
    """No schedule says `active`: a schedule that does is switched on again by the next deploy."""
    assert "active:" not in re.sub(r"#.*", "", PREFECT_YAML.read_text())


@pytest.mark.parametrize(("change", "told"), [
    (lambda c: c["deployments"][0].update(tagz=["x"]), "tagz"),
    (lambda c: c["deployments"][0].update(shedules=[]), "shedules"),
    (lambda c: c["deployments"][0]["schedules"][0].update(activ=True), "activ"),
    (lambda c: c["deployments"][0]["schedules"][0].update(cron="* * *"), "cron"),
    (lambda c: c["deployments"][0]["concurrency_limit"].update(colision="x"), "colision"),
    (lambda c: c["deployments"][0]["work_pool"].update(name="other"), "work pool of fetch"),
    (lambda c: c["deployments"][0].update(entrypoint="flows.fetch.nothing"), "entrypoint of fetch"),
    (lambda c: c["deployments"][0].update(entrypoint="flows.flush.flush"), "entrypoint of fetch"),
    (lambda c: c["deployments"][0].update(entrypoint="flows.fetch.fetch_batch"), "flow, file and deployment"),
    (lambda c: c["deployments"][0].update(parameters={"confg": {}}), "parameter of fetch"),
    (lambda c: c["deployments"][4]["schedules"][0].update(parameters={"config": {"aply": True}}), "parameters of cleanup"),
    (lambda c: c["deployments"][1].update(schedules=[{"slug": "daily", "cron": "0 0 * * *"}]), "parameters of backfill"),
    (lambda c: c["deployments"].append(c["deployments"][0]), "each name once"),
    (lambda c: c["deployments"][0]["schedules"].append(c["deployments"][0]["schedules"][0]), "each slug once"),
    (lambda c: c.update(pull=[{"git_clone": {}}]), "pull"),
])
def test_a_mistake_is_told(changed, change, told):
    """A typo, a parameter that no flow takes, a pool that nobody declared: one line that names it."""
    with pytest.raises(InputError, match=told) as caught:
        changed(change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", None])
def test_a_file_that_is_none_is_told(tmp_path, text):
    """No YAML, or no file: one line with its path."""
    path = tmp_path / "prefect.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_declaration(path)


def test_late_runs_are_cancelled_by_a_tag_that_exists_and_never_backfills():
    """The late-run automation matches the scheduled deployments; a backfill that waits in its queue is none of them."""
    tagged = {item.name for item in read_declaration().deployments if SKIP_LATE_TAG in item.tags}
    assert tagged == {"fetch", "repair", "audit", "flush", "verify", "health", "stream", "process_pipeline"}
    assert any(a["trigger"].get("match_related", {}).get("prefect.resource.id") == f"prefect.tag.{SKIP_LATE_TAG}" for a in AUTOMATIONS)


def unknown(model, table, path=""):
    """Return the keys of `table` that `model` has no field for."""
    out = []
    for key, value in table.items():
        if key not in model.model_fields:
            out.append(path + key)
        elif isinstance(value, dict):
            out += unknown(model.model_fields[key].annotation, value, f"{path}{key}.")
    return out


def test_prefect_knows_every_setting_of_prefect_toml():
    """Every key of prefect.toml is a setting of Prefect: it ignores misspelt sections silently."""
    from prefect.settings import Settings

    table = tomllib.loads(PREFECT_TOML.read_text())
    assert unknown(Settings, table) == []
    assert unknown(Settings, {"runer": {}, "runner": {"x": 1}}) == ["runer", "runner.x"]


def test_zombies_are_looked_for_after_three_heartbeats():
    """The automation's patience is three heartbeats of prefect.toml."""
    assert AUTOMATIONS[0]["trigger"]["within"] == 3 * int(prefect_environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
