"""`python -m benchmarks.console`: the console over a large home. Pages and API reads, a chart of 10,000 candles, 200 live viewers.

The console is a process of its own, asked over loopback by one client after the other. The home is made anew from generated
candles (a random walk; only its size matters here): by default 500 series of ten connections with 10 million candles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import polars as pl

from connections.service import ConnectionInput
from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US
from core.secrets import Secret
from core.settings import Settings
from feed import Feed, open_feed
from storage import people
from storage.series import list_series

PASSWORD: Final = "seven green lamps at noon"
PAGES: Final = (
    "/connections", "/connections?query=venue&health=ok", "/connections/new", "/connections/{slug}", "/connections/{slug}/edit", "/connections/{slug}/candles?symbol={symbol}&timeframe=1m",
    "/connections/{slug}/coverage", "/connections/{slug}/gaps", "/connections/{slug}/revisions", "/connections/{slug}/logs",
    "/connections/{slug}/runs", "/coverage", "/pipelines", "/pipelines/new", "/notifications", "/account", "/users", "/audit", "/audit/chain", "/api/docs")
READS: Final = (
    "/api/connections?limit=50", "/api/connections/{slug}", "/api/connections/{slug}/candles?symbol={symbol}&timeframe=1m",
    "/api/connections/{slug}/candles?symbol={symbol}&timeframe=1m&limit=2000&end={middle}", "/api/connections/{slug}/gaps",
    "/api/connections/{slug}/revisions", "/api/connections/{slug}/logs", "/api/coverage", "/api/pipelines", "/api/notifications",
    "/api/data-connections/health", "/api/account", "/api/users", "/api/audit", "/api/udf/search?query=S", "/livez", "/readyz", "/metrics",
    "/api/connections/{slug}/signals?symbol={symbol}&timeframe=1m")


def fill(feed: Feed, connections: int, series: int, candles: int) -> tuple[str, str]:
    """Store the candles; return the first and the last open time as ISO 8601."""
    now_us = feed.clock.now_us() // MINUTE_US * MINUTE_US
    with feed.lake.metadata.write() as tx:
        people.add_user(tx, "root", "super_admin", now_us)
        people.set_password(tx, "root", Secret(PASSWORD), now_us)
    start_us = now_us - candles * MINUTE_US
    walk = 100 + np.cumsum(np.random.default_rng(7).normal(0, 0.05, candles))
    each = -(-series // connections)
    left = series
    for number in range(connections):
        count = min(each, left)
        if not count:
            break
        left -= count
        slug = f"venue{number}"
        feed.connections.create(ConnectionInput(
            slug=slug, provider="ccxt:binance", is_admin_owned=True, timeframes=("1m",), symbols=tuple(f"S{item}/USDT" for item in range(count))))
        with feed.lake.metadata.read() as tx:
            rows = list_series(tx, slug)
        for item in rows:
            close = walk + item.id
            frame = pl.DataFrame({
                "ts": np.arange(start_us, now_us, MINUTE_US), "open": close, "high": close + 0.1, "low": close - 0.1, "close": close,
                "volume": np.full(candles, 5.0), "spread": pl.Series([None] * candles, dtype=pl.Float64),
            }).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).cast(dict(CANDLE_SCHEMA)).select(CANDLE_SCHEMA.names())
            feed.lake.import_candles(item.id, frame, run_id="benchmark")
        print(f"  {slug}: {count} series", flush=True)
    return _iso(start_us), _iso(now_us)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int]]:
    """Serve the home in a process of its own; yields its URL and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**{key: value for key, value in os.environ.items() if not key.startswith("CANDLELAKE_")},
                   "CANDLELAKE_HOME": str(folder / "home"), "CANDLELAKE_KEY_FILE": str(folder / "keys"), "CANDLELAKE_CONSOLE_PORT": str(port)}
    with (folder / "console.log").open("wb") as log, subprocess.Popen(
            [sys.executable, "-m", "console"], env=environment, stdout=log, stderr=log) as child:
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                try:
                    httpx.get(f"{url}/livez", timeout=5, trust_env=False)
                    break
                except httpx.TransportError:
                    if time.monotonic() > deadline or child.poll() is not None:
                        raise
                    time.sleep(0.2)
            yield url, child.pid
        finally:
            child.terminate()


def sign_in(url: str) -> httpx.Client:
    """Return a client with a session."""
    client = httpx.Client(base_url=url, timeout=60, trust_env=False)
    client.post("/login", data={"name": "root", "password": PASSWORD})
    return client


def measure(client: httpx.Client, paths: tuple[str, ...], values: dict[str, str], repeats: int) -> dict[str, list[float]]:
    """Return milliseconds by path, one warm-up left out."""
    out: dict[str, list[float]] = {}
    for path in paths:
        address = path.format(**values)
        taken = []
        for _ in range(repeats + 1):
            started = time.perf_counter()
            answer = client.get(address)
            taken.append((time.perf_counter() - started) * 1000)
            if answer.status_code != 200:
                raise SystemExit(f"{address} answers {answer.status_code}: {answer.text[:200]}")
        out[path] = taken[1:]
    return out


async def watch(url: str, cookies: dict[str, str], values: dict[str, str], viewers: int, seconds: int) -> int:
    """Hold live streams; return how many were served something."""
    served = 0
    path = "/api/connections/{slug}/live?symbol={symbol}&timeframe=1m&seconds={seconds}".format(**values, seconds=seconds)

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal served
        async with client.stream("GET", path) as answer:
            found = False
            async for line in answer.aiter_lines():
                if line.startswith("data:") and not found:
                    found = True
                    served += 1

    limits = httpx.Limits(max_connections=viewers + 10)
    async with httpx.AsyncClient(base_url=url, cookies=cookies, timeout=seconds + 60, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(one(client) for _ in range(viewers)))
    return served


def memory_mb(pid: int) -> float:
    """Return a process' resident memory in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def paint(url: str, cookies: dict[str, str], values: dict[str, str], candles: int) -> int | None:
    """Return the milliseconds in which a chart of the newest `candles` is painted in headless Chromium; None without one."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        return None
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  only where a browser is

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.add_cookies([{"name": name, "value": value, "url": url} for name, value in cookies.items()])
        page, best = context.new_page(), None
        for _ in range(3):
            page.goto("{url}/connections/{slug}/candles?symbol={symbol}&timeframe=1m&start={start}".format(url=url, **values))
            page.wait_for_selector(f'#chart[data-ready="{candles}"]', timeout=60_000)
            found = int(page.get_attribute("#chart", "data-painted") or 0)
            best = found if best is None else min(best, found)
        browser.close()
    return best


def main() -> None:
    """Fill, serve, measure, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.console", description=__doc__)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--series", type=int, default=500, help="of all connections together")
    parser.add_argument("--candles", type=int, default=20_000, help="of each series")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=20, help="for which the viewers stay")
    parser.add_argument("--folder", type=Path, help="where the home lies; kept and used again when it is there")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="candlelake-console-"))
    try:
        print(json.dumps(run(options, folder), indent=1))
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "range.json"
    if not known.exists():
        with open_feed(Settings(_env_file=None, home=folder / "home", key_file=folder / "keys")) as feed:
            first, last = fill(feed, options.connections, options.series, options.candles)
        known.write_text(json.dumps([first, last]), encoding="utf-8")
    first, last = json.loads(known.read_text(encoding="utf-8"))
    charted = min(10_000, options.candles)
    start_us, end_us = (int(np.datetime64(text.rstrip("Z"), "us").astype("int64")) for text in (first, last))
    values = {"slug": "venue0", "symbol": "S0/USDT", "middle": _iso((start_us + end_us) // 2 // MINUTE_US * MINUTE_US),
              "start": _iso(end_us - charted * MINUTE_US)}
    with serving(folder) as (url, pid), closing(sign_in(url)) as client:
        found = measure(client, PAGES, values, options.repeats) | measure(client, READS, values, options.repeats)
        cookies = dict(client.cookies)
        painted = paint(url, cookies, values, charted)
        before = memory_mb(pid)
        served = asyncio.run(watch(url, cookies, values, options.viewers, options.seconds))
        after = memory_mb(pid)
    every = sorted(value for taken in found.values() for value in taken)
    return {
        "series": options.series, "candles": options.series * options.candles, "requests": len(every),
        "p50_ms": _percentile(every, 50), "p95_ms": _percentile(every, 95), "share_under_50_ms": round(sum(item < 50 for item in every) / len(every), 4),
        "p95_by_path_ms": {path: _percentile(sorted(taken), 95) for path, taken in sorted(found.items(), key=lambda item: -max(item[1]))},
        "chart_candles": charted, "chart_painted_ms": painted, "viewers": options.viewers, "viewers_served": served,
        "memory_before_mb": round(before), "memory_after_mb": round(after)}


def _percentile(values: list[float], share: int) -> float:
    return round(float(np.percentile(values, share)), 1)


def _iso(us: int) -> str:
    return str(np.datetime64(us, "us"))[:19] + "Z"


if __name__ == "__main__":
    main()
