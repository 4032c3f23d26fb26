"""Plan, then apply: what must change on a Prefect server so that it holds what is declared.

Only what differs is changed. What an operator paused stays paused: neither `paused` of a deployment nor `active` of a
schedule nor `enabled` of an automation is ever set on what exists. Schedules of ours that left prefect.yaml are removed;
schedules without a slug were made by hand in the UI and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from deployments.declaration import Declaration, Deployment
from deployments.prefect_api import PrefectApi

Action = Literal["create", "update", "remove"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do. `fields` names what differs."""

    action: Action
    kind: str
    name: str
    fields: tuple[str, ...]
    do: Callable[[], object]

    def as_dict(self) -> Json:
        """Return the change as JSON-ready values."""
        return {"action": self.action, "kind": self.kind, "name": self.name, "fields": list(self.fields)}

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}" + (f" ({', '.join(self.fields)})" if self.fields else "")


def apply(api: PrefectApi, declared: Declaration) -> list[Change]:
    """Bring the server in line; return what was changed, in order. Twice in a row changes nothing the second time."""
    done = []
    for change in plan(api, declared):
        change.do()
        done.append(change)
    return done


def plan(api: PrefectApi, declared: Declaration) -> Iterator[Change]:
    """Yield what differs, in the order in which it must be done; changes nothing itself.

    Raises:
        CandlelakeError: the server does not answer, or refuses.
    """
    for name in declared.pools:
        yield from _pool(api, name)
    for deployment in declared.deployments:
        yield from _deployment(api, deployment)
    for automation in declared.automations:
        yield from _automation(api, automation)
    for deployment in declared.deployments:
        for trigger in deployment.triggers:  # now the deployment is there and has its id (but for a dry run)
            found = api.get(f"/deployments/name/{deployment.name}/{deployment.name}")
            yield from _automation(api, trigger.as_api(deployment.name, found["id"] if found else ""))


def _pool(api: PrefectApi, name: str) -> Iterator[Change]:
    if api.get(f"/work_pools/{name}") is None:
        body = {"name": name, "type": "process", "description": "Candlelake's flow runs, each a process of its own."}
        yield Change("create", "work pool", name, (), partial(api.post, "/work_pools/", body))


def _deployment(api: PrefectApi, declared: Deployment) -> Iterator[Change]:
    found = api.get(f"/deployments/name/{declared.name}/{declared.name}")
    wanted = declared.as_api()
    if found is None:
        yield Change("create", "deployment", declared.name, (), partial(_create, api, declared))
        return
    # The server keeps the limit as a global one of its own and answers with that.
    limit = found.get("global_concurrency_limit") or {}
    held = {**found, "concurrency_limit": found.get("concurrency_limit") or limit.get("limit")}
    changed = {key: value for key, value in wanted.items() if key != "name" and not agrees(value, held.get(key))}
    if changed:
        path = f"/deployments/{found['id']}"
        yield Change("update", "deployment", declared.name, tuple(changed), partial(api.patch, path, changed))
    yield from _schedules(api, declared, found)


def _create(api: PrefectApi, declared: Deployment) -> None:
    flow = api.post("/flows/", {"name": declared.name})
    schedules = [schedule.as_api() for schedule in declared.schedules]
    api.post("/deployments/", {**declared.as_api(), "flow_id": flow["id"], "schedules": schedules})


def _schedules(api: PrefectApi, declared: Deployment, found: Json) -> Iterator[Change]:
    path = f"/deployments/{found['id']}/schedules"
    held = {item["slug"]: item for item in found["schedules"] if item.get("slug")}
    wanted = {schedule.slug: schedule.as_api() for schedule in declared.schedules}
    for slug in held.keys() - wanted.keys():
        place = f"{path}/{held[slug]['id']}"
        yield Change("remove", "schedule", f"{declared.name}/{slug}", (), partial(api.delete, place))
    for slug, body in wanted.items():
        name = f"{declared.name}/{slug}"
        if slug not in held:
            yield Change("create", "schedule", name, (), partial(api.post, path, [body]))
            continue
        changed = {key: value for key, value in body.items() if not agrees(value, held[slug].get(key))}
        if changed:
            # `parameters` always go along: the server takes their absence for "none".
            patch, place = {**changed, "parameters": body["parameters"]}, f"{path}/{held[slug]['id']}"
            yield Change(
                "update", "schedule", name, tuple(changed), partial(api.patch, place, patch))


def _automation(api: PrefectApi, declared: Json) -> Iterator[Change]:
    name = declared["name"]
    body = {"automations": {"name": {"any_": [name]}}, "limit": 200}
    found = [item for item in api.post("/automations/filter", body) if item["name"] == name]
    if not found:
        yield Change("create", "automation", name, (), partial(api.post, "/automations/", {**declared, "enabled": True}))
        return
    first, *doubles = found
    for item in doubles:
        place = f"/automations/{item['id']}"
        yield Change("remove", "automation", name, ("double",), partial(api.delete, place))
    changed = tuple(key for key, value in declared.items() if not agrees(value, first.get(key)))
    if changed:
        place, whole = f"/automations/{first['id']}", {**declared, "enabled": first["enabled"]}
        yield Change("update", "automation", name, changed, partial(api.put, place, whole))


def agrees(wanted: Any, held: Any) -> bool:
    """Whether what a server holds says what is wanted; it may say more (defaults, ids), and orders sets as it likes."""
    if isinstance(wanted, Mapping) and isinstance(held, Mapping):
        if not wanted:
            return not held
        return all(agrees(value, held.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(held, list):
        if all(isinstance(item, str) for item in [*wanted, *held]):
            return sorted(wanted) == sorted(held)
        return len(wanted) == len(held) and all(agrees(a, b) for a, b in zip(wanted, held, strict=True))
    if wanted == [] and held is None:
        return True
    return bool(wanted == held)
