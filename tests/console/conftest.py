"""A console over a real home, with people of every kind, asked through its own ASGI door."""

import re

import httpx
import pytest
from sqlalchemy import select

from connections.service import ConnectionInput
from console.app import make_app
from console.prefect_api import PrefectDesk
from core.clock import MINUTE_US, ManualClock, parse_instant
from core.secrets import Secret
from core.settings import Settings
from feed import open_feed
from storage import access, people
from storage.metadata.tables_people import users

PASSWORD = "seven green lamps at noon"
PEOPLE = {"root": "super_admin", "staff": "staff_admin", "clerk": "staff_admin", "ann": "user", "bob": "user"}
START_US = parse_instant("2026-01-05T00:00:00Z")


@pytest.fixture
def clock():
    """A clock that stands still until a test moves it."""
    return ManualClock(parse_instant("2026-01-05T12:00:00Z"))


@pytest.fixture
def settings_of():
    """More settings for the home of a test: override in a module or by parametrisation."""
    return {}


@pytest.fixture
def feed(tmp_path, clock, settings_of):
    """A home with five people, one connection of each owner, and candles in ann's."""
    config = Settings(
        _env_file=None, home=tmp_path / "home", key_file=tmp_path / "test.keys", allow_private_hosts=True, **settings_of)
    with open_feed(config, clock) as opened:
        with opened.lake.metadata.write() as tx:
            for name, role in PEOPLE.items():
                people.add_user(tx, name, role, clock.now_us())
            people.set_password(tx, "root", Secret(PASSWORD), clock.now_us())
            same = select(users.c.password_hash).where(users.c.name == "root").scalar_subquery()
            tx.execute(users.update().values(password_hash=same))  # one slow hash serves all
            people.grant(tx, "staff", ["manage-data-connections"])
        for slug, owner, ours in (("house", "root", True), ("anns", "ann", False), ("bobs", "bob", False)):
            opened.connections.create(ConnectionInput(
                slug=slug, provider="ccxt:kraken", owner=owner, is_admin_owned=ours, symbols=("BTC/USD",), timeframes=("1m",),
                credentials={"api_key": f"canary-key-{slug}", "secret": f"canary-secret-{slug}"}))
        store_candles(opened, "anns", 300)
        yield opened


def store_candles(feed, slug, count):
    """Store `count` candles of a connection's one series."""
    import polars as pl

    from core.candles import CANDLE_SCHEMA
    from storage import Batch
    from storage.series import list_series

    with feed.lake.metadata.read() as tx:
        series = list_series(tx, slug)[0]
    rows = [{"ts": START_US + n * MINUTE_US, "open": 100.0 + n, "high": 102.0 + n, "low": 99.0 + n, "close": 101.0 + n,
             "volume": 5.0, "spread": None} for n in range(count)]
    frame = pl.DataFrame(rows).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).cast(dict(CANDLE_SCHEMA))
    feed.lake.write([Batch(series.id, frame.select(CANDLE_SCHEMA.names()), "rest")], run_id="test")


@pytest.fixture
def app(feed):
    """The console's app; Prefect's server is not there."""
    return make_app(feed, PrefectDesk("http://127.0.0.1:9/api"))


class Browser:
    """A browser's cookies and the CSRF token of its last page."""

    def __init__(self, app):
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://127.0.0.1", follow_redirects=False)
        self.csrf = ""

    async def get(self, path, **more):
        """Open a page."""
        answer = await self.http.get(path, **more)
        if found := re.search(r'name="csrf" value="([^"]+)"', answer.text):
            self.csrf = found.group(1)
        return answer

    async def post(self, path, **form):
        """Send a form of the last page."""
        return await self.http.post(path, data={"csrf": self.csrf, **form})

    async def sign_in(self, name, password=PASSWORD):
        """Sign in and open the account's page."""
        answer = await self.http.post("/login", data={"name": name, "password": password})
        await self.get("/account")
        return answer


@pytest.fixture
async def browser(app):
    """Make browsers; each is another visitor."""
    made = []

    def make():
        made.append(Browser(app))
        return made[-1]

    yield make
    for one in made:
        await one.http.aclose()


@pytest.fixture
def token(feed):
    """Make an API token of a user; returns the header."""

    def make(name, *scopes, days=30):
        with feed.lake.metadata.write() as tx:
            _, value = access.create_token(tx, people.get_user(tx, name), "test", scopes or ("read",), days, feed.clock.now_us())
        return {"authorization": f"Bearer {value.reveal()}"}

    return make
