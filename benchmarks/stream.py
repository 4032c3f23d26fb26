"""Ticks per second that a stream stores: `python -m benchmarks.stream [--rate N] [--seconds N] [--no-peer]`.

A process of its own plays Coinbase's web socket with made trades; this one streams, stores and builds candles as
`candlelake stream` does. cryptofeed then reads the same feed, in its own environment. One JSON line is printed: what the
feed sent, what came and was stored, how late, at what cost. Every tick counts in the delays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import groupby
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Any

from benchmarks.delays import Delays
from benchmarks.environments import ROOT, python_of
from connections.inputs import ConnectionInput
from core.settings import Settings
from core.ticks import Tick
from feed import open_feed
from feed.stream import StreamOptions, Subscribers, stream
from sandbox.box import Switches
from sandbox.server import running
from storage.vault import KeyRing

RATE, SECONDS = 20_000.0, 30.0
WARM_UP = 3.0  # seconds from the first tick on that are not counted: each reader still begins
TARGETS = {"receipt_to_disk_p99_ms": 1500.0, "receipt_to_subscriber_p99_ms": 50.0}


def play(rate: float, told: Connection) -> None:
    """Play the exchange until the other end says stop; asked anything else, tell what was sent and at what cost."""
    with running(mode="replay", switches=Switches(load_rate=rate)) as box:
        told.send(box.url)
        while told.recv() != "stop":
            told.send((box.loaded, time.monotonic(), time.process_time()))


class Feed:
    """The exchange in a process of its own."""

    def __init__(self, rate: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._player = context.Process(target=play, args=(rate, theirs), daemon=True)
        self._player.start()
        self.url: str = self._ours.recv()
        self._before = self._ask()

    def _ask(self) -> tuple[int, float, float]:
        self._ours.send("count")
        return self._ours.recv()

    def begin(self) -> None:
        """Count from here on."""
        self._before = self._ask()

    def sent(self) -> dict[str, float]:
        """Return what was sent since `begin`, and the sender's own cost."""
        (before, at, cpu), (count, now, used) = self._before, self._ask()
        return {"sent": count - before, "sent_per_second": round((count - before) / (now - at)), "sender_cpu_share": round((used - cpu) / (now - at), 2)}

    def close(self) -> None:
        """End it."""
        self._ours.send("stop")
        self._player.join(10)


def resident_mb() -> float:
    """Return this process's memory now, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


class Watch:
    """Counts what subscribers get and what is on disk."""

    def __init__(self) -> None:
        self.total = 0
        self.first = asyncio.Event()
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self.to_subscriber, self.of_event, self.to_disk = Delays(), Delays(), Delays()
        self.writes: list[tuple[float, int]] = []  # when each ended, and how many ticks were on disk then
        self.begun, self.cpu = time.monotonic(), time.process_time()

    def heard(self, ticks: Sequence[Tick]) -> None:
        """Take what a subscriber of the process gets."""
        now = time.time_ns() // 1000
        self.total += len(ticks)
        self.first.set()
        for received_us, run in groupby(ticks, attrgetter("received_us")):
            self.to_subscriber.add((now - received_us) / 1e6, len(list(run)))
        for ts_us, run in groupby(ticks, attrgetter("ts_us")):
            self.of_event.add((now - ts_us) / 1e6, len(list(run)))

    def durable(self, ticks: Sequence[Tick]) -> None:
        """Take what is on disk now."""
        now = time.time_ns() // 1000
        for received_us, run in groupby(ticks, attrgetter("received_us")):
            self.to_disk.add((now - received_us) / 1e6, len(list(run)))
        self.writes.append((time.monotonic(), self.to_disk.count))


async def measure(feed_of: Feed, seconds: float, home: Path) -> dict[str, float]:
    """Stream for so long and return the figures."""
    settings = Settings(home=home, allow_private_hosts=True, key_file=home / "bench.keys", _env_file=None)  # type: ignore[call-arg]
    KeyRing.create(home / "bench.keys")
    stop, watch, memory = asyncio.Event(), Watch(), []
    with open_feed(settings) as feed:
        feed.connections.create(ConnectionInput(
            slug="bench", provider="ccxt:coinbase", base_url=feed_of.url, symbols=["BTC/USD"], timeframes=["1m"]))
        run = asyncio.create_task(stream(feed, "bench", stop=stop, options=StreamOptions(),
                                         subscribers=Subscribers(watch.heard, durable=watch.durable)))
        await asyncio.wait([run, asyncio.ensure_future(watch.first.wait())], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([run], timeout=WARM_UP)
        feed_of.begin()
        watch.begin()
        while not run.done() and time.monotonic() - watch.begun < seconds:
            await asyncio.sleep(1)
            memory.append(resident_mb())
        sent = feed_of.sent()
        ran, cpu = time.monotonic() - watch.begun, time.process_time() - watch.cpu
        received, durable, (first, last) = watch.to_subscriber.count, watch.to_disk.count, (watch.writes[0], watch.writes[-1])
        stop.set()
        result = await run
        in_lake = feed.lake.sql("SELECT sum(rows) FROM tick_files").item()
    if int(in_lake or 0) != watch.total or result.losses:
        raise SystemExit(f"{watch.total} ticks were received, {in_lake} lie in the lake, {result.losses} losses booked")
    return {
        **sent, "received": received, "received_per_second": round(received / ran), "stored": durable,
        "stored_per_second": round((last[1] - first[1]) / (last[0] - first[0])), "losses": result.losses, "reconnects": result.reconnects,
        "cpu_microseconds_per_tick": round(cpu / received * 1e6, 1), "cpu_share": round(cpu / ran, 2),
        "memory_mb_middle": round(memory[len(memory) // 2]), "memory_mb_end": round(memory[-1]),
        "receipt_to_subscriber_p50_ms": watch.to_subscriber.ms(0.5), "receipt_to_subscriber_p99_ms": watch.to_subscriber.ms(0.99),
        "event_to_subscriber_p99_ms": watch.of_event.ms(0.99),
        "receipt_to_disk_p50_ms": watch.to_disk.ms(0.5), "receipt_to_disk_p99_ms": watch.to_disk.ms(0.99)}


def peer(feed_of: Feed, seconds: float, folder: Path) -> dict[str, float]:
    """Let cryptofeed read the same feed and return its figures."""
    words = [str(python_of("cryptofeed")), "-m", "benchmarks.peers.trades_cryptofeed", feed_of.url, str(seconds), str(WARM_UP), str(folder)]
    done = subprocess.run(words, cwd=ROOT,
                          capture_output=True, text=True, check=False, timeout=seconds * 3 + 60)
    if done.returncode:
        raise SystemExit(f"cryptofeed ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def verdicts(figures: dict[str, float], rate: float) -> dict[str, str]:
    """Return each target of the stream with whether it is met."""
    out = {f"{rate:.0f} ticks/s stored": "met" if figures["stored_per_second"] >= 0.99 * min(rate, figures["sent_per_second"])
           and figures["sent_per_second"] >= 0.99 * rate else "missed"}
    for name, limit in TARGETS.items():
        out[f"{name} below {limit:.0f}"] = "met" if figures[name] < limit else "missed"
    grown = figures["memory_mb_end"] - figures["memory_mb_middle"]
    return out | {"memory flat in the second half (10 MB)": "met" if grown <= 10 else "missed"}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="trades a second that the feed makes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each reads")
    parser.add_argument("--no-peer", action="store_true", help="without cryptofeed")
    options = parser.parse_args()
    result: dict[str, Any] = {"rate": options.rate, "seconds": options.seconds, "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        feed = Feed(options.rate)
        try:
            result["candlelake"] = asyncio.run(measure(feed, options.seconds, Path(folder) / "home"))
            result["targets"] = verdicts(result["candlelake"], options.rate)
            if not options.no_peer:
                result["load_before_peer"] = os.getloadavg()[0]
                result["cryptofeed"] = peer(feed, options.seconds, Path(folder))
        finally:
            feed.close()
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
