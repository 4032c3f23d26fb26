"""One peer in a process of its own: takes a command a line, times the call alone, says what came back.

It is started as `python -m benchmarks.worker PEER FOLDER`.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.market import MINUTE_US, START_US, candles

PEERS = {
    "candlelake": "benchmarks.peers.candlelake:CandlelakePeer", "arcticdb": "benchmarks.peers.arctic:ArcticPeer",
    "sqlite": "benchmarks.peers.sqlite:SqlitePeer", "duckdb": "benchmarks.peers.duck:DuckPeer",
    "parquet": "benchmarks.peers.parquet:ParquetPeer",
}


def main() -> None:
    """Answer commands until the input ends; an error ends the process, so that no benchmark counts a failure."""
    module, _, name = PEERS[sys.argv[1]].partition(":")
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True)
    peer = getattr(importlib.import_module(module), name)(folder)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(peer, json.loads(line))), flush=True)


def answer(peer: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Run one command: {op, name, seed, first, rows, raised, count}; first and rows are minutes since 2016."""
    op, name, first, rows = command["op"], command.get("name", ""), command.get("first", 0), command.get("rows", 0)
    start_us, end_us = START_US + first * MINUTE_US, START_US + (first + rows) * MINUTE_US
    if op == "declare":
        peer.declare(command["names"])
        return {}
    if op in {"bulk", "upsert"}:
        table = peer.native(candles(command["seed"], first, rows, command.get("raised", 0.0)))
        return {"seconds": timed(lambda: getattr(peer, op)(name, table))[0]}
    if op == "round":
        tables = {item: peer.native(candles(command["seed"], first, rows)) for item in command["names"]}
        return {"seconds": timed(lambda: peer.round(tables))[0]}
    if op == "total":
        seconds, found = timed(lambda: peer.total(name, start_us, end_us))
        return {"seconds": seconds, "digest": str(tuple(found)), "rows": found[0]}
    if op == "latest":
        seconds, found = timed(lambda: peer.latest(name, command["count"]))
    else:  # `whole` asks ours for all its columns; the others have no more than they always give
        read = getattr(peer, op, peer.between)
        seconds, found = timed(lambda: read(name, start_us, end_us))
    columns = peer.columns(found)
    return {"seconds": seconds, "digest": columns.digest(), "rows": len(columns.ts)}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds a call took, and its answer."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


if __name__ == "__main__":
    main()
