"""What a person says about a connection, checked before anything is stored."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from core.errors import AddressRefusedError, InputError
from core.secrets import Secret
from core.series import check_slug, check_symbol
from core.settings import Settings
from core.timeframe import Timeframe
from providers.addresses import check_url, is_allowed
from providers.base import Capabilities

_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|secret|api_?key|token|private_?key|otp|signature", re.IGNORECASE)


def _secret(value: object) -> object:
    """Take a text, pydantic's SecretStr or our Secret; a number may be an account's."""
    if isinstance(value, SecretStr):
        return Secret(value.get_secret_value())
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return Secret(str(value))
    return value


def _unique(items: object) -> object:
    return tuple(dict.fromkeys(items)) if isinstance(items, (list, tuple)) and all(isinstance(i, str) for i in items) else items


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"][:2])
            unknown = first["type"] == "extra_forbidden"
            # What was received may be a secret in the wrong place: only its place is named.
            raise InputError(
                where, "an unknown field" if unknown else "a value that is not allowed",
                ", ".join(type(self).model_fields) if unknown else first["msg"]) from None


class ConnectionSettings(_Checked):
    """Our own options of one connection; what is not given follows the settings of the home."""

    retention_days: Annotated[int, Field(ge=1, le=36500)] | None = None
    overlap_candles: Annotated[int, Field(ge=0, le=1000)] | None = None
    settle_seconds: Annotated[float, Field(ge=0, le=3600)] | None = None
    stream: bool | None = None  # the scheduled stream takes this connection
    tick_retention_days: Annotated[int, Field(ge=1, le=36500)] | None = None
    # Real orders: on, and with all three limits; see docs/trading.md.
    live_trading: bool | None = None
    max_order_quantity: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # in the provider's unit (lots, base coins)
    max_daily_loss: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # in the account's quote currency, since midnight UTC
    max_open_orders: Annotated[int, Field(ge=1, le=1000)] | None = None


class ConnectionInput(_Checked):
    """A connection as a person describes it; `symbols` x `timeframes` are the series to keep.

    Raises:
        InputError: a field is unknown, missing or not allowed; no message holds what stood in `credentials`.
    """

    slug: Annotated[str, Field(max_length=200)]
    provider: Annotated[str, Field(max_length=100)]
    name: Annotated[str, Field(max_length=200)] = ""
    base_url: Annotated[str, Field(max_length=2000)] | None = None
    credentials: dict[Annotated[str, Field(max_length=63)], Annotated[Secret, BeforeValidator(_secret)]] = Field(
        default_factory=dict, repr=False)
    config: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    symbols: Annotated[tuple[str, ...], BeforeValidator(_unique), Field(max_length=5000)] = ()
    timeframes: Annotated[tuple[str, ...], BeforeValidator(_unique)] = ()
    owner: Annotated[str, Field(max_length=200)] | None = None
    is_admin_owned: bool = False
    is_active: bool = True


def check_input(given: ConnectionInput, describe: Callable[[str], Capabilities], *, allow_private: bool) -> Capabilities:
    """Check every part of `given` against the vocabulary and its provider; return what the provider can do.

    Raises:
        InputError: slug, provider, symbol, timeframe, config or a credential's name is not allowed.
        AddressRefusedError: the base URL is not one we may use.
    """
    check_slug(given.slug)
    capabilities = describe(given.provider)
    for symbol in given.symbols:
        check_symbol(symbol)
    for name in given.timeframes:
        if Timeframe.parse(name).name not in capabilities.timeframes:
            raise InputError(f"timeframe of {given.provider}", name, capabilities.timeframes, "choose one of them")
    if bool(given.symbols) != bool(given.timeframes):
        lacks = "timeframes" if given.symbols else "symbols"
        raise InputError(lacks, "none", "at least one with the other", f"give {lacks} too, or neither")
    if given.base_url is not None:
        check_base_url(given.base_url, allow_private=allow_private)
    for name in given.config:
        if _SECRET_NAME.search(name):
            raise InputError("config", name, "options without secrets", "give it under credentials, which are encrypted")
    ConnectionSettings(**given.settings)
    return capabilities


def check_credentials(fields: set[str], capabilities: Capabilities) -> None:
    """Raise InputError when a field is unknown to the provider, or a required one or one of a choice is missing."""
    known = [*capabilities.credentials, *capabilities.optional_credentials]
    for name in sorted(fields):
        if name not in known:
            raise InputError(f"credentials of {capabilities.provider}", name, known or "none: its data is public")
    missing = [name for name in capabilities.credentials if name not in fields]
    if missing:
        raise InputError(f"credentials of {capabilities.provider}", f"no {', '.join(missing)}", known, "give them all")
    choices = capabilities.credential_choices
    if choices and not any(fields.issuperset(choice) for choice in choices):
        named = ", or ".join(" and ".join(choice) for choice in choices)
        raise InputError(f"credentials of {capabilities.provider}", sorted(fields), f"{named} too", "add one of them")


def check_base_url(url: str, *, allow_private: bool) -> None:
    """Raise AddressRefusedError when a base URL is malformed, or a literal address that we may not connect to."""
    host = check_url(url).host
    try:
        literal = str(ipaddress.ip_address(host))
    except ValueError:
        return  # a name: judged by what it resolves to, each time it is used
    if not is_allowed(literal, allow_private=allow_private):
        raise AddressRefusedError(
            f"base URL: address {host} not allowed; allowed: public addresses; "
            "set CANDLELAKE_ALLOW_PRIVATE_HOSTS=1 for one in your own network")


def may_be_private(base_url: str | None, settings: Settings, *, is_admin_owned: bool) -> bool:
    """Return whether a connection may reach private addresses.

    The home allows it for all, or it is the operator's own and goes to this home's sandbox and nowhere else.
    """
    if settings.allow_private_hosts or not is_admin_owned or base_url is None:
        return settings.allow_private_hosts
    target = check_url(base_url)
    return (target.scheme, target.host, target.port) == ("http", "127.0.0.1", settings.sandbox_port)


def market_type(given: ConnectionInput, capabilities: Capabilities) -> str:
    """Return fx or crypto; replays of files say it in their config."""
    said = given.config.get("market_type")
    return said if given.provider == "replay" and said in {"fx", "crypto"} else capabilities.market_type
