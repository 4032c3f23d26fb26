"""The executor `execution`: writes an order down, then fills it on paper or sends it, exactly once for a signal's key."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from pydantic import Field

from addons.execution.paper import Costs, fill
from core.clock import MINUTE_US, isoformat
from core.errors import PermanentError, TransientError, UnsupportedError
from pipeline.ports import Broker, Order, OrderRequest, Services
from pipeline.stages import ExecutionReport, Kind, SignalRecord
from pipeline.stages import Parameters as Base

LEAST_AGE_US: Final = 10 * MINUTE_US  # short candles: they settle a minute after their close, and the sweep finds lost ones every five


class Execution:
    """Buys or sells at the market on each actionable signal."""

    kind: ClassVar[Kind] = "executor"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """How much, how, and what a paper fill costs."""

        quantity: float = Field(gt=0, allow_inf_nan=False, description="In the provider's unit: lots at a broker, base coins at an exchange.")
        mode: Literal["paper", "live"] = Field("paper", description="On paper, or real orders where every switch allows them.")
        spread: float = Field(0.0, ge=0, allow_inf_nan=False, description="On paper, where the candle has none: price units that a buy pays.")
        commission_rate: float = Field(0.001, ge=0, lt=1, description="On paper: share of the amount.")
        slippage_rate: float = Field(0.0005, ge=0, lt=1, description="On paper: share of the price, always against us.")
        max_age: float = Field(1.0, gt=0, le=1_000_000, description="Candle lengths after the close within which a real order may go out; 10 minutes always.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    async def execute(self, record: SignalRecord, services: Services) -> ExecutionReport:
        """Act on `record` once for its key; a later call goes on where the last one ended or died."""
        if not record.is_actionable:
            return ExecutionReport("refused", f"confidence {record.confidence:g} is below the threshold {record.threshold:g}")
        order = services.orders.write_down(OrderRequest(
            record.key, record.pipeline, record.version, record.series, record.ts_us, record.side,
            self.parameters.quantity, record.price, self.parameters.mode))
        if order.status in {"new", "sending", "acknowledged"}:
            # What was written down decides, not today's parameters: a live order stays one.
            order = await self._real(order, record, services) if order.mode == "live" else self._paper(order, record, services)
        return _report(order)

    async def _real(self, order: Order, record: SignalRecord, services: Services) -> Order:
        late_us = services.clock.now_us() - record.close_us
        allowed_us = max(self.parameters.max_age * record.series.timeframe.length_us, LEAST_AGE_US)
        if order.status == "new" and late_us > allowed_us:
            # A home that was down judges what it missed: the market has gone on since.
            services.orders.give_up(order.key, "refused", (
                f"the candle closed {late_us / MINUTE_US:.0f} minutes ago; by max_age {self.parameters.max_age:g} a real order goes out within"
                f" {allowed_us / MINUTE_US:.0f}"))
            return _again(order, services)
        return await _live_or_refuse(order, services)

    def _paper(self, order: Order, record: SignalRecord, services: Services) -> Order:
        later = services.candles_after(record.series, record.ts_us, 1)
        if later.is_empty():
            return order
        costs = Costs(self.parameters.spread, self.parameters.commission_rate, self.parameters.slippage_rate)
        services.orders.settle(order.key, fill(order, later.row(0, named=True), costs))
        return _again(order, services)


async def _live_or_refuse(order: Order, services: Services) -> Order:
    try:
        return await _live(order, services)
    except UnsupportedError as error:
        if order.status != "new":
            raise  # it was sent: only the broker can end it
        services.orders.give_up(order.key, "refused", str(error))
        return _again(order, services)


async def _live(order: Order, services: Services) -> Order:
    async with services.broker(order.series.connection) as broker:
        if order.status != "new":
            return await ask_again(order, broker, services)
        allowed = services.orders.begin_sending(order.key)
        if allowed is None or allowed.status != "sending":
            return _again(order, services)
        try:
            answer = await broker.place(allowed)
        except PermanentError as error:
            services.orders.give_up(order.key, "rejected", str(error))
        except TransientError:
            pass  # nobody knows whether it arrived: the next call asks
        else:
            services.orders.settle(order.key, answer)
        return _again(order, services)


async def ask_again(order: Order, broker: Broker, services: Services) -> Order:
    """Let the broker say what became of an order; it is never sent again."""
    found = await broker.find(order)
    if found is not None:
        services.orders.settle(order.key, found)
    elif order.status == "sending" and services.clock.now_us() - (order.sent_at_us or 0) > services.grace_us:
        services.orders.give_up(
            order.key, "cancelled", "the broker does not know it: it never arrived; not sent again, place it by hand if you want it")
    return _again(order, services)


def _again(order: Order, services: Services) -> Order:
    return services.orders.find(order.key) or order


def _report(order: Order) -> ExecutionReport:
    text = f"{order.mode} {order.side} {order.quantity:g} {order.series.symbol}: {order.status}"
    if order.sent_at_us is not None and order.status == "sending":
        text += f" since {isoformat(order.sent_at_us)}, not confirmed; the broker is asked again"
    if order.error:
        text += f" ({order.error})"
    status: Literal["done", "refused", "pending"] = "pending"
    if order.status == "filled":
        status = "done"
    elif order.status in {"rejected", "cancelled", "refused"}:
        status = "refused"
    return ExecutionReport(status, text, order.key)
