"""The sandbox's server: practice broker and exchanges over real data, on loopback alone."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from core.clock import SECOND_US, Clock, ManualClock, SystemClock, isoformat
from core.errors import InputError, ProviderUnavailableError
from sandbox.binance import Binance
from sandbox.box import Account, Ask, Asked, Box, Switches, json_answer, masked
from sandbox.coinbase import Coinbase
from sandbox.dialects import bridge_dialect, exchange_dialects
from sandbox.faults import AFTER, TRANSPORT
from sandbox.kraken import Kraken
from sandbox.market import Mode
from sandbox.mtapi import Bridge
from sandbox.mtapi4 import Bridge4
from sandbox.sources import load
from sandbox.streams import Streams
from sandbox.wire import Protocol, hang, reset, spoil

_START_SECONDS: Final = 30.0
_LOOPBACK: Final = "127.0.0.1"
_BODY_LIMIT: Final = 65_536
_LOG_LENGTH: Final = 10_000
_SETTLED_US: Final = 90 * SECOND_US  # after the last candle: whoever waits a minute before believing one gets that one too
LOG: Final = logging.getLogger(__name__)


@contextmanager
def running(
    data: Path | None = None, port: int = 0, mode: Mode = "history", clock: Clock | None = None, *,
    switches: Switches | None = None, accounts: list[Account] | None = None,
) -> Iterator[Box]:
    """Serve until the block ends.

    Args:
        data: folder of Parquet candles; the bundled data without it.
        port: on 127.0.0.1; 0 takes a free one.
        mode: `history`, present a minute and a half after the end of the data; `replay`, present is now and data lies over all time.
        clock: the present, instead of the mode's own.
        switches: how the servers behave.
        accounts: of the practice broker, instead of the demo ones.

    Raises:
        InputError: a mode that is none, or no usable data.
        OSError: the port is taken.
    """
    box = build(data, mode, clock, switches, accounts)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        # The protocol is named because asyncio sends without delay only on sockets that say they are TCP.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_LOOPBACK, port))
        box.url = f"http://{_LOOPBACK}:{listener.getsockname()[1]}"
        desk = Desk(box)
        server = uvicorn.Server(uvicorn.Config(
            desk.app, http=Protocol, ws="websockets-sansio", lifespan="off", loop="asyncio", access_log=False, log_config=None,
            timeout_graceful_shutdown=2, timeout_keep_alive=30))
        thread = threading.Thread(target=server.run, args=([listener],), name="sandbox", daemon=True)
        thread.start()
        try:
            _wait(server, thread)
            yield box
        finally:
            desk.stopping.set()
            server.should_exit = True
            thread.join(10)


def build(data: Path | None, mode: Mode, clock: Clock | None, switches: Switches | None,
          accounts: list[Account] | None) -> Box:
    """Return a box that is not served yet; InputError as `running`."""
    if mode not in {"history", "replay"}:
        raise InputError("sandbox mode", mode, "history, replay")
    switches = switches or Switches()
    shelf = load(data, mode, switches.server_clock)
    if clock is None:
        clock = SystemClock() if mode == "replay" else ManualClock(shelf.end_us() + _SETTLED_US)
    box = Box(shelf, clock, mode, switches=switches)
    if accounts is not None:
        box.accounts = accounts
    return box


def serve(data: Path | None = None, port: int = 8700, mode: Mode = "history",
          stop: threading.Event | None = None) -> None:
    """Serve until `stop` is set, or for ever; errors as `running`."""
    with running(data, port, mode) as box:
        LOG.info("sandbox at %s", box.url)
        (stop or threading.Event()).wait()


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    until = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            raise ProviderUnavailableError("the sandbox did not start serving; its log says why")
        time.sleep(0.005)


class Desk:
    """Takes each request to the venue it is for, and lets the faults have their way with the answer."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.bridges = {"mt5": Bridge(), "mt4": Bridge4()}
        self.exchanges = {host: venue for venue in (Binance(), Kraken(), Coinbase()) for host in venue.hosts}
        self.stopping = asyncio.Event()
        self.streams = Streams(box, exchange_dialects() | {name: bridge_dialect(item) for name, item in self.bridges.items()})
        methods = ["GET", "POST"]
        self.app = Starlette(routes=[
            Route("/", self.control, methods=methods), Route("/_sandbox", self.control, methods=methods),
            Route("/_sandbox/{rest:path}", self.control, methods=methods),
            Route("/{whole:path}", self.answer, methods=methods), WebSocketRoute("/{whole:path}", self.streams.serve)])

    async def answer(self, request: Request) -> Response:
        """Answer a request for a venue."""
        path, now_us = request.url.path, self.box.clock.now_us()
        faults = self.box.faults.strike(path, (*TRANSPORT, *AFTER))
        fault = faults[0] if faults else None
        query = list(request.query_params.multi_items())
        body = await request.body() if request.method == "POST" else b""
        query += parse_qsl(body.decode("latin-1"))
        ask = Ask(self.box, path, tuple(query), dict(request.headers.items()),
                  now_us + self.box.faults.skew_us(path), request.method, body)
        kind = fault.kind if fault else ""
        if kind in {"hang", "drop"}:
            self._note(request, ask, 0)
            if kind == "drop":
                reset(request)
            else:
                await hang(request, self.stopping)
            return Response("", 503)
        answer = self._ask(ask, request.method)
        if kind == "drop_after":
            reset(request)
        elif kind == "hang_after":
            await hang(request, self.stopping)
        elif fault is not None:
            answer = spoil(answer, fault)
        self._note(request, ask, answer.status_code)
        return answer

    def _ask(self, ask: Ask, method: str) -> Response:
        first, _, rest = ask.path.lstrip("/").partition("/")
        if first in self.bridges:
            if method != "GET":
                return Response("", 405)
            return self.bridges[first].answer(ask, rest)
        if first in self.exchanges:
            return self.exchanges[first].answer(ask, first, "/" + rest)
        return Response(f"nothing is served at /{first}; see {self.box.url}/_sandbox\n", 404, media_type="text/plain")

    def _note(self, request: Request, ask: Ask, status: int) -> None:
        self.box.requests.append(Asked(request.method, ask.path, masked(ask.query), ask.now_us, status))
        if len(self.box.requests) > 2 * _LOG_LENGTH:  # a sandbox may run for months
            del self.box.requests[:-_LOG_LENGTH]

    async def control(self, request: Request) -> Response:
        """Answer /_sandbox: what is served, and the levers."""
        lever = request.path_params.get("rest", "")
        if request.method == "GET":
            if lever == "requests":
                return json_answer([asked.as_dict() for asked in self.box.requests])
            return json_answer(self.index()) if not lever else Response("", 404)
        if request.headers.get("origin"):  # a web page must not pull levers through somebody's browser
            return json_answer({"error": "cross-origin requests are refused"}, 403)
        try:
            return json_answer(self._pull(lever, await _object(request)))
        except (InputError, TypeError) as error:
            return json_answer({"error": str(error)}, 400)

    def _pull(self, lever: str, given: dict[str, Any]) -> dict[str, Any]:
        if lever == "faults":
            fault = self.box.faults.add_from(given)
            return {"kind": fault.kind, "path": fault.path, "active": len(self.box.faults.active)}
        if lever == "switches":
            self.box.set(**given)
            return {"changed": sorted(given)}
        if lever == "reset":
            self.box.reset()
            return {"reset": True}
        raise InputError("lever", lever, "faults, switches, reset")

    def index(self) -> dict[str, Any]:
        """Return what is served."""
        return {"sandbox": "candlelake", "mode": self.box.mode, "now": isoformat(self.box.clock.now_us()),
                "served": self.box.served(), "paths": [*(f"/{name}" for name in self.bridges), *(f"/{h}" for h in self.exchanges)],
                "left_out": [str(problem) for problem in self.box.problems]}


async def _object(request: Request) -> dict[str, Any]:
    body = await request.body()
    if len(body) > _BODY_LIMIT:
        raise InputError("body", f"{len(body)} bytes", f"at most {_BODY_LIMIT} bytes")
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise InputError("body", body[:40], "a JSON object") from None
    if not isinstance(value, dict):
        raise InputError("body", value, "a JSON object")
    return value
