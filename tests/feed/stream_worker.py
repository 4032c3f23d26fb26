"""A process that streams connection `s` of a home until it is killed: python stream_worker.py FOLDER NOW_US; a line per batch."""

import asyncio
import sys
from pathlib import Path

from core.settings import Settings
from feed import open_feed
from feed.stream import Subscribers, stream
from sandbox.clocks import FastClock


async def main(folder, now_us):
    settings = Settings(home=folder / "home", allow_private_hosts=True, key_file=folder / "stream.keys", settle_seconds=5, _env_file=None)

    def say(ticks):
        sys.stdout.write(f"{len(ticks)}\n")
        sys.stdout.flush()

    with open_feed(settings, FastClock(now_us, 1)) as feed:
        await stream(feed, "s", stop=asyncio.Event(), subscribers=Subscribers(say))


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
