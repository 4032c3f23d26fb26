"""A gap's cause in words that a person reads, with what its proof adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MEANINGS: Final = {
    "no_trade": "nothing was traded (proved twice)", "market_closed": "the market was closed",
    "provider_empty": "the provider has no candle; asked again", "fetch_failed": "no answer yet; asked again",
    "out_of_reach": "older than the provider keeps", "before_listing": "before the listing", "after_delisting": "after the delisting",
    "unknown": "not explained",
}
_ADDED: Final = {
    "market_closed": ("calendar", ""), "out_of_reach": ("reachable_from", "it reaches back to "), "before_listing": ("first", "first candle "),
    "fetch_failed": ("message", ""),
}
_UNKNOWN: Final = {
    "quarantined": "the provider's row is no sound candle; asked again", "waiting": "not asked for yet: newer candles come first",
    "server_time": "the provider's clock had not reached it; asked again",
}


def why(cause: str, proof: Mapping[str, Any]) -> str:
    """Return why there is no candle, in a few words."""
    if isinstance(told := proof.get("withheld"), str):
        return f"withheld: {told}"
    for key, words in _UNKNOWN.items():
        if cause == "unknown" and proof.get(key):
            return words
    key, before = _ADDED.get(cause, ("", ""))
    added = proof.get(key)
    return f"{MEANINGS[cause]}: {before}{added}" if isinstance(added, str) and added else MEANINGS[cause]
