"""What clients of the bridge have subscribed by REST; its web sockets send that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sandbox.box import Ask

SUBSCRIPTIONS: Final = ("subscribe", "subscribemany", "unsubscribe", "unsubscribemany", "subscribeohlc", "subscribedsymbols")


@dataclass(slots=True)
class Subscriptions:
    """By token: the symbols whose quotes were asked for, and the symbols and minutes of forming candles."""

    quotes: dict[str, set[str]] = field(default_factory=dict)
    ohlc: dict[str, set[tuple[str, int]]] = field(default_factory=dict)

    def answer(self, ask: Ask, known: set[str]) -> str | list[str]:
        """Answer one of SUBSCRIPTIONS; unknown symbols are dropped without a word."""
        endpoint, token = ask.path.rsplit("/", 1)[-1].lower(), ask.text("id")
        held = self.quotes.setdefault(token, set())
        named = {*ask.texts("symbols"), *ask.texts("symbol")}
        if endpoint == "subscribedsymbols":
            return sorted(held)
        if endpoint == "subscribeohlc":
            minutes = ask.whole("timeframe", 0) or 0
            self.ohlc.setdefault(token, set()).update((name, minutes) for name in named & known if minutes > 0)
        elif endpoint.startswith("un"):
            held -= named
        else:
            held |= named & known
        return "OK"
