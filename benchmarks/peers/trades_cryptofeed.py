"""cryptofeed on the same feed: `python -m benchmarks.peers.trades_cryptofeed URL SECONDS WARM_UP FOLDER`, in its own environment.

Its Coinbase class reads the trades with its defaults (uvloop, decimals) and hands each to a storage callback made as its
own are: a queue and a writer. cryptofeed has no storage on local disk, so the writer here appends rows to SQLite
(WAL, synchronous=FULL) in a thread, one transaction each 0.2 s: as durable as ours, without candles, repeats or losses.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from cryptofeed import FeedHandler
from cryptofeed.backends.backend import BackendCallback, BackendQueue
from cryptofeed.connection import WebsocketEndpoint
from cryptofeed.defines import TRADES
from cryptofeed.exchanges import Coinbase
from cryptofeed.symbols import Symbols

from benchmarks.delays import Delays

COMMIT_SECONDS = 0.2
COLUMNS = ("exchange", "symbol", "side", "amount", "price", "timestamp", "id", "receipt_timestamp")


class PlainCoinbase(Coinbase):
    """Its Coinbase, without TLS: the feed is on loopback, for ours too."""

    def connect(self) -> Any:
        """Return its connections, addressed without TLS, which their class refuses."""
        made = super().connect()
        for connection, *_ in made:
            connection.address = connection.address.replace("wss://", "ws://")
        return made


class SqliteTrades(BackendQueue, BackendCallback):
    """Trades to one table."""

    numeric_type, none_to = float, None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.running = True
        self.first = asyncio.Event()
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self.to_callback, self.to_disk, self.of_event = Delays(), Delays(), Delays()
        self.stored = 0
        self.writes: list[tuple[float, int]] = []  # when each ended, and how many trades were stored then
        self.begun, self.cpu = time.monotonic(), time.process_time()

    async def __call__(self, dtype: Any, receipt_timestamp: float) -> None:
        now = time.time()
        self.first.set()
        self.to_callback.add(now - receipt_timestamp)
        self.of_event.add(now - dtype.timestamp)
        await super().__call__(dtype, receipt_timestamp)

    async def writer(self) -> None:
        """Write what waits, several times a second."""
        base = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=FULL")
        base.execute(f"CREATE TABLE trades ({', '.join(COLUMNS)})")
        while self.running:
            await asyncio.sleep(COMMIT_SECONDS)
            async with self.read_queue() as updates:
                if updates:
                    await asyncio.to_thread(self._write, base, updates)
        base.close()

    def _write(self, base: sqlite3.Connection, updates: list[dict[str, Any]]) -> None:
        base.execute("BEGIN")
        base.executemany(f"INSERT INTO trades VALUES ({', '.join('?' * len(COLUMNS))})",
                         [tuple(update[name] for name in COLUMNS) for update in updates])
        base.execute("COMMIT")
        now = time.time()
        self.to_disk.add_all(now - update["receipt_timestamp"] for update in updates)
        self.stored += len(updates)
        self.writes.append((time.monotonic(), self.stored))


def resident_mb() -> float:
    """Return this process's memory now, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def measure(stored: SqliteTrades, seconds: float, warm_up: float) -> dict[str, float]:
    """Count for so long, from `warm_up` seconds after the first trade on, and return the figures."""
    await stored.first.wait()
    await asyncio.sleep(warm_up)
    stored.begin()
    memory = []
    while time.monotonic() - stored.begun < seconds:
        await asyncio.sleep(1)
        memory.append(resident_mb())
    ran, cpu, count = time.monotonic() - stored.begun, time.process_time() - stored.cpu, stored.to_callback.count
    first, last = stored.writes[0], stored.writes[-1]
    return {
        "received": count, "stored": stored.stored, "stored_per_second": round((last[1] - first[1]) / (last[0] - first[0])),
        "received_per_second": round(count / ran), "seconds": round(ran, 2), "cpu_microseconds_per_tick": round(cpu / count * 1e6, 1),
        "cpu_share": round(cpu / ran, 2), "memory_mb_middle": round(memory[len(memory) // 2]), "memory_mb_end": round(memory[-1]),
        "receipt_to_subscriber_p50_ms": stored.to_callback.ms(0.5), "receipt_to_subscriber_p99_ms": stored.to_callback.ms(0.99),
        "event_to_subscriber_p99_ms": stored.of_event.ms(0.99),
        "receipt_to_disk_p50_ms": stored.to_disk.ms(0.5), "receipt_to_disk_p99_ms": stored.to_disk.ms(0.99)}


def main(url: str, seconds: float, warm_up: float, folder: Path) -> None:
    """Run it and print one JSON line."""
    PlainCoinbase.websocket_endpoints = [WebsocketEndpoint(
        url.replace("http://", "wss://") + "/advanced-trade-ws.coinbase.com", options={"compression": None})]
    Symbols.set(Coinbase.id, {"BTC-USD": "BTC-USD"}, {"instrument_type": {"BTC-USD": "spot"}})  # it would ask for keys
    stored = SqliteTrades(folder / "trades.sqlite")
    # The key is not checked by the sandbox, and signs nothing there.
    handler = FeedHandler(config={"uvloop": True, "log": {"disabled": True}, "coinbase": {"key_id": "practice", "key_secret": "only"}})
    handler.add_feed(PlainCoinbase(config=handler.config, symbols=["BTC-USD"], channels=[TRADES], callbacks={TRADES: stored}))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handler.run(start_loop=False, install_signal_handlers=False)
    print(json.dumps(loop.run_until_complete(measure(stored, seconds, warm_up))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
