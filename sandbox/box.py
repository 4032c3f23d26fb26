"""What every part of a running sandbox shares: the market, the present, the faults, the switches, the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal

import orjson
import polars as pl
from starlette.responses import Response

from core.clock import Clock
from core.errors import InputError
from sandbox.faults import Faults
from sandbox.market import Book, Mode, WallClock
from sandbox.orders import Orders
from sandbox.sources import Shelf

LOG: Final = logging.getLogger("sandbox")
_SECRET: Final = {"password", "id", "otp", "signature", "proxypassword", "apikey", "adminkey", "hardwareid"}
DEMO_PASSWORD: Final = "practice-only"  # noqa: S105  the practice account's, printed in the docs


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the practice broker."""

    user: int
    password: str
    server: str


ACCOUNTS: Final = (
    Account(50000001, DEMO_PASSWORD, "Sandbox-Demo"),
    Account(1001, "practice", "Candlelake-Demo"),
)


@dataclass(frozen=True, slots=True)
class Switches:
    """How the servers behave where real ones differ, or where nobody knows; all can be set while serving.

    Args:
        quoted: string answers as JSON ("OK") instead of bare text.
        success_status: of good mtapi answers; live servers were seen to use 201 too.
        order: of mtapi bars.
        offset_minutes: of the broker's clock in winter.
        dst: the broker's summer-time rule.
        timezone_unit: of /ServerTimezone.
        suffix: of the broker's symbol names, e.g. `m` for EURUSDm.
        end_inclusive: whether mtapi ranges hold a bar that opens at `to`.
        off_grid_h4: mtapi candles of 2h to 23h are cut from where the range begins.
        idle_seconds: after which an mtapi token is forgotten.
        strict_limits: exchanges and bridges count requests and refuse too many.
        off_hours: the broker behaves as at the weekend: not connected, no quotes.
        max_bars: of one mtapi answer; the newest are kept.
        tape: what exchanges' sockets send: ticks made from the served candles, or recorded trades from each socket's begin on.
        load_rate: made trades a second for each subscribed symbol, instead of the tape; 0 is off.
        ignores_keys: Kraken's list of ended orders is not narrowed by a client order id.
        no_sockets: names of mtapi sockets that this host lacks, e.g. `OnQuote,OnOhlc`.
    """

    quoted: bool = False
    success_status: int = 200
    order: Literal["asc", "desc"] = "asc"
    offset_minutes: int = 120
    dst: Literal["none", "eu", "us"] = "us"
    timezone_unit: Literal["minutes", "hours"] = "hours"
    suffix: str = ""
    end_inclusive: bool = True
    off_grid_h4: bool = False
    idle_seconds: float = 300.0
    strict_limits: bool = False
    off_hours: bool = False
    max_bars: int = 100_000
    tape: Literal["candles", "recorded"] = "candles"
    load_rate: float = 0.0
    ignores_keys: bool = False
    no_sockets: str = ""

    @property
    def server_clock(self) -> WallClock:
        """The broker's wall clock."""
        return WallClock(self.offset_minutes, self.dst)

    def changed(self, settings: dict[str, Any]) -> Switches:
        """Return these switches with some changed; InputError on an unknown name or a value of another type."""
        for name, value in settings.items():
            allowed = [each.name for each in fields(self)]
            if name not in allowed:
                raise InputError("switch", name, allowed)
            choices = _CHOICES.get(name)
            held = getattr(self, name)
            if choices is not None and value not in choices:
                raise InputError(f"switch {name}", value, choices)
            is_number = isinstance(held, float) and isinstance(value, int) and not isinstance(value, bool)
            if not is_number and type(held) is not type(value):
                raise InputError(f"switch {name}", value, f"a value like {held!r}")
        return replace(self, **settings)


_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "order": ("asc", "desc"), "tape": ("candles", "recorded"), "dst": ("none", "eu", "us"), "timezone_unit": ("minutes", "hours"),
    "success_status": (200, 201)}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came in; secrets masked, `time_us` by the sandbox's clock."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    time_us: int
    status: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


def masked(query: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return query parameters with the values of secret ones replaced by stars."""
    return tuple((name, "***" if name.lower() in _SECRET else value) for name, value in query)


@dataclass(slots=True)
class Box:
    """A running sandbox.

    Args:
        url: its address, e.g. `http://127.0.0.1:4711`; mtapi at /mt5 and /mt4, exchanges at /<real host>/<path>.
        clock: where its present comes from; in history mode it stands just after the end of the data.
        requests: what was asked so far.
        orders: what the practice broker has taken.
        loaded: ticks of generated load that its sockets have sent so far.
    """

    shelf: Shelf
    clock: Clock
    mode: Mode
    url: str = ""
    faults: Faults = field(default_factory=Faults)
    switches: Switches = field(default_factory=Switches)
    accounts: list[Account] = field(default_factory=lambda: list(ACCOUNTS))
    requests: list[Asked] = field(default_factory=list)
    orders: Orders = field(default_factory=Orders)
    loaded: int = 0

    def served(self) -> dict[str, list[str]]:
        """Return the symbols of each venue; the broker's are at both bridges."""
        found: dict[str, list[str]] = {}
        for venue, symbol in sorted(self.shelf.books):
            found.setdefault(venue, []).append(symbol)
        if markets := sorted(self.shelf.of("kraken")):
            found.setdefault("kraken", markets)
        return found

    @property
    def problems(self) -> list[InputError]:
        """The files, or rows of them, that were left out, one error each."""
        return self.shelf.problems

    def set(self, **settings: Any) -> None:
        """Change switches while serving; InputError on an unknown one."""
        self.switches = self.switches.changed(settings)

    def reset(self) -> None:
        """Switch all faults off, forget the requests and orders, set the switches back."""
        self.faults.clear()
        self.requests.clear()
        self.orders.clear()
        self.switches = Switches()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as the dialects see it.

    Args:
        path: whole path, for the patterns of faults.
        query: parameters in order; names may repeat.
        headers: lower-case names.
        now_us: the present that the server shows, skew included.
        body: of a POST, as it came; its form fields are in `query` too.
    """

    box: Box
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    now_us: int
    method: str = "GET"
    body: bytes = b""

    def text(self, name: str, default: str = "") -> str:
        """Return the first value of a parameter; names are compared without case."""
        return next((value for key, value in self.query if key.lower() == name.lower()), default)

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter that may repeat."""
        return [value for key, value in self.query if key.lower() == name.lower()]

    def whole(self, name: str, default: int | None = None) -> int | None:
        """Return a parameter as an integer; `default` when it is missing or no integer."""
        try:
            return int(self.text(name))
        except ValueError:
            return default

    def spoil(self, rows: pl.DataFrame, length_us: int) -> pl.DataFrame:
        """Return candles as the data faults that are on leave them."""
        return self.box.faults.spoil(self.path, rows, length_us, self.now_us)

    def book(self, venue: str, symbol: str) -> Book | None:
        """Return the candles of a symbol, None when the venue does not have it."""
        return self.box.shelf.of(venue).get(symbol)


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer of JSON."""
    return Response(orjson.dumps(value), status, headers, "application/json")
