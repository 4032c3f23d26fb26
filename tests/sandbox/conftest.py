"""One served sandbox for all tests that do not need their own; set back after each."""

from __future__ import annotations

import httpx
import pytest

from sandbox.box import DEMO_PASSWORD
from sandbox.server import running

LOGIN = {"user": "50000001", "password": DEMO_PASSWORD, "server": "Sandbox-Demo"}


@pytest.fixture(scope="session")
def served_history():
    """A sandbox in history mode over the bundled data."""
    with running() as box:
        yield box


@pytest.fixture
def box(served_history):
    """The shared sandbox, faults and switches set back before and after."""
    served_history.reset()
    yield served_history
    served_history.reset()


@pytest.fixture
def client(box):
    """An HTTP client of the shared sandbox."""
    with httpx.Client(base_url=box.url, timeout=20) as client:
        yield client


@pytest.fixture
def mt5(client):
    """Ask MT5 with a fresh session: endpoint and parameters to the answer."""
    token = client.get("/mt5/ConnectEx", params=LOGIN).text.strip('"')
    return lambda endpoint, **query: client.get(
        f"/mt5/{endpoint}", params={"id": token, **{name.rstrip("_"): value for name, value in query.items()}})
