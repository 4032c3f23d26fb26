"""Commands around what is known of a market: calendars, clock, listings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import note, print_json, print_object, print_rows
from cli.witness import witness

if TYPE_CHECKING:
    from connections.rows import ConnectionRow
    from feed import Feed

calendars = typer.Typer(no_args_is_help=True, help="When markets are open: learned from the candles, or set by you.")
listings = typer.Typer(no_args_is_help=True, help="The life of symbols: listed, delisted, renamed, used again.")

CALENDARS = ("connection", "symbol", "origin", "zone", "weekly", "holidays", "closed", "open", "updated")
CLOSED = ("start", "end", "why")
CLOCK = ("seen", "last_seen", "kind", "offset_minutes", "strength", "proved_by", "rules", "evidence")
LISTINGS = ("connection", "symbol", "asked_as", "generation", "status", "market_id", "listed", "delisted", "last_seen", "claim")
SPEC_LIMIT = 1024 * 1024  # bytes; a larger file is not a calendar
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")]
AnySlug = Annotated[str | None, typer.Argument(metavar="[SLUG]", help="One connection; all of them without it.")]
Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling.")]
OnlySymbol = Annotated[str | None, typer.Option("--symbol", help="Only this symbol; without it all of the connection.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.add_typer(calendars, name="calendars")
    app.add_typer(listings, name="listings")
    app.command()(clock)


@calendars.callback()
def _calendars() -> None:
    """When markets are open: learned from the candles, or set by you."""


@calendars.command("show")
def show_calendars(slug: AnySlug = None, as_json: Json = False) -> None:
    """Show the calendars that are stored; connections without one follow the FX week, or are always open."""
    from core.clock import isoformat
    from feed import open_feed
    from storage.calendars import list_calendars

    with open_feed() as feed:
        if slug is not None:
            feed.connections.get(slug)
        with feed.lake.metadata.read() as tx:
            found = list_calendars(tx, slug)
    if as_json:
        print_json([{"connection": row.connection, "symbol": row.symbol, "origin": row.origin, "spec": row.spec,
                     "evidence": row.evidence, "updated": isoformat(row.updated_at_us)} for row in found])
        return
    rows = [{"connection": row.connection, "symbol": row.symbol or "(all)", "origin": row.origin, "zone": row.spec["zone"],
             "weekly": ", ".join(f"{rule['from']} to {rule['to']} ({rule['why']})" for rule in row.spec["weekly"]),
             "holidays": len(row.spec["holidays"]), "closed": len(row.spec["closed"]), "open": len(row.spec["open"]),
             "updated": isoformat(row.updated_at_us)} for row in found]
    print_rows(rows, CALENDARS, as_json=False, empty="no calendars stored; learn one: candlelake calendars learn SLUG --apply")


@calendars.command("hours")
def hours(
    slug: Slug, symbol: Symbol,
    start: Annotated[str, typer.Argument(metavar="START", help="ISO 8601, UTC when it has no offset.")],
    end: Annotated[str, typer.Argument(metavar="END", help="ISO 8601, exclusive.")],
    as_json: Json = False,
) -> None:
    """Show when a symbol's market is closed between START and END, and why."""
    from core.clock import isoformat
    from core.interval import Interval
    from feed import open_feed
    from storage.calendars import calendar_for

    interval = Interval.parse(start, end)
    with open_feed() as feed:
        row = feed.connections.get(slug)
        with feed.lake.metadata.read() as tx:
            calendar = calendar_for(tx, row.id, symbol, row.type)
    rows = [{"start": isoformat(part.start), "end": isoformat(part.end), "why": why} for part, why in calendar.why(interval)]
    print_rows(rows, CLOSED, as_json=as_json, empty="open all the time")


@calendars.command("set")
def set_calendar(
    slug: Slug, spec: Annotated[str, typer.Argument(metavar="FILE|-", help="A JSON object, from a file or stdin (-).")],
    symbol: OnlySymbol = None,
) -> None:
    """Set a calendar by hand; `calendars show --json` gives one to edit."""
    from core.calendar import MarketCalendar
    from core.errors import InputError
    from core.series import check_symbol
    from feed import open_feed
    from storage.calendars import WHOLE_CONNECTION, put_calendar

    text = sys.stdin.read(SPEC_LIMIT + 1) if spec == "-" else Path(spec).read_text(encoding="utf-8")
    if len(text) > SPEC_LIMIT:
        raise InputError("calendar", f"{len(text)} characters", f"at most {SPEC_LIMIT}", "give one JSON object")
    try:
        given = json.loads(text)
    except ValueError:
        raise InputError("calendar", text[:40], "one JSON object", 'e.g. {"base": "fx"}') from None
    calendar = MarketCalendar.from_spec(given)
    with open_feed() as feed:
        row = feed.connections.get(slug)
        with feed.lake.metadata.write() as tx:
            put_calendar(tx, row.id, check_symbol(symbol) if symbol else WHOLE_CONNECTION, calendar, origin="set",
                         now_us=feed.clock.now_us())
            witness("calendar.set", _named(slug, symbol), feed.clock.now_us())(tx)
    note(f"calendar of {slug} {symbol or '(all)'} set; what it changes is asked for, or booked as closed, by the next repair")


@calendars.command("learn")
def learn(
    slug: Slug, symbol: OnlySymbol = None,
    apply: Annotated[bool, typer.Option("--apply", help="Put it in force; without this it is shown only.")] = False,
    as_json: Json = False,
) -> None:
    """Learn a calendar from the stored candles: the week's closed hours, holidays, an exchange's outages."""
    from core.errors import InputError
    from feed import open_feed
    from feed.calendar_learning import learn_calendar
    from storage.calendars import list_calendars, put_calendar

    with open_feed() as feed:
        row = feed.connections.get(slug)
        learned = learn_calendar(feed, slug, symbol)
        with feed.lake.metadata.write() as tx:
            held = [item for item in list_calendars(tx, slug) if item.symbol == learned.symbol]
            if apply and held and held[0].origin == "set":
                raise InputError("calendar", f"one that was set by hand for {slug} {symbol or '(all)'}", "a learned one or none",
                                 f"drop it first: candlelake calendars drop {slug}" + (f" --symbol {symbol}" if symbol else ""))
            if apply:
                put_calendar(tx, row.id, learned.symbol, learned.calendar, origin="learned", now_us=feed.clock.now_us(),
                             evidence=learned.evidence)
                witness("calendar.learn", _named(slug, symbol), feed.clock.now_us())(tx)
    if as_json:
        print_json({"applied": apply, "spec": learned.calendar.as_spec(), "evidence": learned.evidence})
        return
    print_object({"applied": apply, **learned.evidence, **learned.calendar.as_spec()}, as_json=False)


@calendars.command("drop")
def drop(slug: Slug, symbol: OnlySymbol = None) -> None:
    """Forget a calendar: the FX week, or always open, holds again."""
    from core.errors import NotFoundError
    from feed import open_feed
    from storage.calendars import WHOLE_CONNECTION, drop_calendar

    with open_feed() as feed:
        row = feed.connections.get(slug)
        with feed.lake.metadata.write() as tx:
            if not drop_calendar(tx, row.id, symbol or WHOLE_CONNECTION):
                raise NotFoundError(f"no calendar of {slug} {symbol or '(all)'}; see: candlelake calendars show {slug}")
            witness("calendar.drop", _named(slug, symbol), feed.clock.now_us())(tx)
    note(f"calendar of {slug} {symbol or '(all)'} dropped")


def _named(slug: str, symbol: str | None) -> str:
    return f"{slug} {symbol}" if symbol else slug


def clock(
    slug: Slug,
    learn: Annotated[bool, typer.Option("--learn", help="Find the rules in the broker's candles and put them in force.")] = False,
    rules: Annotated[str | None, typer.Option(
        "--set", metavar="JSON", help='e.g. {"offset_minutes": 120, "dst": "us"}, or a list with "since".')] = None,
    as_json: Json = False,
) -> None:
    """Show a broker's wall clock: the rules in force and what was seen of it; or find or set the rules."""
    from connections.clocks import history
    from core.clock import isoformat
    from core.clock_words import evidence_in_words, rules_in_words
    from core.errors import InputError
    from feed import open_feed

    with open_feed() as feed:
        row = feed.connections.get(slug)
        if learn and rules is not None:
            raise InputError("clock", "--learn and --set", "one of them", "leave one out")
        if learn:
            _learn_clock(feed, row)
        elif rules is not None:
            _set_clock(feed, row, rules)
        row = feed.connections.get(slug)
        with feed.lake.metadata.read() as tx:
            lines = history(tx, slug)
    seen = [{"seen": isoformat(line.seen_at_us), "last_seen": isoformat(line.last_seen_us), "kind": line.kind,
             "offset_minutes": line.offset_minutes, "strength": line.evidence.get("strength", ""),
             "proved_by": " and ".join(line.evidence.get("proved_by", ())), "rules": line.rules, "evidence": line.evidence}
            for line in lines]
    if as_json:
        print_json({"connection": slug, "rules": row.config.get("server_clock"), "history": seen})
        return
    for shown, line in zip(seen, lines, strict=True):
        shown |= {"rules": rules_in_words(line.rules), "evidence": evidence_in_words(line.evidence)}
    if row.config.get("server_clock") is None and not seen:
        note(f"{slug} has no wall clock of its own: its times are UTC")
    print_rows(seen, CLOCK, as_json=False, empty="nothing seen of a clock yet")


def _learn_clock(feed: Feed, row: ConnectionRow) -> None:
    import asyncio

    from feed.clock_watch import learn_clock

    found = asyncio.run(learn_clock(feed, row.slug, witness("clock.learn", row.slug, feed.clock.now_us())))
    note(f"clock of {row.slug}: {json.dumps(found.as_config())}")


def _set_clock(feed: Feed, row: ConnectionRow, rules: str) -> None:
    from connections.clocks import replace_clock
    from core.errors import InputError
    from core.server_clock import CONFIG_HELP, ServerClock

    try:
        given = json.loads(rules)
    except ValueError:
        raise InputError("clock", rules[:60], "JSON", CONFIG_HELP) from None
    clock = ServerClock.from_config({"server_clock": given})
    if clock is None:
        raise InputError("clock", rules[:60], "rules", CONFIG_HELP)
    with feed.lake.metadata.write() as tx:
        replace_clock(tx, row, clock, "set", feed.clock.now_us(), {"by": "a person"})
        witness("clock.set", row.slug, feed.clock.now_us(), rules=rules)(tx)


@listings.callback()
def _listings() -> None:
    """Show the life of symbols and decide what a ticker means that is used again."""


@listings.command("show")
def show_listings(slug: AnySlug = None, as_json: Json = False) -> None:
    """Show every symbol that was looked at: since when it is listed, whether it is gone, and what it is asked for as."""
    from feed import open_feed
    from storage.listings import describe, list_listings

    with open_feed() as feed:
        if slug is not None:
            feed.connections.get(slug)
        with feed.lake.metadata.read() as tx:
            rows = [{"connection": name, **describe(item)} for name, item in list_listings(tx, slug)]
    print_rows(rows, LISTINGS, as_json=as_json, empty="no symbol was looked at yet; the next fetch does")


@listings.command("same")
def same(slug: Slug, symbol: Symbol) -> None:
    """Say that a ticker that came back, or looks changed, is the same asset: its series goes on."""
    from feed import open_feed
    from feed.life import say_same

    with open_feed() as feed:
        feed.connections.get(slug)
        say_same(feed, slug, symbol, witness("listing.same", f"{slug} {symbol}", feed.clock.now_us()))
    note(f"{slug} {symbol} goes on as the same asset")


@listings.command("anew")
def anew(slug: Slug, symbol: Symbol) -> None:
    """Say that a ticker names another asset now: it gets series of its own, the old ones end where they were."""
    from feed import open_feed
    from feed.life import say_anew

    with open_feed() as feed:
        feed.connections.get(slug)
        made = say_anew(feed, slug, symbol, witness("listing.anew", f"{slug} {symbol}", feed.clock.now_us()))
    note(f"{slug} {symbol} is another asset; its candles are kept as {made.symbol}")


@listings.command("rename")
def rename_symbol(
    slug: Slug, old: Symbol, new: Annotated[str, typer.Argument(metavar="NEW", help="The provider's new name of it.")],
) -> None:
    """Say that the provider has renamed a symbol: its series keeps its name and is asked for by the new one."""
    from feed import open_feed
    from feed.life import rename

    with open_feed() as feed:
        rename(feed, slug, old, new, witness("listing.rename", f"{slug} {old}", feed.clock.now_us(), to=new))
    note(f"{slug} {old} is asked for as {new} from now on")
