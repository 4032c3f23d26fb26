"""The run that `candlelake up` orders to show that schedule and runner work, at a stand-in for Prefect's server."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.processes import Household, Stop
from cli.stack import Stack
from core.errors import ProviderUnavailableError
from core.settings import Settings


@contextmanager
def prefect_that_ends_runs_as(*ends):
    """Yield port and orders' keys of a server whose n-th run ends as the n-th of `ends` says."""
    keys = []

    class Answers(BaseHTTPRequestHandler):
        """Knows one deployment and the runs that were ordered of it."""

        def log_message(self, *_):
            """Stay silent."""

        def answer(self, body):
            """Send JSON."""
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            """Give the deployment, or a run with its end."""
            number = self.path.rsplit("/", 1)[1]
            self.answer({"id": "d", "state": {"type": ends[int(number)], "name": ends[int(number)].title(), "message": "said so"}}
                        if number.isdigit() else {"id": "d"})

        def do_POST(self):
            """Take an order."""
            keys.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["idempotency_key"])
            self.answer({"id": len(keys) - 1, "name": f"run-{len(keys)}"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], keys
    finally:
        server.shutdown()
        server.server_close()


def prove(tmp_path, port):
    """Let the stack order its run there."""
    Stack(Settings(home=tmp_path, prefect_port=port, _env_file=None), Household(), Stop(), again_seconds=0).prove_schedule()


def test_a_run_that_finds_its_place_taken_is_ordered_again(tmp_path, capsys):
    """Runs of an earlier `up` may hold the deployment's places for a while: that is no failure of this one."""
    with prefect_that_ends_runs_as("CANCELLED", "CANCELLED", "COMPLETED") as (port, keys):
        prove(tmp_path, port)
    assert len(set(keys)) == 3
    assert "fetch run run-3: Completed" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["FAILED", "CRASHED"])
def test_a_run_that_fails_is_told(tmp_path, end):
    """A run that ends badly is one line with its message, and no other is ordered in the hope of a better end."""
    with prefect_that_ends_runs_as(end) as (port, keys):
        with pytest.raises(ProviderUnavailableError, match="said so"):
            prove(tmp_path, port)
        assert len(keys) == 1
