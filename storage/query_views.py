"""What SQL's `candles(..., as_of := ...)` and `derived(...)` stand on: every version of each candle, and aggregated frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection

from core.candles import STORED_SCHEMA, TS, VALUES
from core.clock import EARLIEST_US, LATEST_US
from core.errors import InputError
from core.interval import Interval
from core.series import Series
from storage.derived import DerivedPlan, plan_derived
from storage.lake.revisions import STILL_READABLE
from storage.statements import fetch

_COLUMNS = ", ".join(STORED_SCHEMA)
_NAME = ("'candles_' || hex(connection) || '_' || hex(symbol) || '_' ||"
         " hex(CASE timeframe WHEN '1M' THEN '1mo' ELSE timeframe END)")
NOW_MACRO: Final = f"CREATE TEMP MACRO candles(connection, symbol, timeframe) AS TABLE SELECT * FROM query_table({_NAME})"  # noqa: S608  constants
PAST_MACRO: Final = (  # each version of a candle was known from `known_at` on, until the next one was
    f"CREATE TEMP MACRO candles(connection, symbol, timeframe, as_of := NULL) AS TABLE SELECT {_COLUMNS} FROM"  # noqa: S608  constants
    f" query_table({_NAME}) WHERE CASE WHEN as_of IS NULL THEN until IS NULL ELSE known_at <= CAST(as_of AS TIMESTAMPTZ)"
    " AND (until IS NULL OR until > CAST(as_of AS TIMESTAMPTZ)) END")
DERIVED_MACRO: Final = (
    "CREATE TEMP MACRO derived(connection, symbol, timeframe, anchor := 'utc', derive_from := '1m') AS TABLE SELECT * FROM"
    " query_table('derived_' || hex(connection) || '_' || hex(symbol) || '_' || hex(timeframe) || '_' || hex(anchor) || '_'"
    " || hex(derive_from))")
PAST_SCHEMA: Final = pl.Schema({**STORED_SCHEMA, "until": TS})


@dataclass(frozen=True, slots=True)
class DerivedCall:
    """One call of `derived` in a query."""

    connection: str
    symbol: str
    timeframe: str
    anchor: str = "utc"
    derive_from: str = "1m"

    @property
    def view(self) -> str:
        """The name under which its frame is registered."""
        parts = (self.connection, self.symbol, self.timeframe, self.anchor, self.derive_from)
        return "_".join(["derived", *(part.encode().hex().upper() for part in parts)])

    def plan(self, tx: Connection) -> DerivedPlan:
        """Plan what it reads."""
        key = Series.parse(self.connection, self.symbol, self.derive_from)
        return plan_derived(tx, key, self.timeframe, Interval(EARLIEST_US, LATEST_US), self.anchor)


def asks_past(tree: Sequence[dict[str, Any]]) -> bool:
    """Whether a query's tree names `as_of`."""
    return any("as_of" in {node.get("alias"), node.get("name")} for node in tree)


def derived_calls(tree: Sequence[dict[str, Any]]) -> list[DerivedCall]:
    """Return the calls of `derived` in a query's tree.

    Raises:
        InputError: an argument that is not a plain text.
    """
    calls = set()
    for node in tree:
        if node.get("function_name") != "derived":
            continue
        positional, named = [], {}
        for argument in node.get("arguments") or []:
            literal = (argument.get("expression") or {}).get("literal") or {}
            if literal.get("kind") != "STRING":
                raise InputError("derived()", "an argument that is no text", "derived('slug', 'SYMBOL', '4h', anchor := 'utc', derive_from := '1m')",
                                 "write its arguments as plain texts")
            if argument.get("name"):
                named[argument["name"]] = literal["text"]
            else:
                positional.append(literal["text"])
        if len(positional) != 3 or set(named) - {"anchor", "derive_from"}:
            raise InputError("derived()", f"{len(positional)} arguments and {sorted(named)}",
                             "connection, symbol, timeframe, anchor := ..., derive_from := ...", "give these")
        calls.add(DerivedCall(*positional, **named))
    return sorted(calls, key=lambda call: call.view)


def past_versions(tx: Connection, series_id: int) -> pl.DataFrame:
    """Return what was once known of a series and is no more: PAST_SCHEMA, `until` is when the next value became known."""
    rows = fetch(tx, "SELECT ts_us, old_known_at_us, old, known_at_us FROM revisions r WHERE series_id = ?"  # noqa: S608  a constant
                     f" AND {STILL_READABLE}", (series_id,))
    columns: dict[str, list[Any]] = {name: [] for name in PAST_SCHEMA}
    for ts_us, known_at_us, old, until_us in rows:
        values = json.loads(old) if isinstance(old, str) else old
        for name, value in zip(PAST_SCHEMA, (
                ts_us, *(values[name] for name in VALUES), known_at_us, values["source"], values["run_id"], until_us), strict=True):
            columns[name].append(value)
    plain = pl.Schema({name: pl.Int64() if kind == TS else kind for name, kind in PAST_SCHEMA.items()})
    return pl.DataFrame(columns, schema=plain).cast(PAST_SCHEMA)
