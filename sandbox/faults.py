"""Faults on demand: everything that bridges and exchanges are known to answer when they should not.

Faults of transport (`status`, `hang`, `drop`, ...) replace or spoil an answer; faults of data (`empty_page`,
`late_revision`, ...) change the candles before they are written in the venue's dialect; those of streams (`ws_...`, see
`sandbox.streams`) strike a web socket, which asks some 200 times a second.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any, Final

import polars as pl

from core.clock import SECOND_US
from core.errors import InputError

TRANSPORT: Final = (
    "status", "html", "truncated", "empty_object", "null", "hang", "drop", "slow", "redirect", "huge")
AFTER: Final = ("drop_after", "hang_after")  # the request was carried out, its answer never comes
DATA: Final = (
    "empty_page", "short_page", "missing_rows", "duplicate_rows", "unsorted", "off_grid", "nan", "negative_price",
    "high_below_low", "late_revision", "omit_open")
STREAM: Final = ("ws_drop", "ws_close", "ws_stall", "ws_lose", "ws_repeat", "ws_reorder", "ws_garbage", "ws_huge", "ws_mute", "ws_late")
CLOCK: Final = ("clock_skew",)
KINDS: Final = (*TRANSPORT, *AFTER, *DATA, "ws_refuse", *STREAM, *CLOCK)


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    Args:
        kind: one of KINDS.
        path: shell pattern on the request's path, e.g. `/mt5/PriceHistory*` or `/api.kraken.com/*`.
        probability: how often it strikes, 0 to 1, by a seeded generator.
        count: how many times at most; None is for ever.
        status: the HTTP status of `status`; its `body` is the venue's kind of text.
        retry_after: seconds, or any text, for the Retry-After header.
        seconds: of `clock_skew` (added to the server's time), of `ws_late`, or the pause between bytes of `slow`.
        rows: how many rows a data fault touches.
        since: `late_revision` changes candles that open at or after this epoch second ...
        until: ... and before this one.
        factor: by which `late_revision` multiplies close and volume.
        location: where `redirect` points.
        symbol: that `ws_mute` silences, by the venue's name.
    """

    kind: str
    path: str = "*"
    probability: float = 1.0
    count: int | None = None
    status: int = 503
    retry_after: float | str | None = None
    body: str = "<html><body>503 Service Unavailable</body></html>"
    seconds: float = 0.05
    rows: int = 3
    since: float = 0.0
    until: float = 4_102_444_800.0
    factor: float = 1.0001
    location: str = "http://localhost.invalid/"
    symbol: str = ""
    hits: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("fault", self.kind, KINDS, "use one of those")
        if not 0 <= self.probability <= 1:
            raise InputError("fault probability", self.probability, "0 to 1")


@dataclass(slots=True)
class Faults:
    """The faults that are on, in the order in which they were switched on; `seed` makes chance repeatable."""

    seed: int = 0
    active: list[Fault] = field(default_factory=list)
    _random: random.Random = field(init=False)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  chance for tests, no secret

    def add(self, kind: str, path: str = "*", **settings: Any) -> Fault:
        """Switch a fault on and return it; InputError when a name or value is not one of Fault's."""
        allowed = [each.name for each in fields(Fault) if each.name != "hits"]
        unknown = sorted(set(settings) - set(allowed))
        if unknown:
            raise InputError("fault settings", unknown, allowed)
        fault = Fault(kind, path, **settings)
        with self._lock:
            self.active.append(fault)
        return fault

    def add_from(self, settings: Mapping[str, Any]) -> Fault:
        """Switch on a fault given as JSON; InputError when it is not one."""
        given = dict(settings)
        kinds: dict[str, type | tuple[type, ...]] = {
            "kind": str, "path": str, "symbol": str, "probability": (int, float), "count": (int, type(None)), "status": int,
            "rows": int, "seconds": (int, float), "since": (int, float), "until": (int, float), "factor": (int, float)}
        for name, value in given.items():
            if name in kinds and not isinstance(value, kinds[name]):
                raise InputError(f"fault {name}", value, "a value of the right type")
        return self.add(given.pop("kind", ""), given.pop("path", "*"), **given)

    def remove(self, fault: Fault) -> None:
        """Switch one fault off; one that is off already stays so."""
        with self._lock:
            self.active = [each for each in self.active if each is not fault]

    def clear(self) -> None:
        """Switch all faults off and start chance anew."""
        with self._lock:
            self.active.clear()
            self._random = random.Random(self.seed)  # noqa: S311  chance for tests, no secret

    def strike(self, path: str, kinds: tuple[str, ...]) -> list[Fault]:
        """Return the faults of these kinds that strike a request now, each counted."""
        with self._lock:
            struck = [fault for fault in self.active if fault.kind in kinds and self._strikes(fault, path)]
            for fault in struck:
                fault.hits += 1
            return struck

    def skew_us(self, path: str) -> int:
        """Return how far the server's clock is off for this request."""
        return round(sum(fault.seconds for fault in self.strike(path, CLOCK)) * SECOND_US)

    def _strikes(self, fault: Fault, path: str) -> bool:
        if not fnmatchcase(path, fault.path) or (fault.count is not None and fault.hits >= fault.count):
            return False
        return fault.probability >= 1 or self._random.random() < fault.probability

    def spoil(self, path: str, rows: pl.DataFrame, length_us: int, now_us: int) -> pl.DataFrame:
        """Return candles as the data faults that strike now leave them."""
        for fault in self.strike(path, DATA):
            rows = _SPOILERS[fault.kind](rows, fault, length_us, now_us)
        return rows


def _missing(rows: pl.DataFrame, fault: Fault, _length: int, _now: int) -> pl.DataFrame:
    middle = max(rows.height // 2 - fault.rows // 2, 1)
    return pl.concat([rows.head(middle), rows.slice(middle + fault.rows)])


def _off_grid(rows: pl.DataFrame, _fault: Fault, length_us: int, _now: int) -> pl.DataFrame:
    return _alter_middle(rows, {"us": pl.col("us") + length_us // 3 // SECOND_US * SECOND_US})


def _alter_middle(rows: pl.DataFrame, changes: dict[str, pl.Expr]) -> pl.DataFrame:
    is_middle = pl.int_range(pl.len()) == rows.height // 2
    return rows.with_columns(**{
        name: pl.when(is_middle).then(value).otherwise(pl.col(name)) for name, value in changes.items()})


def _revise(rows: pl.DataFrame, fault: Fault, length_us: int, now_us: int) -> pl.DataFrame:
    is_hit = (pl.col("us") >= fault.since * SECOND_US) & (pl.col("us") < fault.until * SECOND_US)
    is_hit &= pl.col("us") + length_us <= now_us
    changed = rows.with_columns(
        close=pl.when(is_hit).then((pl.col("close") * fault.factor).round(8)).otherwise(pl.col("close")),
        volume=pl.when(is_hit).then((pl.col("volume") * fault.factor).round(8) + 1).otherwise(pl.col("volume")))
    return changed.with_columns(high=pl.max_horizontal("high", "close"), low=pl.min_horizontal("low", "close"))


Spoiler = Callable[[pl.DataFrame, Fault, int, int], pl.DataFrame]
_SPOILERS: Final[dict[str, Spoiler]] = {
    "empty_page": lambda rows, _f, _l, _n: rows.clear(),
    "short_page": lambda rows, fault, _l, _n: rows.head(max(rows.height - fault.rows, 0)),
    "missing_rows": _missing,
    "duplicate_rows": lambda rows, fault, _l, _n: pl.concat([rows, rows.tail(fault.rows)]),
    "unsorted": lambda rows, _f, _l, _n: rows.sample(fraction=1.0, shuffle=True, seed=1),
    "off_grid": _off_grid,
    "nan": lambda rows, _f, _l, _n: _alter_middle(rows, {"close": pl.lit(float("nan"))}),
    "negative_price": lambda rows, _f, _l, _n: _alter_middle(rows, {"low": -pl.col("low")}),
    "high_below_low": lambda rows, _f, _l, _n: _alter_middle(rows, {"high": pl.col("low") * 0.9}),
    "late_revision": _revise,
    "omit_open": lambda rows, _f, length, now: rows.filter(pl.col("us") + length <= now),
}
