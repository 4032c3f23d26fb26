"""Watches the life of a connection's symbols: listed, gone, back, or the same ticker for another asset.

The provider's list of symbols is read once a day. A list that lacks a symbol proves nothing once: exchanges answer with cut
or empty lists. Two lists apart in time that lack it are a delisting, dated by its last candle. A symbol that comes back, or
shows another market id or another listing date, is not joined to the candles of before until a person has said that it is
the same asset (`listings same`) or another one (`listings anew`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from connections.rows import notify, read_connection, write_log
from core.clock import DAY_US, HOUR_US, isoformat
from core.errors import CandlelakeError, InputError, NotFoundError
from core.series import check_symbol
from feed.context import Feed
from providers.base import MarketDataProvider, SymbolInfo
from storage.audit import Witness, unwitnessed
from storage.ledger import clear_cause
from storage.listings import Listing, get_listing, listings_of, put_listing
from storage.metadata.tables import series
from storage.series import SeriesRow, ensure_series, list_series

log = logging.getLogger(__name__)
LOOK_EVERY_US = DAY_US
MISSING_APART_US = HOUR_US  # two lists without a symbol must lie so far apart before it counts as delisted
HALTED_LONG_US = 7 * DAY_US  # a market that is listed but halted for so long is as good as delisted
GENERATION = "#"  # LUNA/USDT#2 is the second asset under that ticker


async def look(feed: Feed, provider: MarketDataProvider, slug: str, *, force: bool = False) -> None:
    """Read the provider's list of symbols when the last look is a day old, and note what has changed.

    A provider that cannot list its symbols now is asked again by the next run: nothing is concluded from it.
    """
    now = feed.clock.now_us()
    with feed.lake.metadata.read() as tx:
        rows = list_series(tx, slug, only_active=True)
        if not rows:
            return
        known = listings_of(tx, rows[0].connection_id)
    if not force and not _is_due(rows, known, now):
        return
    try:
        shown = await provider.symbols()
    except CandlelakeError as error:
        log.info("%s: symbols could not be listed: %s", slug, error)
        return
    if shown:
        with feed.lake.metadata.write() as tx:
            observe(tx, slug, rows, shown, now)


def _is_due(rows: Sequence[SeriesRow], known: Mapping[str, Listing], now_us: int) -> bool:
    latest = max((listing.last_seen_us for listing in known.values()), default=None)
    for symbol in {row.series.symbol for row in rows}:
        listing = known.get(symbol)
        if listing is None:  # new here, or not on the list: others tell when the list was last read
            if latest is None or now_us - latest >= LOOK_EVERY_US:
                return True
            continue
        wait = MISSING_APART_US if listing.status == "missing" else LOOK_EVERY_US
        if now_us - max(listing.last_seen_us, listing.missing_since_us or 0) >= wait:
            return True
    return False


def observe(tx: Connection, slug: str, rows: Sequence[SeriesRow], shown: Sequence[SymbolInfo], now_us: int) -> None:
    """Compare the provider's list with what is known of each kept symbol, and write down what follows."""
    by_name = {info.symbol: info for info in shown}
    connection_id = rows[0].connection_id
    known = listings_of(tx, connection_id)
    for symbol in sorted({row.series.symbol for row in rows}):
        mine = [row for row in rows if row.series.symbol == symbol]
        listing = known.get(symbol)
        info = by_name.get(listing.asked_as if listing is not None else symbol)
        if listing is None:
            if info is not None and info.is_active:
                put_listing(tx, connection_id, symbol, market_id=info.market_id, listed_us=info.listed_us,
                            first_seen_us=now_us, last_seen_us=now_us)
            continue
        if info is None or not info.is_active:
            _absent(tx, slug, listing, mine, now_us, is_halted=info is not None)
        else:
            _present(tx, slug, listing, info, now_us)
            if listing.delisted_us is not None and get_listing(tx, connection_id, symbol).status == "listed":
                clear_cause(tx, [row.id for row in mine], "after_delisting")


def _absent(
    tx: Connection, slug: str, listing: Listing, rows: Sequence[SeriesRow], now_us: int, *, is_halted: bool,
) -> None:
    claim = {"halted": True} if is_halted else None  # one that is only halted never left the list: it may simply go on
    if listing.status == "listed":
        put_listing(tx, listing.connection_id, listing.symbol, status="missing", missing_since_us=now_us, claim=claim)
    elif listing.status == "missing" and now_us - (listing.missing_since_us or now_us) >= (
            HALTED_LONG_US if is_halted else MISSING_APART_US):
        ends = [row.last_us + row.series.timeframe.length_us for row in rows if row.last_us is not None]
        delisted = min(max(ends, default=now_us), now_us)
        put_listing(tx, listing.connection_id, listing.symbol, status="delisted", delisted_us=delisted, claim=claim)
        _tell(tx, slug, listing, "delisted", f"{slug} {listing.symbol} is no longer listed; its last candle closed at "
              f"{isoformat(delisted)}; its history is kept", now_us)


def _present(tx: Connection, slug: str, listing: Listing, info: SymbolInfo, now_us: int) -> None:
    if listing.status == "conflict":
        return
    why = _difference(listing, info)
    if why is not None:
        claim = {"why": why, "symbol": info.symbol, "market_id": info.market_id,
                 "listed": None if info.listed_us is None else isoformat(info.listed_us), "listed_us": info.listed_us,
                 "seen": isoformat(now_us), "seen_us": now_us}
        put_listing(tx, listing.connection_id, listing.symbol, status="conflict", claim=claim)
        _tell(tx, slug, listing, "ticker_reused", f"{slug} {listing.symbol} may name another asset: {why}; it is not fetched until "
              f"you decide: candlelake listings same, or anew, {slug} {listing.symbol!r}", now_us)
        return
    put_listing(tx, listing.connection_id, listing.symbol, status="listed", missing_since_us=None, last_seen_us=now_us,
                delisted_us=None, claim=None, market_id=listing.market_id or info.market_id, listed_us=listing.listed_us or info.listed_us)


def _difference(listing: Listing, info: SymbolInfo) -> str | None:
    if listing.market_id and info.market_id and listing.market_id != info.market_id:
        return f"its market id was {listing.market_id} and is {info.market_id}"
    if listing.listed_us and info.listed_us and abs(info.listed_us - listing.listed_us) > DAY_US:
        return f"it was listed {isoformat(listing.listed_us)} and now says {isoformat(info.listed_us)}"
    if listing.status == "delisted" and not (listing.claim or {}).get("halted"):
        return f"it was delisted at {isoformat(listing.delisted_us or 0)} and is listed again"
    return None


def say_same(feed: Feed, slug: str, symbol: str, witness: Witness = unwitnessed) -> Listing:
    """Take a claimed ticker for the same asset: the series goes on; `witness` as of connections, here and below.

    Raises:
        InputError: there is nothing to decide. NotFoundError: nothing is known of the symbol.
    """
    with feed.lake.metadata.write() as tx:
        listing, claim, now = _claimed(tx, feed, slug, symbol)
        put_listing(tx, listing.connection_id, symbol, status="listed", claim=None, missing_since_us=None, delisted_us=None,
                    market_id=claim.get("market_id"), listed_us=listing.listed_us, last_seen_us=now)
        clear_cause(tx, [row.id for row in list_series(tx, slug, symbol)], "after_delisting")
        write_log(tx, (listing.connection_id, slug), "listing", "success", f"{symbol} is the same asset as before", now)
        witness(tx)
        return get_listing(tx, listing.connection_id, symbol)


def say_anew(feed: Feed, slug: str, symbol: str, witness: Witness = unwitnessed) -> Listing:
    """Take a claimed ticker for another asset: it gets series of its own, and the old ones end where they were.

    Raises:
        InputError: there is nothing to decide. NotFoundError: nothing is known of the symbol.
    """
    with feed.lake.metadata.write() as tx:
        listing, claim, now = _claimed(tx, feed, slug, symbol)
        name = check_symbol(f"{symbol.split(GENERATION, maxsplit=1)[0]}{GENERATION}{listing.generation + 1}")
        rows = list_series(tx, slug, symbol)
        ends = [row.last_us + row.series.timeframe.length_us for row in rows if row.last_us is not None]
        ended = listing.delisted_us or max(ends, default=now)
        put_listing(tx, listing.connection_id, symbol, status="delisted", claim=None, delisted_us=ended)
        put_listing(tx, listing.connection_id, name, asked_as=listing.asked_as, generation=listing.generation + 1,
                    market_id=claim.get("market_id"), listed_us=claim.get("listed_us") or ended,
                    first_seen_us=now, last_seen_us=now)
        for row in rows:
            if row.is_active:
                ensure_series(tx, listing.connection_id, name, row.series.timeframe, now)
        tx.execute(series.update().where(series.c.connection_id == listing.connection_id, series.c.symbol == symbol)
                   .values(is_active=False))
        write_log(tx, (listing.connection_id, slug), "listing", "success", f"{symbol} names another asset now, kept as {name}", now)
        witness(tx)
        return get_listing(tx, listing.connection_id, name)


def rename(feed: Feed, slug: str, old: str, new: str, witness: Witness = unwitnessed) -> Listing:
    """Go on with the series of `old` under the provider's new name.

    Raises:
        InputError: another series is asked for by that name. NotFoundError: no such connection or symbol.
    """
    check_symbol(new)
    now = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        row = read_connection(tx, slug)
        rows = list_series(tx, slug, old)
        if not rows:
            raise NotFoundError(f"no series of {slug} has the symbol {old!r}; `candlelake coverage {slug}` lists them")
        others = [item.symbol for item in listings_of(tx, row.id).values() if item.symbol != old and item.asked_as == new]
        others += [item.series.symbol for item in list_series(tx, slug, new) if item.first_us is not None and new != old]
        if others:
            raise InputError("rename", new, "a name that no other series has", f"{others[0]} has it; two assets are never joined")
        put_listing(tx, row.id, old, asked_as=new, status="listed", claim=None, missing_since_us=None, delisted_us=None,
                    market_id=None, first_seen_us=now, last_seen_us=now)
        write_log(tx, (row.id, slug), "listing", "success", f"{old} is asked for as {new} from now on", now)
        witness(tx)
        return get_listing(tx, row.id, old)


def _claimed(tx: Connection, feed: Feed, slug: str, symbol: str) -> tuple[Listing, Mapping[str, Any], int]:
    listing = get_listing(tx, read_connection(tx, slug).id, symbol)
    if listing.status != "conflict":
        raise InputError("listing", f"{slug} {symbol} ({listing.status})", "a ticker that may name another asset",
                         "there is nothing to decide; see: candlelake listings show")
    return listing, listing.claim or {}, feed.clock.now_us()


def _tell(  # noqa: PLR0917  one word for each column
    tx: Connection, slug: str, listing: Listing, kind: str, message: str, now_us: int,
) -> None:
    log.warning("%s", message)
    write_log(tx, (listing.connection_id, slug), "listing", "error", message, now_us)
    notify(tx, kind, "warning", listing.connection_id, f"{slug} {listing.symbol}: {kind.replace('_', ' ')}", message, now_us)
