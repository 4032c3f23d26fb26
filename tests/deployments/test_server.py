"""Against a real Prefect server: deploying twice, pauses, removed schedules, and that schedules schedule at all."""

import json
import time

import pytest

from deployments.apply import main
from deployments.declaration import Declaration, read_declaration
from deployments.embedded import end_left_over
from deployments.plan import apply, plan

pytestmark = pytest.mark.slow


def deployment(server, name):
    return server.get(f"/deployments/name/{name}/{name}")


def test_applying_twice_changes_nothing(server):
    """All deployments of prefect.yaml register with pool, limits and automations; the second time there is nothing to do."""
    declared = read_declaration()
    apply(server, declared)
    assert [str(change) for change in plan(server, declared)] == []
    for item in declared.deployments:
        held = deployment(server, item.name)
        assert held["entrypoint"] == item.entrypoint
        assert held["work_pool_name"] == "candlelake"
        assert {s["slug"] for s in held["schedules"]} == {s.slug for s in item.schedules}
        assert held["pull_steps"] in (None, [])
        assert held["global_concurrency_limit"]["limit"] == item.concurrency_limit.limit


def test_a_cron_deployment_gets_scheduled_runs(server):
    """The scheduler works: with a wrong SQLAlchemy the server looks healthy and schedules nothing."""
    apply(server, read_declaration())
    number = deployment(server, "fetch")["id"]
    body = {"deployments": {"id": {"any_": [number]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    deadline = time.monotonic() + 180  # a busy SQLite can spoil a round of the scheduler
    while not server.post("/flow_runs/count", body):
        assert time.monotonic() < deadline, "no scheduled runs"
        time.sleep(0.5)


def test_an_operators_pause_survives(server):
    """A paused deployment, schedule and automation stay as they are, also when something else of them changes."""
    declared = read_declaration()
    apply(server, declared)
    held = deployment(server, "flush")
    path = f"/deployments/{held['id']}"
    schedule = held["schedules"][0]
    server.patch(path, {"paused": True, "description": "changed by hand"})
    server.patch(f"{path}/schedules/{schedule['id']}", {
        "active": False, "schedule": {"cron": "0 0 1 1 *", "timezone": "UTC"}, "parameters": {}})
    automation = server.post("/automations/filter", {"limit": 200})[0]
    server.patch(f"/automations/{automation['id']}", {"enabled": False})
    assert [str(change) for change in apply(server, declared)] == [
        "update deployment flush (description)", "update schedule flush/every-quarter (schedule)"]
    held = deployment(server, "flush")
    assert held["paused"] is True
    assert held["schedules"][0]["active"] is False
    assert held["schedules"][0]["schedule"]["cron"] == "*/15 * * * *"
    assert server.get(f"/automations/{automation['id']}")["enabled"] is False
    server.patch(f"/automations/{automation['id']}", {"enabled": True})  # the server is shared: other tests need it on
    server.patch(path, {"paused": False})
    server.patch(f"{path}/schedules/{held['schedules'][0]['id']}", {"active": True})


def test_a_schedule_that_left_the_file_is_removed(server):
    """What Prefect's own deploy leaves active for ever goes away; a schedule made by hand in the UI stays."""
    declared = read_declaration()
    apply(server, declared)
    number = deployment(server, "health")["id"]
    server.post(f"/deployments/{number}/schedules", [
        {"slug": "old", "schedule": {"cron": "0 0 1 1 *", "timezone": "UTC"}},
        {"schedule": {"cron": "0 0 2 2 *", "timezone": "UTC"}}])
    assert [str(change) for change in apply(server, declared)] == ["remove schedule health/old"]
    assert sorted(str(s["slug"]) for s in deployment(server, "health")["schedules"]) == ["None", "every-five-minutes"]


def test_runs_of_a_dead_runner_hold_no_place(server, order):
    """Runs that were taken up and never begun, as when their runner is killed, block a deployment until the next runner ends them."""
    apply(server, read_declaration())
    end_left_over(server)

    def take_up():
        run = order("fetch")
        return run, server.post(f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}})["state"]["type"]

    taken = [take_up() for _ in range(3)]
    assert [state for _, state in taken] == ["PENDING", "PENDING", "CANCELLED"]
    assert end_left_over(server) == 2
    assert [server.get(f"/flow_runs/{run}")["state"]["type"] for run, _ in taken] == ["CRASHED", "CRASHED", "CANCELLED"]
    assert take_up()[1] == "PENDING"
    assert end_left_over(server) == 1


def test_a_changed_or_doubled_automation_is_put_right(server):
    """An automation that differs is corrected, a double is removed."""
    declared = read_declaration()
    apply(server, declared)
    changed = {**declared.automations[0], "description": "other"}
    server.post("/automations/", {**changed, "enabled": True})
    only = Declaration([], [], [changed])
    kinds = {change.action for change in apply(server, only)}
    assert "remove" in kinds
    assert [str(c) for c in plan(server, only)] == []
    apply(server, declared)


def test_the_command_says_what_it_would_do(server, capsys):
    """`--dry-run --json` prints one JSON array and changes nothing."""
    apply(server, read_declaration())
    server.patch(f"/deployments/{deployment(server, 'repair')['id']}", {"tags": ["x"]})
    assert main(["--api-url", server.url, "--dry-run", "--json"]) == 0
    expected = [{"action": "update", "kind": "deployment", "name": "repair", "fields": ["tags"]}]
    assert json.loads(capsys.readouterr().out) == expected
    assert main(["--api-url", server.url]) == 0
    assert "update deployment repair (tags)" in capsys.readouterr().out
    assert main(["--api-url", server.url]) == 0
    assert "nothing to change" in capsys.readouterr().out
