"""Processes killed around the sending of an order to the sandbox's MetaTrader and exchanges: never a double, never one lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta

import pytest

from connections.inputs import ConnectionInput
from core.clock import ManualClock, SystemClock, parse_instant
from core.series import Series
from feed.pipelines import create
from providers.exchange.order_dialects import DIALECTS
from sandbox.server import running
from storage.orders import list_orders
from storage.pipelines import set_live
from tests.addons.order_worker import CLOCK, KEYS, SYMBOLS, home, send
from tests.pipeline.conftest import definition

ASKED = os.environ.get("CANDLELAKE_TEST_ORDER_KILLS")  # 1000 for the whole of it, at each of the four
WAYS = ("before", "accepted", "accepted later", "anywhere")
WEDNESDAY = parse_instant("2021-06-16T10:07:30Z")


@pytest.fixture
def broker():
    """The practice broker on a trading day."""
    with running(mode="replay", clock=ManualClock(WEDNESDAY)) as box:
        yield box


def prepare(path, platform):
    """Make a home in which every switch allows orders."""
    with_feed = home(str(path))
    account = {
        "provider": "mtapi:mt5", "credentials": {"user": "50000001", "password": "practice-only", "server": "Sandbox-Demo"},
        "config": CLOCK,
    } if platform == "mt5" else {
        "provider": f"ccxt:{platform}", "credentials": {name: secret.reveal() for name, secret in KEYS.items()}}
    with_feed.connections.create(ConnectionInput(
        slug="broker", symbols=[SYMBOLS[platform]], timeframes=["1h"], is_active=False, **account))
    with_feed.connections.update("broker", settings={
        "live_trading": True, "max_order_quantity": 1.0, "max_daily_loss": 1e6, "max_open_orders": 1000})
    series = Series.parse("broker", SYMBOLS[platform], "1h")
    create(with_feed, definition(series=[{"connection": series.connection, "symbol": series.symbol, "timeframe": "1h"}]), "me")
    with with_feed.lake.metadata.write() as tx:
        set_live(tx, "trend", live=True, now_us=WEDNESDAY)
    with_feed.close()


@pytest.mark.slow
@pytest.mark.timeout(14_400 if ASKED else 300)
@pytest.mark.parametrize(("platform", "send_path", "kills"), [
    ("mt5", "/mt5/OrderSend", int(ASKED or 20)), ("binance", "/api.binance.com/api/v3/order", int(ASKED or 8)),
    ("kraken", "/api.kraken.com/0/private/AddOrder", int(ASKED or 8)),
    ("coinbase", "/api.coinbase.com/api/v3/brokerage/orders", int(ASKED or 8))])
async def test_kills_between_send_and_acknowledge_leave_no_double_and_lose_none(tmp_path, broker, platform, send_path, kills):  # noqa: PLR0915  one long story
    """Each signal has one row; the broker has each order at most once; a row is filled exactly when the broker has it."""
    path = tmp_path / "home"
    prepare(path, platform)
    if platform != "mt5":  # exchanges refuse a clock that is not theirs
        broker.clock = SystemClock()
    dice, victim, kill_on_accept, timers = random.Random(7), [0], [""], []

    def accepted(_order):
        if kill_on_accept[0] == "accepted":
            os.kill(victim[0], signal.SIGKILL)
        elif kill_on_accept[0] == "accepted later":
            timers.append(_later(dice.random() * 0.02, victim[0]))

    broker.orders.on_accept = accepted
    worker = subprocess.Popen(  # noqa: ASYNC220  our own interpreter; the sandbox has a thread of its own
        [sys.executable, "-m", "tests.addons.order_worker", str(path), broker.url, platform], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    exits = Counter()
    try:
        for number in range(kills):
            way = WAYS[number % len(WAYS)]
            kill_on_accept[0] = way
            fault = broker.faults.add("hang", send_path) if way == "before" else None
            seen = len(broker.requests)
            worker.stdin.write(f"{number}\n")
            worker.stdin.flush()
            victim[0] = int(worker.stdout.readline().split()[1])
            if way == "before":
                _await_request(broker, seen, send_path)
                os.kill(victim[0], signal.SIGKILL)
            elif way == "anywhere":
                timers.append(_later(dice.random() * 0.3, victim[0]))
            exits[worker.stdout.readline().split()[2]] += 1
            while timers:  # its number may belong to another process soon
                timers.pop().cancel()
            if fault is not None:
                broker.faults.remove(fault)
    finally:
        worker.stdin.close()
        worker.wait(60)
        worker.stdout.close()
    kill_on_accept[0] = ""
    feed = home(str(path), ManualClock(SystemClock().now_us()))
    try:
        with feed.lake.metadata.read() as tx:
            before = {row["key"]: row["status"] for row in list_orders(tx)}
        feed.clock.advance(timedelta(seconds=600))
        if platform != "mt5":
            broker.clock = feed.clock
        for number in range(kills):
            await send(feed, broker.url, platform, number)
        with feed.lake.metadata.read() as tx:
            rows = list_orders(tx)
    finally:
        feed.close()
    held = Counter(_ours(platform, order.comment) for order in broker.orders.taken)
    print("exits", dict(exits), "left", dict(Counter(before.values())), "ended", dict(Counter(row["status"] for row in rows)))  # noqa: T201  the figures
    assert len(rows) == kills
    assert max(held.values()) == 1
    assert {row["client_id"] for row in rows if row["status"] == "filled"} == set(held)
    assert {row["status"] for row in rows} <= {"filled", "cancelled"}
    assert exits["-9"] >= kills // 2


def _ours(platform, comment):
    return comment if platform == "mt5" else DIALECTS[platform].client_id(comment)


def _later(seconds, pid):
    timer = threading.Timer(seconds, _end, [pid])
    timer.start()
    return timer


def _end(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _await_request(box, seen, path):
    until, method = threading.Event(), "GET" if path.startswith("/mt5") else "POST"
    for _ in range(6000):
        if any(asked.method == method and asked.path == path for asked in list(box.requests)[seen:]):
            return
        until.wait(0.01)
    raise AssertionError("the order was never sent")
