"""The shapes that the bridge answers with, as it spells them. Only what we read is listed; `parse` checks each use.

Account details also carry the account's password: it has no place here, and `parse` never touches it.
"""

from __future__ import annotations

from typing import Final, NotRequired, TypedDict

MT5_BAR: Final = ("openPrice", "highPrice", "lowPrice", "closePrice", "tickVolume")
MT4_BAR: Final = ("open", "high", "low", "close", "volume")


class Mt5Bar(TypedDict):
    """One of `/PriceHistory`. `time` is server wall clock without offset, `spread` counts points."""

    time: str
    openPrice: float
    highPrice: float
    lowPrice: float
    closePrice: float
    tickVolume: int
    spread: int
    volume: int


class Mt4Bar(TypedDict):
    """One of `/QuoteHistory`. `time` is server wall clock without offset, `volume` counts ticks."""

    time: str
    open: float
    high: float
    low: float
    close: float
    volume: float


class AccountDetails(TypedDict, total=False):
    """`/AccountDetails`, without its password."""

    serverName: str
    user: int
    serverTime: str
    serverTimeZone: int
    currency: str
    accountType: str
    isInvestor: bool


class AccountSummary(TypedDict, total=False):
    """`/AccountSummary`; amounts are not to be trusted while `synced` is false."""

    balance: float
    equity: float
    currency: str
    type: str
    isInvestor: bool
    synced: bool


class Failure(TypedDict):
    """Any failure, whatever the HTTP status: `code` beside `message` or `stackTrace` makes an answer one."""

    code: str | int
    message: NotRequired[str]
    stackTrace: NotRequired[str]
