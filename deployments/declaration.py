"""prefect.yaml as checked values: what a Prefect server should hold.

Prefect ignores misspelt keys in silence; here each of them is an InputError.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from core.errors import InputError

PREFECT_YAML: Final = Path(__file__).parent.parent / "prefect.yaml"


class Strict(BaseModel):
    """A part of prefect.yaml in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(Strict):
    """The work pool of a deployment."""

    name: str


class Limit(Strict):
    """How many runs of a deployment may run at once, and what happens to one more."""

    limit: int = Field(ge=1, le=100)
    collision_strategy: Literal["CANCEL_NEW", "ENQUEUE"]


class Schedule(Strict):
    """A cron schedule. It has no `active` key, so that an operator's pause survives."""

    slug: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    cron: str
    timezone: str = "UTC"
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("cron")
    @classmethod
    def _parses(cls, value: str) -> str:
        CronSchedule(cron=value)
        return value

    def as_api(self) -> dict[str, Any]:
        """Return the schedule as Prefect's API takes it."""
        return {
            "slug": self.slug, "parameters": self.parameters,
            "schedule": {"cron": self.cron, "timezone": self.timezone, "day_or": True},
        }


class Trigger(Strict):
    """An event that starts a run of the deployment, with the parameters given."""

    slug: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    expect: list[str] = Field(min_length=1)
    match: dict[str, str]
    parameters: dict[str, Any] = Field(default_factory=dict)

    def as_api(self, deployment: str, deployment_id: str) -> dict[str, Any]:
        """Return the automation that Prefect's API takes for it."""
        return {
            "name": f"candlelake: {deployment} {self.slug}",
            "description": f"Starts {deployment} for {', '.join(self.expect)}.",
            "trigger": {
                "type": "event", "posture": "Reactive", "threshold": 1, "within": 0.0, "match": self.match, "expect": self.expect},
            "actions": [{
                "type": "run-deployment", "source": "selected", "deployment_id": deployment_id, "parameters": self.parameters}],
        }


class Deployment(Strict):
    """One deployment: flow, file and deployment have one name."""

    name: str
    description: str = Field(min_length=10)
    entrypoint: str = Field(pattern=r"^flows\.[a-z_]+\.[a-z_]+$")
    tags: list[str]
    parameters: dict[str, Any]
    work_pool: Pool
    concurrency_limit: Limit
    schedules: list[Schedule]
    triggers: list[Trigger] = Field(default_factory=list, max_length=5)

    @cached_property
    def flow(self) -> Flow[..., Any]:
        """The flow that the entrypoint names.

        Raises:
            InputError: it cannot be imported, or is no flow.
        """
        module, _, name = self.entrypoint.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"entrypoint of {self.name}", self.entrypoint, "flows.FILE.FLOW that imports", str(error)) from error
        if not isinstance(found, Flow):
            raise InputError(f"entrypoint of {self.name}", self.entrypoint, "a flow", "point it at the @flow function")
        return found

    def as_api(self) -> dict[str, Any]:
        """Return the deployment, without its schedules, as Prefect's API takes it."""
        return {
            "name": self.name, "description": self.description, "entrypoint": self.entrypoint,
            "tags": self.tags, "parameters": self.parameters, "work_pool_name": self.work_pool.name,
            "concurrency_limit": self.concurrency_limit.limit,
            "concurrency_options": {"collision_strategy": self.concurrency_limit.collision_strategy},
            "parameter_openapi_schema": parameter_schema(self.flow).model_dump_for_openapi(),
            "enforce_parameter_schema": True, "pull_steps": [], "path": None,
        }


class _File(Strict):
    name: str
    pull: list[Any] = Field(max_length=0)
    definitions: dict[Literal["work_pools", "limits"], list[dict[str, Any]]] = Field(default_factory=dict)
    deployments: list[Deployment]


@dataclass(frozen=True)
class Declaration:
    """All that a Prefect server should hold. `automations` are bodies of its API; `pools` are names of process pools."""

    deployments: list[Deployment]
    pools: list[str]
    automations: list[dict[str, Any]] = field(default_factory=list)


def read_declaration(path: Path = PREFECT_YAML) -> Declaration:
    """Read prefect.yaml, check it, and add the automations.

    Raises:
        InputError: unknown keys, entrypoints that do not import, parameters that no flow takes, doubled names.
    """
    from deployments.automations import AUTOMATIONS  # noqa: PLC0415  it names tags that this module checks

    try:
        parsed = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError("prefect.yaml", str(path), "a file that can be read", str(error.strerror)) from error
    except yaml.YAMLError as error:
        raise InputError("prefect.yaml", str(path), "YAML", " ".join(str(error).split())) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"prefect.yaml {where}", first["input"], first["msg"], "correct the file") from None
    _check(parsed)
    pools = [str(pool["name"]) for pool in parsed.definitions.get("work_pools", [])]
    return Declaration(parsed.deployments, pools, list(AUTOMATIONS))


def _check(parsed: _File) -> None:
    names = [deployment.name for deployment in parsed.deployments]
    for name in names:
        if names.count(name) > 1:
            raise InputError("deployment", name, "each name once", "rename one of them")
    declared = [pool["name"] for pool in parsed.definitions.get("work_pools", [])]
    for deployment in parsed.deployments:
        if deployment.entrypoint != f"flows.{deployment.name}.{deployment.name}" or deployment.flow.name != deployment.name:
            raise InputError(
                f"entrypoint of {deployment.name}", deployment.entrypoint, f"flows.{deployment.name}.{deployment.name}",
                "flow, file and deployment have one name")
        if deployment.work_pool.name not in declared:
            raise InputError(f"work pool of {deployment.name}", deployment.work_pool.name, declared, "declare it")
        slugs = [schedule.slug for schedule in deployment.schedules]
        if len(set(slugs)) < len(slugs):
            raise InputError(f"schedules of {deployment.name}", slugs, "each slug once", "rename one of them")
        check_parameters(deployment, deployment.parameters, partial=True)
        for trigger in deployment.triggers:
            check_parameters(deployment, {**deployment.parameters, **trigger.parameters}, partial=False)
        for schedule in deployment.schedules:
            check_parameters(deployment, {**deployment.parameters, **schedule.parameters}, partial=False)


def check_parameters(deployment: Deployment, parameters: Mapping[str, Any], *, partial: bool) -> None:
    """Check that the flow takes these parameters; `partial` allows that some which it needs are left to the run.

    Raises:
        InputError: an unknown name, or a value that the flow refuses.
    """
    signature = inspect.signature(deployment.flow.fn)
    for name in parameters:
        if name not in signature.parameters:
            raise InputError(f"parameter of {deployment.name}", name, list(signature.parameters), "rename or remove it")
    required = {name for name, p in signature.parameters.items() if p.default is inspect.Parameter.empty}
    if partial and not required <= set(parameters):
        return
    if not required <= set(parameters):
        raise InputError(f"parameters of {deployment.name}", sorted(parameters), sorted(required), "a schedule needs them all")
    try:
        deployment.flow.validate_parameters(dict(parameters))
    except ParameterTypeError as error:
        raise InputError(
            f"parameters of {deployment.name}", dict(parameters), "what the flow's model takes", " ".join(str(error).split())) from error
