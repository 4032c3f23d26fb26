"""Fills on paper: the order is at the market when the next candle opens, and pays spread, slippage and commission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.clock import to_us
from pipeline.ports import Fill, Order


@dataclass(frozen=True, slots=True)
class Costs:
    """`spread` in price units where the candle has none; the rates are shares of the amount and of the price."""

    spread: float
    commission_rate: float
    slippage_rate: float


def fill(order: Order, candle: Mapping[str, Any], costs: Costs) -> Fill:
    """Return the fill at a candle's open (a bid price: who buys pays the whole spread, who sells none)."""
    spread = candle["spread"] if candle["spread"] is not None else costs.spread
    if order.side == "buy":
        price = (candle["open"] + spread) * (1 + costs.slippage_rate)
    else:
        price = candle["open"] * (1 - costs.slippage_rate)
    return Fill(price, order.quantity, to_us(candle["ts"]), price * order.quantity * costs.commission_rate)
