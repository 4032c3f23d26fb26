"""Pages of pipelines: the list, one with its graph, times, signals and paper equity, definitions as YAML, replays and comparisons."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from console import drawing, pipeline_actions, pipeline_readings, readings
from console.pages.work import STOP_ASKING, run_values
from console.pipeline_actions import PipelineRunOrder
from console.policy import CONNECTIONS, identity_of
from console.rendering import page
from console.state import desk_of, feed_of
from core.errors import CandlelakeError, InputError

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]
Text = Annotated[str, Form(max_length=2000)]
Yaml = Annotated[str, Form(max_length=200_000)]
PART_OF: Final = dict(zip(pipeline_readings.KINDS, pipeline_readings.STAGES, strict=True))  # a stage's name in executions and in definitions
EXAMPLE: Final = """name: crossing
series:
  - {connection: CONNECTION, symbol: SYMBOL, timeframe: 1h}
threshold: 60
lookback: 100
cleaners:
  - plugin: ohlc_sanity
indicators:
  - {plugin: talib, name: fast, parameters: {function: EMA, options: {timeperiod: 5}}}
  - {plugin: talib, name: slow, parameters: {function: EMA, options: {timeperiod: 12}}}
signals:
  - plugin: crossover
    parameters: {fast: fast, slow: slow}
"""


@router.get("/pipelines", dependencies=SEES)
def show_list(request: Request) -> Response:
    """Show the reader's pipelines."""
    feed = feed_of(request)
    rows = [pipeline_readings.as_dict(feed, row) for row in pipeline_readings.mine(feed, identity_of(request))]
    return page(request, "pipelines.html", {"rows": rows})


@router.get("/pipelines/new", dependencies=SEES)
def show_new(request: Request) -> Response:
    """Show an example to begin with."""
    feed, who = feed_of(request), identity_of(request)
    seen = (feed.connections.get(slug) for slug in sorted(readings.seen_slugs(feed, who)))
    mine = next((row for row in seen if row.symbols), None)
    text = EXAMPLE if mine is None else EXAMPLE.replace("CONNECTION", mine.slug).replace("SYMBOL", mine.symbols[0]).replace(
        "timeframe: 1h", f"timeframe: {'1h' if '1h' in mine.timeframes else mine.timeframes[0]}")
    return _editor(request, None, text, None)


@router.post("/pipelines/new", dependencies=SEES)
def create(request: Request, definition: Yaml) -> Response:
    """Store a new pipeline and show it."""
    try:
        row = pipeline_actions.create(feed_of(request), identity_of(request), definition)
    except CandlelakeError as error:
        return _editor(request, None, definition, str(error))
    return RedirectResponse(f"/pipelines/{row.name}", 303)


@router.get("/pipelines/{name}", dependencies=SEES)
def show(request: Request, name: str) -> Response:
    """Show one pipeline."""
    return _shown(request, name, None)


@router.get("/pipelines/{name}/edit", dependencies=SEES)
def show_edit(request: Request, name: str) -> Response:
    """Show the definition in force to make the next version of."""
    row = pipeline_readings.seen(feed_of(request), identity_of(request), name)
    return _editor(request, name, pipeline_actions.as_yaml(row), None)


@router.post("/pipelines/{name}/edit", dependencies=SEES)
def edit(request: Request, name: str, definition: Yaml) -> Response:
    """Store the next version."""
    feed, who = feed_of(request), identity_of(request)
    pipeline_readings.seen(feed, who, name)
    try:
        pipeline_actions.change(feed, who, name, definition)
    except CandlelakeError as error:
        return _editor(request, name, definition, str(error))
    return RedirectResponse(f"/pipelines/{name}", 303)


@router.post("/pipelines/{name}/runs", dependencies=SEES)
def order(  # noqa: PLR0917  one for each field of the form
    request: Request, name: str, flow: Text, start: Text = "", end: Text = "", challenger: Text = "", by: Text = "replay",
    as_first_seen: Annotated[bool, Form()] = False,
) -> Response:
    """Order a replay or a comparison and show how it goes."""
    feed, who = feed_of(request), identity_of(request)
    pipeline_readings.seen(feed, who, name)
    try:
        run = pipeline_actions.order(feed, desk_of(request), who, name, _wanted(
            flow=flow, start=start, end=end, challenger=challenger or None, by=by, as_first_seen=as_first_seen))
    except CandlelakeError as error:
        return _shown(request, name, str(error))
    return RedirectResponse(f"/pipelines/{name}/runs/{run.id}", 303)


@router.get("/pipelines/{name}/runs/{number}", dependencies=SEES)
def show_run(request: Request, name: str, number: str) -> Response:
    """Show a replay or comparison; while it goes on the page asks again, then it shows what came out."""
    feed, desk = feed_of(request), desk_of(request)
    run = pipeline_actions.run_of(feed, desk, identity_of(request), name, number)
    is_part = request.headers.get("hx-request") == "true"
    values = run_values(feed, desk, run) | {"address": f"/pipelines/{name}/runs/{run.id}", "name": name, "is_part": is_part,
                                      "results": pipeline_actions.results_of(desk, number) if run.is_final else []}
    if is_part:
        return page(request, "part_results.html", values, status=200 if values["is_asking"] else STOP_ASKING)
    return page(request, "pipeline_run.html", values)


@router.post("/pipelines/{name}/runs/{number}/cancel", dependencies=SEES)
def cancel_run(request: Request, name: str, number: str) -> Response:
    """Cancel a run and show it; one that has ended meanwhile is shown as it ended."""
    with suppress(InputError):  # it has ended: its page says how
        pipeline_actions.cancel(feed_of(request), desk_of(request), identity_of(request), name, number)
    return RedirectResponse(f"/pipelines/{name}/runs/{number}", 303)


@router.post("/pipelines/{name}/enable", dependencies=SEES)
def enable(request: Request, name: str) -> Response:
    """Let scheduled runs use it."""
    pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=True)
    return RedirectResponse(f"/pipelines/{name}", 303)


@router.post("/pipelines/{name}/disable", dependencies=SEES)
def disable(request: Request, name: str) -> Response:
    """Keep scheduled runs from it."""
    pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=False)
    return RedirectResponse(f"/pipelines/{name}", 303)


def _wanted(**values: Any) -> PipelineRunOrder:
    try:
        return PipelineRunOrder(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InputError(".".join(str(part) for part in first["loc"]), "what is not allowed", first["msg"], "correct it") from None


def _shown(request: Request, name: str, error: str | None) -> Response:
    feed, who = feed_of(request), identity_of(request)
    row = pipeline_readings.seen(feed, who, name)
    times = pipeline_readings.times(feed, row)
    means = {PART_OF[item["stage"]]: item["mean_ms"] for item in times if item["stage"] in PART_OF}
    return page(request, "pipeline.html", {
        "row": pipeline_readings.as_dict(feed, row), "stages": pipeline_readings.stages(row.definition), "times": times, "means": means,
        "definition": pipeline_actions.as_yaml(row), "signals": pipeline_readings.signal_rows(feed, who, name, limit=50)[::-1],
        "executions": pipeline_readings.execution_rows(feed, row, 60),
        "curve": drawing.equity_curve(pipeline_actions.equity_rows(feed, row)), "error": error,
        "others": [item.name for item in pipeline_readings.mine(feed, who) if item.name != name]}, status=200 if error is None else 422)


def _editor(request: Request, name: str | None, text: str, error: str | None) -> Response:
    return page(request, "pipeline_edit.html", {
        "name": name, "text": text, "error": error, "plugins": pipeline_readings.plugins()}, status=200 if error is None else 422)
