"""What each exchange can do, as data: read from ccxt's classes, corrected where measurements say otherwise."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from core.errors import InputError
from core.timeframe import NAMES, Timeframe
from providers.base import Capabilities
from providers.exchange import exchange_ids
from providers.exchange.order_dialects import DIALECTS

HEADROOM: Final = 0.8  # of the pace ccxt takes for the limit: others may use the same address
DEFAULT_PAGE: Final = 100  # the least that any exchange with candles answers
_FIELDS: Final = MappingProxyType({
    "apiKey": "api_key", "secret": "secret", "password": "password", "uid": "uid", "accountId": "account_id", "login": "login",
    "twofa": "twofa", "privateKey": "private_key", "walletAddress": "wallet_address", "token": "token",
})


@dataclass(frozen=True, slots=True)
class Profile:
    """Facts about one exchange that ccxt does not state.

    Attributes:
        page: candles at most in one answer, where ccxt's features are wrong or silent; 0 trusts the features.
        history: the exchange serves only so many newest candles, whatever `since` says.
        sparse: whether candles of times without a trade are left out; True is the careful guess.
        takes_until: whether the request can be bounded at its end; None looks into ccxt.
        rows_at: where the rows lie in an answer; an answer without a list there is broken, not empty. "*" is any key.
        tick_history: whether old trades can be asked for by time.
        ids_follow: whether the ids of one market's trades count up by one.
    """

    page: int = 0
    history: int | None = None
    sparse: bool = True
    takes_until: bool | None = None
    rows_at: tuple[str, ...] | None = None
    tick_history: bool = False
    ids_follow: bool = False


_BINANCE: Final = Profile(page=1000, sparse=False, rows_at=(), tick_history=True, ids_follow=True)
_OKX: Final = Profile(page=300, sparse=False, rows_at=("data",))
_BYBIT: Final = Profile(page=1000, sparse=False, rows_at=("result", "list"))
_PROFILES: Final[Mapping[str, Profile]] = MappingProxyType({
    "binance": _BINANCE, "binanceus": _BINANCE, "binanceusdm": _BINANCE, "binancecoinm": _BINANCE,
    "kraken": Profile(
        page=720, history=720, sparse=False, takes_until=False, rows_at=("result", "*"), tick_history=True,
        ids_follow=True),
    "coinbase": Profile(page=300, rows_at=("candles",), ids_follow=True),
    "coinbaseadvanced": Profile(page=300, rows_at=("candles",), ids_follow=True),
    "bybit": _BYBIT, "bybiteu": _BYBIT, "bybitid": _BYBIT,
    "okx": _OKX, "okxus": _OKX, "myokx": _OKX,
    "bitfinex": Profile(page=10_000, rows_at=(), tick_history=True),
    "kucoin": Profile(page=1500, takes_until=True, rows_at=("data",)),
    "gate": Profile(page=1000, rows_at=()),
    "bitget": Profile(page=200, rows_at=("data",)),
    "mexc": Profile(page=500, rows_at=()),  # ccxt's own code says that 500 come where 1000 are documented
    "hyperliquid": Profile(page=5000, history=5000, rows_at=()),
})
_UNKNOWN: Final = Profile()


def profile(exchange_id: str) -> Profile:
    """Return what we know of an exchange; careful guesses for one we never met."""
    return _PROFILES.get(exchange_id, _UNKNOWN)


def check_exchange(exchange_id: str) -> str:
    """Return `exchange_id` if ccxt has it.

    Raises:
        InputError: it has not; names the nearest ones.
    """
    if exchange_id in exchange_ids():
        return exchange_id
    near = difflib.get_close_matches(exchange_id.lower(), exchange_ids(), n=3, cutoff=0.5)
    raise InputError(
        "exchange", exchange_id, f"one of ccxt's {len(exchange_ids())} ids",
        f"did you mean {', '.join(near)}?" if near else "e.g. binance, kraken, coinbase")


def exchange_class(exchange_id: str) -> Any:
    """Return ccxt's asynchronous class of an exchange; the first call takes seconds."""
    import ccxt.async_support as library  # noqa: PLC0415  slow to import

    return getattr(library, check_exchange(exchange_id))


@lru_cache
def capabilities(exchange_id: str) -> Capabilities:
    """Return what an exchange can do, by ccxt's class and our profile.

    Raises:
        InputError: ccxt has no exchange of that id.
    """
    exchange = exchange_class(exchange_id)({"enableRateLimit": False})
    known = profile(exchange_id)
    has_candles = exchange.has.get("fetchOHLCV") is True
    required = [ours for theirs, ours in _FIELDS.items() if exchange.requiredCredentials.get(theirs)]
    return Capabilities(
        provider=f"ccxt:{exchange_id}",
        market_type="crypto",
        timeframes=tuple(timeframe_names(exchange)) if has_candles else (),
        page_candles={"*": known.page or _page_by_features(exchange)},
        history_candles=known.history,
        concurrent_requests=2,
        requests_per_second=HEADROOM * 1000 / exchange.rateLimit,
        optional_credentials=tuple(dict.fromkeys([*required, "password", "uid"])),
        has_ticks=exchange.has.get("fetchTrades") is True,
        has_tick_history=known.tick_history,
        has_streams=can_stream(exchange_id),
        has_orders=exchange_id in DIALECTS,
        sparse=known.sparse,
        trade_ids_follow=known.ids_follow,
    )


def can_stream(exchange_id: str) -> bool:
    """Whether ccxt has a streaming class of the exchange; found without importing it."""
    found = find_spec("ccxt")
    folders = found.submodule_search_locations if found is not None else None
    return any((Path(folder) / "pro" / f"{exchange_id}.py").is_file() for folder in folders or ())


def credential_fields(exchange: Any) -> dict[str, tuple[str, bool]]:
    """Return ours -> (ccxt's name, whether this exchange requires it) for every credential field."""
    return {ours: (theirs, bool(exchange.requiredCredentials.get(theirs))) for theirs, ours in _FIELDS.items()}


def timeframe_names(exchange: Any) -> dict[str, str]:
    """Return our timeframe name -> ccxt's, shortest first, for what both know."""
    found = {"1mo" if theirs == "1M" else theirs: theirs for theirs in exchange.timeframes or {}}
    ours = sorted((Timeframe.parse(name) for name in found if name in NAMES), key=lambda timeframe: timeframe.length_us)
    return {timeframe.name: found[timeframe.name] for timeframe in ours}


def takes_until(exchange: Any) -> bool:
    """Whether ccxt's `until` bounds a request for candles; others would send it raw to the exchange."""
    known = profile(exchange.id).takes_until
    if known is not None:
        return known
    method = type(exchange).fetch_ohlcv
    return "params.until" in (method.__doc__ or "") or "'until'" in inspect.getsource(method)


def _page_by_features(exchange: Any) -> int:
    limits = [
        kind["fetchOHLCV"]["limit"]
        for kind in (exchange.features or {}).values()
        if isinstance(kind, dict) and isinstance(kind.get("fetchOHLCV"), dict) and kind["fetchOHLCV"].get("limit")
    ]
    return int(min(limits)) if limits else DEFAULT_PAGE
