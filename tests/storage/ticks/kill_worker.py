"""A process that journals numbered ticks until it is killed: python kill_worker.py HOME FIRST_ID; it tells what is durable."""

import sys

from core.clock import SystemClock
from core.ticks import Tick, frame_of
from storage import open_lake


def main(home, number):
    lake, clock = open_lake(home), SystemClock()
    journal = lake.tick_store.open_journal("k", ["A/B"])
    while True:
        now = clock.now_us()
        ticks = [Tick("A/B", now + place, now, None, None, 1.0, 2.0, "buy", str(number + place)) for place in range(50)]
        sys.stdout.write(f"heard {number + 49}\n")
        sys.stdout.flush()
        journal.append(frame_of(ticks, "stream", "r"), now)
        number += 50
        sys.stdout.write(f"durable {number - 1}\n")
        sys.stdout.flush()
        if number % 1000 == 0:  # some segments end and go into the lake meanwhile
            journal.close()
            lake.tick_store.flush("k")
            journal = lake.tick_store.open_journal("k", ["A/B"])


main(sys.argv[1], int(sys.argv[2]))
