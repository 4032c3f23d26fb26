"""What people do with pipelines: a definition stored as a new one or as the next version, replays and comparisons ordered at Prefect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from pydantic import Field

from addons.execution.accounts import equity
from console import pipeline_readings
from console.actions import RUN_ID, attempted, noted
from console.given import Given
from console.identity import Identity
from console.prefect_api import PrefectDesk, Run
from console.readings import seen_connection
from core.clock import isoformat
from core.errors import InputError, NotFoundError
from core.interval import Interval
from feed import pipelines
from feed.context import Feed
from feed.trading import trades_of
from pipeline.definition import PipelineDefinition, read_definition, read_yaml
from storage.pipelines import PipelineRow

TEXT_MAX: Final = 50_000  # characters
SHOWN: Final = ("table", "markdown", "image", "progress")
PICTURE: Final = "data:image/png;base64,"


class DefinitionText(Given):
    """A pipeline as text."""

    definition: str = Field(max_length=TEXT_MAX, description="YAML of one pipeline.")


class PipelineRunOrder(Given):
    """A replay or a comparison to order at Prefect."""

    flow: Literal["replay", "compare"] = "replay"
    start: str = Field(min_length=4, max_length=40, examples=["2026-01-01"])
    end: str = Field(min_length=4, max_length=40, examples=["2026-02-01"])
    challenger: str | None = Field(None, max_length=63, description="Of a comparison: the pipeline that may replace this one.")
    by: Literal["replay", "live"] = Field("replay", description="Of a comparison: judged again, or what both said live.")
    as_first_seen: bool = Field(False, description="Of a replay: on the values known then.")


def read_text(feed: Feed, who: Identity, text: str) -> PipelineDefinition:
    """Return the definition that a text holds, when each of its series is of a connection that the sender may see.

    Raises:
        InputError: too long, too deep, with aliases, or not a definition; names the field, the value and what is allowed.
        NotFoundError: a connection that is not the sender's.
    """
    if len(text) > TEXT_MAX:
        raise InputError("definition", f"{len(text)} characters", f"at most {TEXT_MAX}", "give the YAML of one pipeline")
    definition = read_yaml(text)
    for key in definition.keys:
        seen_connection(feed, who, key.connection)
    return definition


def create(feed: Feed, who: Identity, text: str) -> PipelineRow:
    """Store a new pipeline of the sender, switched off."""
    definition = read_text(feed, who, text)
    with noted(feed, who, "pipeline.create", definition.name) as done:
        return pipelines.create(feed, definition, who.user.name, witness=done)


def change(feed: Feed, who: Identity, name: str, text: str) -> PipelineRow:
    """Store the next version of a pipeline of the sender; its name stays."""
    row = pipeline_readings.seen(feed, who, name)
    definition = read_text(feed, who, text)
    if definition.name != row.name:
        raise InputError("name", definition.name, row.name, "keep the name; a new name is a new pipeline")
    with noted(feed, who, "pipeline.change", name) as done:
        return pipelines.change(feed, definition, row.owner, witness=done)


def as_yaml(row: PipelineRow) -> str:
    """Return the definition in force as YAML, without its version, which the store counts."""
    return "".join(line + "\n" for line in read_definition(row.definition).as_yaml().splitlines() if not line.startswith("version:"))


def order(feed: Feed, desk: PrefectDesk, who: Identity, name: str, wanted: PipelineRunOrder) -> Run:
    """Order a replay of a pipeline, or its comparison with another one of the reader."""
    pipeline_readings.seen(feed, who, name)
    interval = Interval.parse(wanted.start, wanted.end)
    period = {"start": isoformat(interval.start), "end": isoformat(interval.end)}
    if wanted.flow == "replay":
        with _ordered(feed, who, "run.replay", name):
            return desk.order("replay_pipeline", {"pipeline": name, **period, "as_first_seen": wanted.as_first_seen})
    if not wanted.challenger or wanted.challenger == name:
        raise InputError("challenger", wanted.challenger or "none", "another pipeline", "choose the one to compare with")
    pipeline_readings.seen(feed, who, wanted.challenger)
    with _ordered(feed, who, "run.compare", name, challenger=wanted.challenger):
        return desk.order("compare_pipelines", {"champion": name, "challenger": wanted.challenger, **period, "by": wanted.by})


def run_of(feed: Feed, desk: PrefectDesk, who: Identity, name: str, number: str) -> Run:
    """Return a run that was ordered for this pipeline; the same NotFoundError for any other."""
    pipeline_readings.seen(feed, who, name)
    held = desk.parameters(number) if RUN_ID.fullmatch(number) else {}
    if name not in {held.get("pipeline"), held.get("champion")}:
        raise NotFoundError("no such run of this pipeline")
    return desk.run(number)


def cancel(feed: Feed, desk: PrefectDesk, who: Identity, name: str, number: str) -> Run:
    """Cancel a run that was ordered for this pipeline; nothing of it is kept.

    Raises:
        NotFoundError: no such run of this pipeline. InputError: it has ended.
    """
    named = run_of(feed, desk, who, name, number).name
    with _ordered(feed, who, "run.cancel", name, run=named):
        return desk.cancel(number)


@contextmanager
def _ordered(feed: Feed, who: Identity, action: str, name: str, **detail: object) -> Iterator[None]:
    with attempted(feed, who, action, name, **detail) as done:
        yield
        with feed.lake.metadata.write() as tx:
            done(tx)


def results_of(desk: PrefectDesk, number: str) -> list[dict[str, Any]]:
    """Return what a run has published for people: tables as rows, texts, pictures as data URLs."""
    out = []
    for item in desk.artifacts(number):
        rows, text, picture = [], "", ""
        if item["type"] == "table":
            found = _json(item["data"])
            rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        elif item["type"] == "markdown":
            text = str(item["data"])
        elif item["type"] == "image" and str(item["data"]).startswith(PICTURE):
            picture = str(item["data"])
        if rows or text or picture:
            out.append({"title": str(item["description"] or item["key"]), "rows": rows, "text": text, "picture": picture})
    return out


def equity_rows(feed: Feed, row: PipelineRow) -> list[dict[str, Any]]:
    """Return the money that a pipeline's paper orders have made, after each fill, in the quote currency."""
    with feed.lake.metadata.read() as tx:
        curve = equity(trades_of(tx, pipeline=row.name, mode="paper"))
    return [{"at": isoformat(at_us), "equity": round(value, 8)} for at_us, value in curve]


def _json(data: object) -> object:
    """Tables come as JSON text or as rows, by Prefect's version."""
    return json.loads(data) if isinstance(data, str) else data
