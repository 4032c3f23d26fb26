"""Tries a definition on a frame without rows: a column that is named and that nobody makes is found before it is stored."""

from __future__ import annotations

from contextlib import suppress

import polars as pl

from core.candles import empty_candles
from core.errors import InputError, PluginError
from core.series import Series
from core.timeframe import Grid, Timeframe
from pipeline.deadline import OverdueError, within
from pipeline.definition import PipelineDefinition, field_of
from pipeline.engine import Engine
from pipeline.registry import Registry
from pipeline.stages import FOUND_SCHEMA, Context

_NOWHERE = Context("trial", 1, Series("trial", "TRIAL", Timeframe.parse("1h")), Grid(Timeframe.parse("1h")), "crypto")


def check_columns(definition: PipelineDefinition, registry: Registry, seconds: float) -> None:
    """Check that the shipped plug-ins find the columns that they are told to work on.

    What foreign indicators make is seen by asking them, within `seconds`; where one cannot say so without candles, nothing is known,
    and the first run tells.

    Raises:
        InputError: the place in the definition, the name, and the columns that there are.
    """
    alone = definition.model_copy(update={"cleaners": (), "filters": (), "executors": ()})
    engine = Engine(alone, registry, stage_seconds=seconds)
    if all(item.is_ours for item in engine.stages["indicator"]):
        _ask(engine)
        return
    with suppress(PluginError, OverdueError):
        within(seconds, lambda: _ask(engine))


def _ask(engine: Engine) -> None:
    frame, _ = engine.columns(empty_candles(), _NOWHERE, "indicator")
    found = pl.DataFrame(schema=FOUND_SCHEMA)
    for item in engine.stages["signal"] + engine.stages["confidence"]:
        whole = getattr(item.plugin, "generate_all", None) or getattr(item.plugin, "evaluate_all", None)
        if not item.is_ours or whole is None:
            continue
        try:
            whole(*((frame, _NOWHERE) if item.kind == "signal" else (found, frame, _NOWHERE)))
        except InputError as error:
            where = f"pipeline {engine.definition.name} {field_of(item.kind)}.{item.place} ({item.use.plugin}) {error.what}"
            raise InputError(where, error.received, error.allowed, error.fix) from None
