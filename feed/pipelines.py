"""Where pipelines meet the store: definitions are saved, read and made ready here, for the CLI, the console and the flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from core.errors import InputError, NotFoundError
from feed.context import Feed
from pipeline.definition import PipelineDefinition, read_definition
from pipeline.engine import Engine
from pipeline.registry import Registry
from pipeline.stages import Context
from pipeline.trial import check_columns
from storage import Lake
from storage.audit import Witness, unwitnessed
from storage.models import get_model, split_version
from storage.pipelines import (
    PipelineRow,
    change_pipeline,
    create_pipeline,
    definition_of,
    get_pipeline,
    get_strategy,
    set_shadow,
)
from storage.series import SeriesRow, find_series, grid_of


@dataclass(frozen=True, slots=True)
class StoredResources:
    """What definitions may name, read from the metadata store; keeps `pipeline.ports.Resources`."""

    lake: Lake

    def read(self, kind: str, owner: str, name: str) -> str:
        """Return the stored text of `name`; NotFoundError when there is none."""
        with self.lake.metadata.read() as tx:
            if kind == "filter_strategy":
                return str(get_strategy(tx, owner, name)["expression"])
            if kind == "ai_model":
                model = get_model(tx, *split_version(name))
                return orjson.dumps({"version": model.version, "digest": model.digest}).decode()
        raise NotFoundError(f"nothing of the kind {kind!r} is stored; allowed: filter_strategy, ai_model")


def create(feed: Feed, values: Mapping[str, Any] | PipelineDefinition, owner: str, registry: Registry | None = None, *,
           witness: Witness = unwitnessed) -> PipelineRow:
    """Check a definition with all its plug-ins and series, and store it as a new pipeline, switched off; `witness` as of connections.

    Raises:
        InputError: a field, a plug-in or a parameter is wrong: names it, what was received and what is allowed.
        PluginError: a plug-in raised when it was made, or was not made in time. NotFoundError: a series that is not in the store.
    """
    definition = _ready_to_store(feed, values, owner, registry)
    with feed.lake.metadata.write() as tx:
        row = create_pipeline(tx, _content(definition), definition.digest, owner, feed.clock.now_us())
        witness(tx)
        return row


def change(feed: Feed, values: Mapping[str, Any] | PipelineDefinition, author: str, registry: Registry | None = None, *,
           witness: Witness = unwitnessed) -> PipelineRow:
    """Check a definition and store it as the next version of the pipeline of that name.

    Raises:
        InputError, NotFoundError: as `create`; a challenger must keep its champion's window.
    """
    definition = _ready_to_store(feed, values, author, registry)
    with feed.lake.metadata.write() as tx:
        row = change_pipeline(tx, _content(definition), definition.digest, author, feed.clock.now_us())
        if row.shadow_of is not None:
            _check_window(definition, read_definition(get_pipeline(tx, row.shadow_of).definition))
        witness(tx)
        return row


def shadow(feed: Feed, name: str, champion: str | None, witness: Witness = unwitnessed) -> PipelineRow:
    """Make `name` a challenger of `champion`: the same input, the same moment, and never an order; `witness` as of connections.

    Raises:
        InputError: the two do not cut their windows alike, or the champion is a challenger.
    """
    with feed.lake.metadata.write() as tx:
        if champion is not None:
            _check_window(read_definition(get_pipeline(tx, name).definition), read_definition(get_pipeline(tx, champion).definition))
        witness(tx)
        return set_shadow(tx, name, champion, feed.clock.now_us())


def load(feed: Feed, name: str, version: int | None = None) -> tuple[PipelineRow, PipelineDefinition]:
    """Return a stored pipeline with the definition of one version, by default the one in force."""
    with feed.lake.metadata.read() as tx:
        row = get_pipeline(tx, name)
        content = row.definition if version is None else definition_of(tx, row.id, version)
    return row, read_definition(content)


def engine_of(definition: PipelineDefinition, registry: Registry | None = None, *, stage_seconds: float | None = None) -> Engine:
    """Return the definition's engine.

    Raises:
        InputError: a plug-in is not there or refuses its parameters. PluginError: one raised when it was made.
        PluginOverdueError: one was not made within `stage_seconds`.
    """
    return Engine(definition, registry, stage_seconds=stage_seconds)


def context_of(feed: Feed, definition: PipelineDefinition, series: SeriesRow) -> Context:
    """Return what the pipeline's plug-ins may know of a series."""
    with feed.lake.metadata.read() as tx:
        grid = grid_of(tx, series)
    market_type = feed.connections.get(series.series.connection).type
    return Context(definition.name, definition.version, series.series, grid, market_type)


def series_of(feed: Feed, definition: PipelineDefinition) -> list[SeriesRow]:
    """Return the stored series of a definition; one that is not in the store (yet) is left out."""
    out = []
    with feed.lake.metadata.read() as tx:
        for key in definition.keys:
            try:
                out.append(find_series(tx, key))
            except NotFoundError:
                continue
    return out


def _ready_to_store(
    feed: Feed, values: Mapping[str, Any] | PipelineDefinition, owner: str, registry: Registry | None,
) -> PipelineDefinition:
    definition = values if isinstance(values, PipelineDefinition) else read_definition(values)
    known = registry or Registry()
    frozen = known.freeze(definition, owner, StoredResources(feed.lake))
    known.build(frozen, seconds=feed.settings.stage_timeout)
    check_columns(frozen, known, feed.settings.stage_timeout)
    with feed.lake.metadata.read() as tx:
        for place, key in enumerate(definition.keys):
            try:
                find_series(tx, key)
            except NotFoundError as error:
                raise InputError(f"pipeline {definition.name} series.{place}", str(key), "a stored series", str(error)) from None
    return frozen


def _content(definition: PipelineDefinition) -> dict[str, Any]:
    return definition.model_dump(mode="json")


def _check_window(challenger: PipelineDefinition, champion: PipelineDefinition) -> None:
    for name in ("lookback", "chapter"):
        mine, theirs = getattr(challenger, name), getattr(champion, name)
        if mine != theirs:
            raise InputError(f"{name} of {challenger.name}", mine, str(theirs), f"give it that of {champion.name}: both see one input")
