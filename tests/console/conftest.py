"""A console over a real home, with people of every kind, asked through its own ASGI door."""

import re

import httpx
import pytest

from console.app import make_app
from console.prefect_api import PrefectDesk
from core.clock import ManualClock, parse_instant
from tests.console.chromium import console, walker
from tests.console.home import NOON, PASSWORD, PEOPLE, START_US, opened_home, store_candles, token_of

__all__ = ["PASSWORD", "PEOPLE", "START_US", "Browser", "console", "store_candles", "walker"]


@pytest.fixture
def clock():
    """A clock that stands still until a test moves it."""
    return ManualClock(parse_instant(NOON))


@pytest.fixture
def settings_of():
    """More settings for the home of a test: override in a module or by parametrisation."""
    return {}


@pytest.fixture
def feed(tmp_path, clock, settings_of):
    """A home with five people, one connection of each owner, and candles in ann's."""
    with opened_home(tmp_path, clock, **settings_of) as opened:
        yield opened


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
        return token_of(feed, name, *scopes, days=days)

    return make
