# ruff: noqa: S608  views are built from ids, hex names and quoted paths
"""Ticks in SQL: `ticks('slug', 'SYMBOL')`, for the symbols that a query names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl

from core.clock import EARLIEST_US, LATEST_US
from core.ticks import STORED_TICK_SCHEMA, without_repeats
from storage.lake.place import Place
from storage.ticks import files, journal, losses

MACRO: Final = ("CREATE TEMP MACRO ticks(connection, symbol) AS TABLE SELECT * FROM"
                " query_table('ticks_' || hex(connection) || '_' || hex(symbol)) ORDER BY ts")
_COLUMNS: Final = ", ".join(STORED_TICK_SCHEMA)
_SAME: Final = " AND ".join(f"f.{name} IS NOT DISTINCT FROM j.{name}"
                            for name in ("ts", "trade_id", "bid", "ask", "price", "size", "side"))


@dataclass(frozen=True, slots=True)
class TickView:
    """The ticks of one symbol, pinned: its files and what the journals held just before."""

    name: str
    paths: tuple[Path, ...]
    fresh: pl.DataFrame

    def make(self, session: duckdb.DuckDBPyConnection) -> None:
        """Make the view in a session."""
        session.register(f"journal_{self.name}", self.fresh)
        parts = [f"SELECT {_COLUMNS} FROM journal_{self.name}"]
        if self.paths:
            listed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in self.paths)
            columns = ", ".join(f"f.{name}" for name in STORED_TICK_SCHEMA)
            parts.append(f"SELECT {columns} FROM read_parquet([{listed}], hive_partitioning = false) f"
                         f" ANTI JOIN journal_{self.name} j ON {_SAME}")
        session.execute(f'CREATE TEMP VIEW "{self.name}" AS {" UNION ALL ".join(parts)}')


def tick_views(place: Place, tree: Iterable[Mapping[str, Any]], texts: set[str]) -> list[TickView]:
    """Return the views for the symbols that a query's texts name; none when it does not ask for ticks."""
    if not any(node.get("function_name") == "ticks" for node in tree):
        return []
    with place.metadata.read() as tx:
        named = [(key, slug, symbol) for key, slug, symbol in losses.list_tick_series(tx) if {slug, symbol} <= texts]
    fresh = {(slug, symbol): _journalled(place, slug, symbol) for _, slug, symbol in named}  # before the files: see TickStore.read
    out = []
    for key, slug, symbol in named:
        with place.metadata.read() as tx:
            live = files.live_files(tx, key, EARLIEST_US, LATEST_US)
        name = "_".join(["ticks", slug.encode().hex().upper(), symbol.encode().hex().upper()])
        out.append(TickView(name, tuple(files.where(place, item.path) for item in live), fresh[slug, symbol]))
    return out


def _journalled(place: Place, slug: str, symbol: str) -> pl.DataFrame:
    found = [journal.read_segment(path) for path in journal.segments(place.root, slug)]
    parts = [part.ticks.filter(pl.col("symbol") == symbol).drop("symbol") for part in found if part is not None]
    return without_repeats(pl.concat(parts)) if parts else pl.DataFrame(schema=STORED_TICK_SCHEMA)


