"""A machine of its own, as far as leases can tell: a process with another host name that streams connection `s` whenever it may."""

import asyncio
import ctypes
import os
import signal
import socket
import time
from dataclasses import replace

from connections.leases import Leases
from core.clock import SystemClock
from core.errors import LeaseHeldError
from core.settings import Settings
from feed import open_feed
from feed.stream import Subscribers, stream
from tests.feed.stream_kill_worker import OPTIONS

NEW_HOST_NAME, NEW_USER = 0x04000000, 0x10000000  # of Linux's unshare(2)


def call_machine(name):
    """Give this process alone another host name; PermissionError where the system forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_HOST_NAME if os.geteuid() == 0 else NEW_HOST_NAME | NEW_USER) != 0:
        raise PermissionError(ctypes.get_errno(), "no host name of its own")
    socket.sethostname(name)


def run(name, folder, store, clock, told):
    """Stream as soon as nobody else does, until SIGTERM; tell what happens as (what, ticks or text, when).

    The market's clock runs fast; leases count by the machine's. The store is told: the environment is that of the first process forked.
    """
    settings = Settings(home=folder / "home", metadata_url=store, allow_private_hosts=True, key_file=folder / "stream.keys", settle_seconds=5, retry_wait=0.05,
                        _env_file=None)

    def say(what, content=None):
        told.send((what, content, time.monotonic()))

    def ticks(what):
        return lambda batch: say(what, [(tick.ts_us, tick.trade_id) for tick in batch])

    async def work():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        with open_feed(settings, clock) as feed:
            feed.leases = Leases(feed.lake.metadata, SystemClock())
            has_begun = False

            def heard(batch):
                nonlocal has_begun
                has_begun = True
                ticks("heard")(batch)

            while not stop.is_set():
                try:
                    await stream(feed, "s", stop=stop, options=replace(OPTIONS, lease_seconds=6.0), run_id=name,
                                 subscribers=Subscribers(heard, durable=ticks("durable")))
                except LeaseHeldError as error:
                    say("lost" if has_begun else "held", str(error))
                    if has_begun:
                        return
                    await asyncio.sleep(0.2)
        say("ended")

    try:
        call_machine(name)
    except PermissionError as error:
        say("forbidden", str(error))
    else:
        asyncio.run(work())
