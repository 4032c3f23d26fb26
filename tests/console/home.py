"""A real home for the console's tests: people of every kind, a connection of each, and one of everything that pages and calls show."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import polars as pl
from sqlalchemy import select

from connections.rows import notify, write_log
from connections.service import ConnectionInput
from console.app import make_app
from console.identity import COOKIE
from console.policy import CSRF_HEADER
from console.prefect_api import PrefectDesk
from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US, ManualClock, parse_instant
from core.secrets import Secret
from core.settings import Settings
from core.ticks import Tick, frame_of
from feed import open_feed
from storage import Batch, access, people, pipelines
from storage.metadata.tables import gaps, revisions
from storage.metadata.tables_market import clock_history
from storage.metadata.tables_people import users
from storage.series import list_series

PASSWORD = "seven green lamps at noon"
PEOPLE = {"root": "super_admin", "staff": "staff_admin", "clerk": "staff_admin", "ann": "user", "bob": "user"}
START_US = parse_instant("2026-01-05T00:00:00Z")
NOON = "2026-01-05T12:00:00Z"
YAML = """name: crossing
series:
  - {connection: anns, symbol: BTC/USD, timeframe: 1m}
indicators:
  - {plugin: talib, name: fast, parameters: {function: EMA, options: {timeperiod: 5}}}
  - {plugin: talib, name: slow, parameters: {function: EMA, options: {timeperiod: 12}}}
signals:
  - {plugin: crossover, parameters: {fast: fast, slow: slow}}
"""
DEFINITION = {
    "name": "crossing", "series": [{"connection": "anns", "symbol": "BTC/USD", "timeframe": "1m"}],
    "indicators": [{"plugin": "talib", "name": "fast", "parameters": {"function": "EMA", "options": {"timeperiod": 5}}}],
    "signals": [{"plugin": "crossover", "parameters": {"fast": "fast", "slow": "fast"}}],
}


_hashes = []  # of PASSWORD, made once: it is slow, as it has to be


def password_hash(tx):
    """Return the hash of everybody's password."""
    if not _hashes:
        people.set_password(tx, "root", Secret(PASSWORD), 0)
        _hashes.append(tx.execute(select(users.c.password_hash).where(users.c.name == "root")).scalar_one())
    return _hashes[0]


@contextmanager
def opened_home(folder, clock, **settings):
    """Open a home with five people, one connection of each owner, and candles in ann's."""
    config = Settings(_env_file=None, home=folder / "home", key_file=folder / "test.keys", allow_private_hosts=True, **settings)
    with open_feed(config, clock) as opened:
        with opened.lake.metadata.write() as tx:
            for name, role in PEOPLE.items():
                people.add_user(tx, name, role, clock.now_us())
            tx.execute(users.update().values(password_hash=password_hash(tx)))
            people.grant(tx, "staff", ["manage-data-connections"])
        for slug, owner, ours in (("house", "root", True), ("anns", "ann", False), ("bobs", "bob", False)):
            opened.connections.create(ConnectionInput(
                slug=slug, provider="ccxt:kraken", owner=owner, is_admin_owned=ours, symbols=("BTC/USD",), timeframes=("1m",),
                credentials={"api_key": f"canary-key-{slug}", "secret": f"canary-secret-{slug}"}))
        store_candles(opened, "anns", 300)
        yield opened


def store_candles(feed, slug, count):
    """Store `count` candles of a connection's one series."""
    with feed.lake.metadata.read() as tx:
        series = list_series(tx, slug)[0]
    rows = [{"ts": START_US + n * MINUTE_US, "open": 100.0 + n, "high": 102.0 + n, "low": 99.0 + n, "close": 101.0 + n,
             "volume": 5.0, "spread": None} for n in range(count)]
    frame = pl.DataFrame(rows).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).cast(dict(CANDLE_SCHEMA))
    feed.lake.write([Batch(series.id, frame.select(CANDLE_SCHEMA.names()), "rest")], run_id="test")


def token_of(feed, name, *scopes, days=30):
    """Make an API token of a user; returns the header."""
    with feed.lake.metadata.write() as tx:
        _, value = access.create_token(tx, people.get_user(tx, name), "test", scopes or ("read",), days, feed.clock.now_us())
    return {"authorization": f"Bearer {value.reveal()}"}


def session_of(feed, name):
    """Sign a user in without the slow password; returns the headers that their browser sends with a change."""
    with feed.lake.metadata.write() as tx:
        value = access.open_session(tx, people.get_user(tx, name), feed.clock.now_us()).reveal()
        found = access.find_session(tx, value, feed.clock.now_us())
    return {"cookie": f"{COOKIE}={value}", CSRF_HEADER: found.csrf}


def furnish(feed):
    """Add one of everything that is shown: a gap, a revision, ticks, a clock, a pipeline with signals, a notification, another connection."""
    now_us = feed.clock.now_us()
    anns = feed.connections.get("anns")
    with feed.lake.metadata.write() as tx:
        series = list_series(tx, "anns")[0]
        tx.execute(gaps.insert().values(
            series_id=series.id, start_us=START_US - 9 * MINUTE_US, end_us=START_US, cause="provider_empty", attempts=2,
            first_seen_us=now_us, last_seen_us=now_us, next_try_us=now_us + MINUTE_US, proof={"asked": ["rest"]}))
        values = {"open": 1.0, "high": 2.0, "low": 1.0, "close": 1.5, "volume": 3.0, "spread": None, "source": "rest", "run_id": "test"}
        tx.execute(revisions.insert().values(
            series_id=series.id, ts_us=START_US, known_at_us=now_us, old_known_at_us=now_us - 1, old=values, new=values | {"close": 2.0}))
        tx.execute(clock_history.insert().values(
            connection_id=anns.id, kind="learned", rules=[{"offset_minutes": 120, "dst": "eu"}], offset_minutes=120, evidence={"weeks": 3}, seen_at_us=now_us, last_seen_us=now_us))
        row = pipelines.create_pipeline(tx, DEFINITION, "0" * 64, "ann", now_us)
        pipelines.create_pipeline(tx, DEFINITION | {"name": "challenger"}, "1" * 64, "ann", now_us)
        shared = {"pipeline_id": row.id, "version": 1, "series_id": series.id, "ts_us": START_US, "as_of_us": now_us,
                  "run_id": "test", "created_at_us": now_us, "input_digest": "0" * 64}
        pipelines.add_executions(tx, [shared | {
            "stage": stage, "status": status, "output_digest": None, "rows_in": 9, "rows_out": rows, "parts": [], "error": error,
            "execution_time_ms": 1.5} for stage, status, rows, error in (("signal", "ok", 1, None), ("executor", "error", None, "no route"))])
        pipelines.add_signal(tx, shared | {
            "close_us": START_US + MINUTE_US, "side": "buy", "price": 101.0, "confidence": 0.7, "threshold": 0.5, "reason": "crossed",
            "values": {"fast": 1.0}, "is_shadow": False, "execution": "none"})
        write_log(tx, (anns.id, "anns"), "connect", "error", "timed out", now_us, run_id="run-1")
        notify(tx, "test", "error", anns.id, "It failed", "why", now_us)
    feed.connections.create(ConnectionInput(
        slug="spare", provider="ccxt:kraken", owner="ann", symbols=("BTC/USD",), timeframes=("1m",), base_url="http://127.0.0.1:9"))
    writer = feed.lake.tick_store.open_journal("anns", ["BTC/USD"])
    writer.append(frame_of([
        Tick("BTC/USD", START_US + 5, START_US + 9, bid=1.0, ask=2.0),
        Tick("BTC/USD", START_US + 6, START_US + 9, price=1.5, size=2.0, side="buy", trade_id="7")], "stream", "test"), START_US + 9)
    writer.close()


@dataclass(frozen=True)
class Caller:
    """Somebody who asks: which console, with which headers; `person` is None for who is not let in at all."""

    name: str
    app: object
    headers: dict
    person: str | None = None
    scopes: frozenset = frozenset()
    console: str = "plain"  # plain | demonstration | verified: people without a verified address wait | factors: root has to have a second one
    lacks: str = ""  # what a page's form has to have and this one has not


@contextmanager
def furnished_home(folder, prefect="http://127.0.0.1:9/api", **settings):
    """Open a home that has everything, and consoles of every kind over it; yields feed, the plain console and a Caller for each kind of asker."""
    clock = ManualClock(parse_instant(NOON))
    with opened_home(folder, clock, **settings) as feed:
        furnish(feed)
        with feed.lake.metadata.write() as tx:
            people.add_user(tx, "gone", "user", clock.now_us())
        left = [token_of(feed, "gone", "read", "manage"), session_of(feed, "gone")]
        with feed.lake.metadata.write() as tx:
            people.change_user(tx, "gone", clock.now_us(), is_active=False)
        changed = {
            "plain": {}, "demonstration": {"console_read_only": True}, "verified": {"console_require_verified_email": True},
            "factors": {"console_require_totp": "super_admin"}}
        apps = {name: make_app(replace(feed, settings=feed.settings.model_copy(update=changes)), PrefectDesk(prefect))
                for name, changes in changed.items()}
        yield feed, apps["plain"], list(_callers(feed, apps, left))


def _callers(feed, apps, left):
    """Yield askers of every kind."""
    app, all_scopes = apps["plain"], frozenset({"read", "manage"})
    yield Caller("nobody", app, {})
    yield Caller("nobody at a demonstration", apps["demonstration"], {}, console="demonstration")
    yield from (Caller(f"inactive {number}", app, headers) for number, headers in enumerate(left))
    yield Caller("a token of nobody", app, {"authorization": "Bearer clk_" + "x" * 43})
    for name in PEOPLE:
        for scopes in (("read", "manage"), *((("read",), ("manage",)) if name in {"root", "staff", "ann"} else ())):
            yield Caller(f"{name} {' '.join(scopes)}", app, token_of(feed, name, *scopes), name, frozenset(scopes))
        yield Caller(f"{name} page", app, session_of(feed, name), name, all_scopes)
    root = session_of(feed, "root")
    bare = {"cookie": root["cookie"]}
    yield Caller("root page without the form's token", app, bare, "root", all_scopes, lacks="reload the page")
    yield Caller("root page with another's token", app, {**bare, CSRF_HEADER: session_of(feed, "root")[CSRF_HEADER]}, "root", all_scopes, lacks="reload the page")
    yield Caller("root page from another site", app, {**root, "sec-fetch-site": "cross-site"}, "root", all_scopes, lacks="from another site")
    yield Caller("root page from a sibling", app, {**root, "sec-fetch-site": "same-site"}, "root", all_scopes, lacks="from another site")
    yield Caller("root page by another origin", app, {**root, "origin": "http://evil.example"}, "root", all_scopes, lacks="from another site")
    for console, name in (("verified", "ann"), ("demonstration", "root"), ("factors", "root"), ("factors", "ann")):
        yield Caller(f"{name} {console}", apps[console], token_of(feed, name, "read", "manage"), name, all_scopes, console)
        yield Caller(f"{name} {console} page", apps[console], session_of(feed, name), name, all_scopes, console)
