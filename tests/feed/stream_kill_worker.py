"""What a killed process does: it streams connection `s` of a home and tells each batch. Imported once, forked for every kill."""

import asyncio
import time

from core.settings import Settings
from feed import open_feed
from feed.stream import StreamOptions, Subscribers, stream
from providers.exchange.guard import guarded_class
from providers.exchange.stream import streaming_class

guarded_class("binance")  # both are slow to make, and remembered
streaming_class("binance")
OPTIONS = StreamOptions(lateness_seconds=10, grace_seconds=60, allowance_seconds=15, confirm_seconds=0.2, backoff_seconds=0.05,
                        beat_seconds=0.2)


def run(folder, clock, told, options=OPTIONS):
    """Stream until killed; tell the ticks of each batch that was heard, and of each one that is on disk, and when."""
    settings = Settings(home=folder / "home", allow_private_hosts=True, key_file=folder / "stream.keys", settle_seconds=5, retry_wait=0.05,
                        _env_file=None)

    def telling(kind):
        return lambda ticks: told.send((kind, [(tick.ts_us, tick.trade_id) for tick in ticks], time.monotonic()))

    async def work():
        with open_feed(settings, clock) as feed:
            told_to = Subscribers(telling("heard"), durable=telling("durable"))
            await stream(feed, "s", stop=asyncio.Event(), options=options, subscribers=told_to)

    asyncio.run(work())
