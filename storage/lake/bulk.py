"""Bulk import: a large frame goes straight into the partitions; only changes of stored candles pass through the head."""

from __future__ import annotations

import polars as pl
from sqlalchemy import Connection

from core.candles import CANDLE_SCHEMA, STORED_SCHEMA, VALUES
from core.clock import to_datetime, to_us
from core.errors import InputError, StoreBusyError
from core.interval import Interval
from storage.head import Batch, Written, write
from storage.lake.flush import OvertakenError, commit, discard, discard_unless_live, live_by_label, merge
from storage.lake.place import Place
from storage.lake.publish import writing
from storage.lake.reader import pin, read_pin
from storage.ledger import booked_in, clear_stored
from storage.provenance import note_write
from storage.repairs import note_repairs
from storage.series import SeriesRow, get_series, grid_of

_ATTEMPTS = 5


def import_candles(place: Place, series_id: int, frame: pl.DataFrame, run_id: str) -> Written:
    """Merge checked candles (CANDLE_SCHEMA) into the partitions of a series.

    New candles are written straight into the lake, one swap of the manifest for all of them. Where another value is
    stored already, the new one is a revision, as `Lake.write` makes it.

    Raises:
        InputError: a row that `core.candles.check` would have refused. NotFoundError: no such series.
        StoreBusyError, StoreFullError, StoreUnwritableError: nothing of what is new was stored.
    """
    candles = _checked(frame)
    with place.metadata.read() as tx:
        row = get_series(tx, series_id)
    if candles.is_empty():
        return Written(0, 0, 0, 0)
    span = Interval(to_us(candles["ts"][0]), to_us(candles["ts"][-1]) + 1)
    with writing(place, row.series):
        for _ in range(_ATTEMPTS):
            try:
                new, changed = _split(place, row, candles, span, run_id)
                break
            except OvertakenError:
                continue
        else:
            raise StoreBusyError(f"{row.series}: other writers keep changing it; try again")
    revised = write(place, [Batch(series_id, changed, "import")], run_id)[0] if changed.height else Written(0, 0, 0, 0)
    return Written(new + revised.stored, revised.revised, candles.height - new - changed.height + revised.unchanged, 0)


def _checked(frame: pl.DataFrame) -> pl.DataFrame:
    candles = frame.select(pl.col(name).cast(kind) for name, kind in CANDLE_SCHEMA.items())
    candles = candles.with_columns(pl.col(name) + 0.0 for name in VALUES)  # -0.0 becomes 0.0
    finite = [pl.col(name).is_finite().fill_null(value=False).all() for name in VALUES[:5]]
    finite += [pl.col("spread").is_finite().fill_null(value=True).all(), pl.col("ts").is_not_null().all()]
    if candles.height and not all(candles.select(finite).row(0)):
        raise InputError("candles", "a row without time or with a value that is not finite", "finite values",
                         "pass the frame through core.candles.check first")
    times = candles["ts"].to_physical().to_numpy()
    if (times[1:] > times[:-1]).all():  # the common case: sorted and unique, seen in one go
        return candles
    candles = candles.sort("ts")
    if candles["ts"].n_unique() != candles.height:
        raise InputError("candles", "two rows for one time", "one row for each time",
                         "pass the frame through core.candles.check first")
    return candles


def _split(place: Place, row: SeriesRow, candles: pl.DataFrame, span: Interval, run_id: str) -> tuple[int, pl.DataFrame]:
    """Store what is new; return how many that were, and the candles stored with other values."""
    with place.metadata.read() as tx:
        pinned = pin(tx, row.id, span)
        live = live_by_label(tx, row.id)
    stored = read_pin(place, pinned, span)
    new, changed = candles, candles.clear()
    if stored.height:
        new = candles.join(stored.select("ts"), on="ts", how="anti", maintain_order="left")
        both = candles.join(stored.select("ts", *VALUES), on="ts", suffix="_old", maintain_order="left")
        same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_old")) for name in VALUES)
        changed = both.filter(~same).select(list(CANDLE_SCHEMA))
    if new.is_empty():
        return 0, changed
    rows = new.with_columns(
        known_at=pl.lit(to_datetime(place.clock.now_us()), dtype=STORED_SCHEMA["known_at"]),
        source=pl.lit("import"), run_id=pl.lit(run_id))
    files = merge(place, row.series, rows, live)
    try:
        commit(place, row.id, files, live, grown_to=Interval(to_us(new["ts"][0]), to_us(new["ts"][-1]) + 1),
               head_seen=(span, pinned.head),
               also=lambda tx: _note(tx, row, new, run_id, place.clock.now_us()))
    except OvertakenError:
        discard(place, files)
        raise
    except BaseException:
        discard_unless_live(place, row.id, files)
        raise
    return new.height, changed


def _note(tx: Connection, row: SeriesRow, new: pl.DataFrame, run_id: str, now_us: int) -> None:
    """Take what is new out of the ledger, and note the run that brought it."""
    note_write(tx, run_id, now_us, (new.height, 0, 0))
    span = Interval(to_us(new["ts"][0]), to_us(new["ts"][-1]) + 1)
    if booked_in(tx, row.id, span):
        slots, grid = new["ts"].dt.epoch("us").to_list(), grid_of(tx, row)
        note_repairs(tx, row.id, slots, grid, now_us)
        clear_stored(tx, row.id, slots, grid)
