"""Whose money orders move is said plainly on the command line, in the API and on the pages; nobody is told `demo` on a guess."""

import shutil
from pathlib import Path

import httpx
import orjson
import pytest

from cli.main import run
from connections.inputs import ConnectionInput
from connections.rows import write_log
from console.app import make_app
from console.prefect_api import PrefectDesk
from core.secrets import Secret
from core.settings import Settings, settings
from feed import open_feed
from feed.order_kinds import orders_of
from feed.pipelines import create, shadow
from sandbox.box import DEMO_PASSWORD
from sandbox.server import running
from storage import people
from storage.orders import set_switch
from storage.pipelines import get_pipeline, set_live
from tests.pipeline.conftest import definition

EURUSD = Path(__file__).parents[2] / "sandbox" / "data" / "oanda_EURUSD_H1.parquet"
PASSWORD = "seven green lamps at noon"
SERIES = [{"connection": "broker", "symbol": "EURUSD", "timeframe": "1h"}]
LOGIN = {"user": "50000001", "password": DEMO_PASSWORD, "server": "Sandbox-Demo"}


def executor(mode):
    """An executor of orders of that mode."""
    return [{"plugin": "execution", "parameters": {"quantity": 0.1, "mode": mode}}]


@pytest.fixture
def feed(tmp_path, monkeypatch):
    """An open home with a connection to a broker that is not there."""
    for name, value in {"HOME": tmp_path / "home", "KEY_FILE": tmp_path / "keys", "ALLOW_PRIVATE_HOSTS": "1"}.items():
        monkeypatch.setenv(f"CANDLELAKE_{name}", str(value))
    settings.cache_clear()
    with open_feed(Settings(_env_file=None)) as opened:
        opened.connections.create(ConnectionInput(
            slug="broker", provider="mtapi:mt5", base_url="http://127.0.0.1:9/mt5", symbols=("EURUSD",), timeframes=("1h",),
            credentials={name: Secret(value) for name, value in LOGIN.items()},
            config={"server_clock": {"offset_minutes": 120, "dst": "us"}}))
        yield opened
    monkeypatch.undo()
    settings.cache_clear()


def told(feed, name="live"):
    """Return what is said of a pipeline's orders."""
    with feed.lake.metadata.read() as tx:
        row = get_pipeline(tx, name)
    return orders_of(feed, row)


def answered(feed, kind):
    """Write down what a test of the connection writes down when its account is of that kind."""
    with feed.lake.metadata.write() as tx:
        write_log(tx, (feed.connections.get("broker").id, "broker"), "test", "success", "works", feed.clock.now_us(), account=kind)


@pytest.mark.slow
async def test_a_brokers_own_word_decides(feed, tmp_path):
    """A broker that calls the account real is believed at once, though its server's name says demo."""
    shutil.copy(EURUSD, tmp_path)
    create(feed, definition("live", series=SERIES, executors=executor("live")), "me")
    assert told(feed).kind == "unknown"
    with running(tmp_path, mode="replay") as box:
        feed.connections.update("broker", base_url=f"{box.url}/mt5", credentials={name: Secret(value) for name, value in LOGIN.items()})
        summary = {"balance": 5000, "equity": 5000, "currency": "USD", "synced": True, "type": "Real"}
        box.faults.add("status", "/mt5/AccountSummary", status=200, body=orjson.dumps(summary).decode())
        result = await feed.connections.test("broker")
    assert result.type == "success", result
    assert told(feed).kind == "real"
    assert "REAL account, as broker said on 20" in told(feed).line


def test_orders_are_paper_demo_or_real_in_words(feed):
    """The most serious kind counts; what holds real orders back is named; challengers and pipelines without executor order nothing."""
    for name, executors in (("live", executor("live")), ("paper", executor("paper")), ("none", []), ("both", [*executor("paper"), executor("live")[0] | {"name": "for_real"}])):
        create(feed, definition(name, series=SERIES, executors=executors), "me")
    assert (told(feed, "none").kind, told(feed, "paper").kind) == ("none", "paper")
    assert told(feed, "paper").line == "paper orders: nothing is sent"
    assert told(feed).kind == "unknown"
    answered(feed, "demo")
    assert told(feed).kind == told(feed, "both").kind == "demo"
    assert told(feed, "both").line.startswith("paper orders: nothing is sent; live orders on broker: demo account")
    answered(feed, "real")
    assert told(feed).line.endswith(
        "; none is sent while CANDLELAKE_LIVE_TRADING is off and broker has no setting live_trading and `candlelake orders allow live` is not given")
    object.__setattr__(feed, "settings", feed.settings.model_copy(update={"live_trading": True}))
    feed.connections.update("broker", settings={"live_trading": True})
    with feed.lake.metadata.write() as tx:
        set_live(tx, "live", live=True, now_us=1)
    assert (told(feed).kind, "none is sent" in told(feed).line) == ("real", False)
    with feed.lake.metadata.write() as tx:
        set_switch(tx, halted=True, reason="", by="me", now_us=1)
    assert told(feed).line.endswith("; none is sent while all orders are halted")
    shadow(feed, "live", "paper")
    assert told(feed).kind == "none"
    assert "never trades" in told(feed).line


async def test_every_entrance_says_it(feed, capsys):
    """Command line, API and pages show the same words, REAL in capitals."""
    create(feed, definition("live", series=SERIES, executors=executor("live")), "pat")
    feed.connections.update("broker", settings={"live_trading": True})
    answered(feed, "real")
    line = told(feed).line
    assert "REAL account" in line

    def candlelake(*words):
        capsys.readouterr()
        assert run(list(words)) == 0
        return capsys.readouterr()

    assert orjson.loads(candlelake("pipelines", "show", "live", "--json").out)["orders_told"] == line
    (row,) = orjson.loads(candlelake("pipelines", "list", "--json").out)
    assert (row["name"], row["orders"]) == ("live", "real")
    assert "REAL account" in candlelake("pipelines", "enable", "live").err
    assert "REAL account" in orjson.loads(candlelake("orders", "allow", "live", "--json").out)["orders_told"]
    assert orjson.loads(candlelake("connections", "show", "broker", "--json").out)["account"] == "real"

    with feed.lake.metadata.write() as tx:
        people.add_user(tx, "pat", "super_admin", feed.clock.now_us())
        people.set_password(tx, "pat", Secret(PASSWORD), feed.clock.now_us())
    app = make_app(feed, PrefectDesk("http://127.0.0.1:9/api"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        await http.post("/login", data={"name": "pat", "password": PASSWORD})
        answer = (await http.get("/api/pipelines/live")).json()
        assert answer["orders"] == "real"
        assert "REAL account" in answer["orders_told"]
        assert '<span class="state error">REAL</span>' in (await http.get("/pipelines")).text
        page = (await http.get("/pipelines/live")).text
        assert '<p class="notice bad">Orders: live orders on broker: REAL account' in page
        page = (await http.get("/connections/broker")).text
        assert '<p class="notice bad">Pipelines may send live orders through it: REAL account' in page
