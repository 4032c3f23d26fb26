"""Where everything lies in a lake. The only place that builds or reads a path below its root.

    LAKE/candles/connection=<slug>/symbol=<percent-encoded>/timeframe=1m/period=2026-11-01/<unique>.parquet
    LAKE/revisions/  the same keys: what providers changed, files that are only added to
    LAKE/.staging/   files being written         LAKE/.old/    superseded files, kept for a grace
    LAKE/.locks/     one lock for each series    LAKE/catalog/ snapshots of the metadata
    LAKE/.cache/     copies of what other machines put into the object store

Nothing but `*.parquet` lies under `candles/`: one stray file breaks other people's readers.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from core.clock import MINUTE_US, to_datetime, to_us
from core.errors import InputError, StoreCorruptError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe

CANDLES, REVISIONS, TICKS = "candles", "revisions", "ticks"
STAGING, OLD, LOCKS, CATALOG, CACHE = ".staging", ".old", ".locks", "catalog", ".cache"
CATALOG_DATABASE = "candlelake.duckdb"
_NAME_MAX = 255  # bytes of one name on common file systems
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-~")
_PLAIN_INSIDE = _PLAIN | frozenset(b".")  # a name of dots alone is a folder's own; a dot inside is harmless
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # every hive reader takes this, encoded or not, for null


def encode_symbol(symbol: str) -> str:
    """Return the symbol as it stands in a path; `decode_symbol`, DuckDB, Polars and pyarrow read it back.

    Lower-case letters are encoded too, so that `EURUSDm` and `EURUSDM` stay two folders where case does not count.

    Raises:
        InputError: the symbol cannot be a folder's name.
    """
    if symbol == _NULL_PARTITION:
        raise InputError("symbol", symbol, "any other name", "Parquet readers take this one for null")
    plain = _PLAIN if set(symbol) <= {"."} or symbol.endswith(".") else _PLAIN_INSIDE
    text = "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in symbol.encode())
    if len("symbol=") + len(text) > _NAME_MAX:
        raise InputError("symbol", symbol, f"at most {_NAME_MAX} bytes in a path (it takes {len(text)} percent-encoded)",
                         "use a shorter name")
    return text


def decode_symbol(text: str) -> str:
    """Return the symbol that a path names."""
    return unquote(text, errors="strict")


def period_of(timeframe: Timeframe, us: int) -> Interval:
    """Return the partition that a candle opening at `us` lies in: a month below 5m, a year from 5m up."""
    moment = to_datetime(us)
    if timeframe.length_us < 5 * MINUTE_US:
        first = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
    else:
        first, after = datetime(moment.year, 1, 1, tzinfo=UTC), datetime(moment.year + 1, 1, 1, tzinfo=UTC)
    return Interval(to_us(first), to_us(after))


def period_label(period: Interval) -> str:
    """Return a partition's name: its first day."""
    return period.start_at.date().isoformat()


def period_start_us(label: str) -> int:
    """Return the first instant of the partition called `label`."""
    day = date.fromisoformat(label)
    return to_us(datetime(day.year, day.month, day.day, tzinfo=UTC))


def series_folder(series: Series, dataset: str = CANDLES) -> PurePosixPath:
    """Return the folder of a series, below the lake's root."""
    return PurePosixPath(dataset, f"connection={series.connection}", f"symbol={encode_symbol(series.symbol)}",
                         f"timeframe={series.timeframe.name}")


def partition_folder(series: Series, label: str, dataset: str = CANDLES) -> PurePosixPath:
    """Return the folder of one partition, below the lake's root."""
    return series_folder(series, dataset) / f"period={label}"


def new_file(series: Series, label: str, dataset: str = CANDLES) -> str:
    """Return a path that no file ever had, below the lake's root."""
    return str(partition_folder(series, label, dataset) / f"{uuid.uuid4().hex}.parquet")


def parse_path(path: str) -> tuple[Series, str]:
    """Return the series and the partition that a path below the lake's root names.

    Raises:
        StoreCorruptError: when it is not a path of this layout.
    """
    parts = PurePosixPath(path).parts
    try:
        dataset, *keyed, _name = parts
        keys = dict(part.split("=", 1) for part in keyed)
        series = Series(keys["connection"], decode_symbol(keys["symbol"]), Timeframe.parse(keys["timeframe"]))
        period_start_us(keys["period"])
    except (ValueError, KeyError, InputError) as error:
        raise StoreCorruptError(f"{path} is not a path of the lake; move it out of candles/") from error
    if dataset not in {CANDLES, REVISIONS}:
        raise StoreCorruptError(f"{path} is not a path of the lake; move it out of the tree")
    return series, keys["period"]


def lock_key(series: Series) -> str:
    """Return the name under which writers of a series exclude each other; staging files begin with it."""
    return hashlib.sha256(str(series_folder(series)).encode()).hexdigest()[:32]


def lock_path(root: Path, key: str) -> Path:
    """Return the lock file of a series."""
    return root / LOCKS / f"{key}.lock"


def staged_file(root: Path, path: str) -> Path:
    """Return where the file `path` is written before it is published: alone in a folder outside every dataset."""
    place = PurePosixPath(path)
    return root / STAGING / f"{lock_key(parse_path(path)[0])}.{place.stem}" / place.name


def old_path(root: Path, path: str) -> Path:
    """Return where the superseded file `path` lies until its grace is over."""
    return root / OLD / path


def cached_path(root: Path, path: str) -> Path:
    """Return where a copy of the object `path`, which another machine wrote, lies on this one."""
    return root / CACHE / path
