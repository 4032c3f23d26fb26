"""Ticks per second that a stream stores: `python -m benchmarks.stream [RATE] [SECONDS]`.

A process of its own plays Kraken's web socket with made trades at RATE a second; this one streams, stores and builds
candles as `candlelake stream` does, and prints one JSON line: what came, what was stored, how late, how much memory.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from connections.inputs import ConnectionInput
from core.settings import Settings
from feed import open_feed
from feed.stream import StreamOptions, Subscribers, stream
from sandbox.box import Switches
from sandbox.server import running
from storage.ticks.states import read_states
from storage.vault import KeyRing


def play(rate: float, told: Connection) -> None:
    """Play the exchange until the other end says stop."""
    with running(mode="replay", switches=Switches(load_rate=rate)) as box:
        told.send(box.url)
        told.recv()


def resident_mb() -> float:
    """Return this process's memory now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def measure(url: str, seconds: float, home: Path) -> dict[str, float]:
    """Stream for so long and return the figures."""
    settings = Settings(home=home, allow_private_hosts=True, key_file=home / "bench.keys", _env_file=None)  # type: ignore[call-arg]
    KeyRing.create(home / "bench.keys")
    stop, seen, memory, delays = asyncio.Event(), [0, 0.0, 0.0], [], []

    def count(ticks: list) -> None:
        if not seen[0]:
            seen[1], seen[2] = time.monotonic(), time.process_time()
        seen[0] += len(ticks)
        delays.append((time.time_ns() // 1000 - ticks[-1].received_us) / 1000)

    with open_feed(settings) as feed:
        feed.connections.create(ConnectionInput(
            slug="bench", provider="ccxt:kraken", base_url=url, symbols=["BTC/USD"], timeframes=["1m"]))
        run = asyncio.create_task(stream(feed, "bench", stop=stop, options=StreamOptions(), subscribers=Subscribers(count)))
        while not run.done() and (not seen[1] or time.monotonic() - seen[1] < seconds):
            await asyncio.sleep(1)
            memory.append(resident_mb())
        ran, cpu = time.monotonic() - seen[1], time.process_time()
        stop.set()
        result = await run
        with feed.lake.metadata.read() as tx:
            counts = read_states(tx)[0].counts
        stored = feed.lake.sql("SELECT sum(rows) FROM tick_files").item()
    delays.sort()
    half = memory[len(memory) // 2]
    return {
        "received_per_second": round(seen[0] / ran), "received": seen[0], "stored": int(stored or 0), "losses": result.losses,
        "reconnects": result.reconnects, "cpu_microseconds_per_tick": round((cpu - seen[2]) / seen[0] * 1e6, 1), "cpu_share": round((cpu - seen[2]) / ran, 2), "memory_mb_middle": round(half), "memory_mb_end": round(memory[-1]),
        "to_subscriber_p99_ms": round(delays[int(len(delays) * 0.99)], 1),
        **{key: value for key, value in counts.items() if key.endswith("_ms")}}


def main(rate: float = 20_000, seconds: float = 30) -> None:
    """Run the benchmark."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    player = multiprocessing.get_context("spawn").Process(target=play, args=(rate, theirs), daemon=True)
    player.start()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(ours.recv(), seconds, Path(folder) / "home"))
    ours.send("stop")
    player.join(10)
    print(json.dumps({"rate": rate, "seconds": seconds, **figures}))


if __name__ == "__main__":
    main(*(float(text) for text in sys.argv[1:3]))
