"""The command line is no way round the audit log: what it changes stands there, by whom, or it did not happen."""

import json
import os
import pwd

import pytest
import typer

from cli.console import print_first_code
from cli.demo import prepare_demos, rest_demos
from cli.main import app
from core.settings import Settings, settings
from feed import open_feed
from storage import audit
from storage.listings import put_listing
from tests.console.home import YAML, store_candles

SERIES = ("anns", "BTC/USD", "1m")
ADDED = ("connections", "add", "anns", "--provider", "ccxt:kraken", "--symbol", "BTC/USD", "--timeframe", "1m")
DEEDS = {  # what a person decides: in the audit log
    "connections": "add update delete test activate deactivate", "pipelines": "create import enable disable shadow delete",
    "pipelines filters": "save delete", "orders": "halt resume allow forbid", "models": "train delete", "keys": "rotate",
    "users": "add grant revoke activate deactivate update reset-factor code", "tokens": "create revoke",
    "calendars": "set learn drop", "listings": "same anew rename", "derivations": "add remove", "snapshots": "create delete",
    "notifications": "acknowledge", "": "up console cleanup import restore clock audit",  # audit: its --rebuild
}
RUNS = {  # what schedules do as well; `runs`, the ledger, executions and orders tell of them
    "": "fetch backfill repair flush stream backfill-ticks", "pipelines": "run", "orders": "reconcile", "notifications": "send",
}
LOOKS = {  # change nothing that is kept
    "": "verify candles coverage gaps revisions query trace consistency reconcile report export backup health doctor config streams ticks "
        "tick-gaps tick-agreement positions", "runs": "list show", "derivations": "list", "snapshots": "list show verify",
    "calendars": "show hours", "listings": "show", "connections": "list show logs", "sandbox": "serve", "users": "list audit", "tokens": "list",
    "pipelines": "list show export replay compare check stats plugins", "pipelines filters": "list test", "orders": "list show equity",
    "models": "list show", "notifications": "list trial",
}


@pytest.fixture
def told(candlelake, tmp_path):
    """Run a command that must end well; return what the audit log then says of the command line, oldest first."""

    def call(*line):
        result = candlelake(*line)
        assert result.code == 0, result.err
        settings.cache_clear()
        with open_feed(Settings()) as feed, feed.lake.metadata.read() as tx:
            assert audit.verify_audit(tx) is None
            return [(row.action, row.subject) for row in reversed(audit.list_audit(tx)) if row.via == "cli" and row.actor.startswith("cli:")]

    return call


def test_what_the_command_line_changes_is_in_the_audit_log(told, tmp_path):
    """Connections, pipelines, the permission of real orders, the switch of all orders and keys: each deed is one row; looking is none."""
    file = tmp_path / "crossing.yaml"
    file.write_text(YAML)
    deeds = (
        (("connections", "add", "anns", "--provider", "ccxt:kraken", "--symbol", "BTC/USD", "--timeframe", "1m"), ("connection.create", "anns")),
        (("connections", "update", "anns", "--name", "Ann"), ("connection.update", "anns")),
        (("connections", "deactivate", "anns"), ("connection.deactivate", "anns")),
        (("connections", "activate", "anns"), ("connection.activate", "anns")),
        (("pipelines", "create", str(file)), ("pipeline.create", "crossing")),
        (("pipelines", "import", str(file)), ("pipeline.change", "crossing")),
        (("pipelines", "enable", "crossing"), ("pipeline.enable", "crossing")),
        (("pipelines", "disable", "crossing"), ("pipeline.disable", "crossing")),
        (("orders", "allow", "crossing"), ("orders.allow", "crossing")),
        (("orders", "forbid", "crossing"), ("orders.forbid", "crossing")),
        (("orders", "halt", "a test"), ("orders.halt", "all")),
        (("orders", "resume"), ("orders.resume", "all")),
        (("pipelines", "delete", "crossing", "--yes"), ("pipeline.delete", "crossing")),
        (("keys", "rotate"), ("keys.rotate", "credentials")),
        (("connections", "delete", "anns", "--yes"), ("connection.delete", "anns")),
    )
    wanted = []
    for line, deed in deeds:
        wanted.append(deed)
        assert told(*line) == wanted, line
    assert told("connections", "list", "--json") == wanted


def test_what_is_said_of_a_market_is_in_the_audit_log(told, tmp_path):
    """Calendars, clocks, listings, derivations, snapshots and filters: each deed is one row."""
    calendar, wanted = tmp_path / "calendar.json", [("connection.create", "anns")]
    calendar.write_text('{"base": "fx"}')
    told(*ADDED)
    with open_feed(Settings()) as feed:
        store_candles(feed, "anns", 300)

    def dispute():
        with open_feed(Settings()) as feed, feed.lake.metadata.write() as tx:
            key = feed.connections.get("anns").id
            put_listing(tx, key, "BTC/USD", status="conflict", claim={"why": "a test", "symbol": "BTC/USD"}, first_seen_us=1, last_seen_us=1)

    for line, deed in (
        (("calendars", "set", "anns", str(calendar)), ("calendar.set", "anns")),
        (("calendars", "drop", "anns"), ("calendar.drop", "anns")),
        (("clock", "anns", "--set", '{"offset_minutes": 120, "dst": "us"}'), ("clock.set", "anns")),
        (("clock", "anns"), None),
        (("derivations", "add", "anns", "BTC/USD", "1h"), ("derivation.add", "anns BTC/USD 1h")),
        (("derivations", "remove", "anns", "BTC/USD", "1h"), ("derivation.remove", "anns BTC/USD 1h")),
        (("snapshots", "create", "kept"), ("snapshot.create", "kept")),
        (("snapshots", "delete", "kept"), ("snapshot.delete", "kept")),
        (("pipelines", "filters", "save", "quiet", "volume < 3"), ("filter.save", "quiet")),
        (("pipelines", "filters", "delete", "quiet"), ("filter.delete", "quiet")),
        (("listings", "rename", "anns", "BTC/USD", "XBT/USD"), ("listing.rename", "anns BTC/USD")),
        (("listings", "same", "anns", "BTC/USD"), ("listing.same", "anns BTC/USD")),
        (("listings", "anew", "anns", "BTC/USD"), ("listing.anew", "anns BTC/USD")),
    ):
        if deed and deed[0] in {"listing.same", "listing.anew"}:
            dispute()
        wanted += [deed] if deed else []
        assert told(*line) == wanted, line


def test_data_that_a_person_brings_is_in_the_audit_log(told, candlelake, tmp_path, monkeypatch):
    """An import and a rebuild are told before and after, also one that fails; a restore stands in the log that it brings back."""
    told(*ADDED)
    with open_feed(Settings()) as feed:
        store_candles(feed, "anns", 300)
    assert told("export", *SERIES, tmp_path / "some.csv") == [("connection.create", "anns")]
    came = [("connection.create", "anns"), ("import", "anns BTC/USD 1m"), ("import", "anns BTC/USD 1m")]
    assert told("import", *SERIES, tmp_path / "some.csv") == came
    came += [("rebuild", "all"), ("rebuild", "all")]
    assert told("audit", "--rebuild", "anns") == came
    assert told("flush") == came
    told("backup", tmp_path / "home.tar")
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "second"))
    assert told("restore", tmp_path / "home.tar") == [*came, ("restore", "home.tar")]
    (file,) = (tmp_path / "second" / "lake" / "candles").rglob("*.parquet")
    file.write_bytes(b"damaged")
    assert candlelake("import", *SERIES, tmp_path / "some.csv").code == 1
    assert told("connections", "list") == [*came, ("restore", "home.tar"), came[1], came[1]]
    with open_feed(Settings()) as feed, feed.lake.metadata.read() as tx:
        rows = audit.list_audit(tx, 8)
    assert [row.outcome for row in rows] == ["failed", "begun", "done", "done", "begun", "done", "begun", "done"]
    assert rows[5].detail == {"stored": "0", "revised": "0", "rejected": "0"}


def test_entrances_and_connections_that_up_makes_are_in_the_audit_log(told, home):
    """The first admin's code, and the demo connections: made once, pointed at another sandbox, switched off; a start that changes nothing is none."""
    print_first_code()
    with open_feed(Settings(allow_private_hosts=True)) as feed:
        for url in ("http://127.0.0.1:4281", "http://127.0.0.1:4281", "http://127.0.0.1:4282"):
            prepare_demos(feed, url)
        rest_demos(feed)
        rest_demos(feed)
        prepare_demos(feed, url)
    rows = told("connections", "list")
    words = ("connection.create", "connection.update", "connection.deactivate", "connection.activate")
    assert [action for action, _ in rows] == ["user.code", *(word for word in words for _ in range(2))]
    assert set(rows) == {("user.code", "first admin"), *((word, slug) for word in words for slug in ("demo-mt5", "demo-exchange"))}


def test_a_connection_that_was_tried_is_in_the_audit_log(told, candlelake, monkeypatch):
    """As on the console: a test of a connection is one row, which says how it ended."""
    monkeypatch.setenv("CANDLELAKE_ALLOW_PRIVATE_HOSTS", "1")
    made = told(*ADDED, "--base-url", "http://127.0.0.1:9")
    assert candlelake("connections", "test", "anns").code == 1
    assert told("connections", "list") == [*made, ("connection.test", "anns")]
    assert json.loads(candlelake("users", "audit", "--json").out)[0]["outcome"] == "failed"


def test_each_command_is_known_as_a_deed_a_run_or_a_look():
    """A new command is put in one of the three by whoever adds it: what a person decides has its row in the audit log."""
    def names(command, path=()):
        found = getattr(command, "commands", {})
        return {path} if not found else set().union(*(names(item, (*path, name)) for name, item in found.items()))

    listed = [(*group.split(), word) for kind in (DEEDS, RUNS, LOOKS) for group, words in kind.items() for word in words.split()]
    assert len(listed) == len(set(listed))
    assert names(typer.main.get_command(app)) == set(listed)


def test_a_cleanup_is_told_before_and_after(told):
    """What removes candles in many transactions has a row when it begins and one when it has ended; a plan, or nothing to remove, has none."""
    made = told("connections", "add", "anns", "--provider", "ccxt:kraken", "--symbol", "BTC/USD", "--timeframe", "1m")
    with open_feed(Settings()) as feed:
        store_candles(feed, "anns", 300)
    assert told("cleanup", "--retention-days", "1") == made
    assert told("cleanup", "--retention-days", "1", "--apply") == [*made, ("cleanup", "all"), ("cleanup", "all")]
    assert told("cleanup", "--retention-days", "1", "--apply") == [*made, ("cleanup", "all"), ("cleanup", "all")]
    with open_feed(Settings()) as feed, feed.lake.metadata.read() as tx:
        assert [(row.outcome, row.detail) for row in audit.list_audit(tx, 2)] == [("done", {"rows": "300"}), ("begun", {"rows": "300"})]


def test_nobody_passes_for_another_by_the_environment(told, candlelake, monkeypatch):
    """The log names the account that the process has at this machine, whatever LOGNAME and USER say."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "mallory")
    told(*ADDED)
    (row,) = json.loads(candlelake("users", "audit", "--json").out)
    assert row["actor"] == f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def test_a_refused_deed_leaves_no_row_that_says_it_was_done(told, candlelake):
    """The row is part of the deed: one that fails takes it along."""
    made = told("connections", "add", "anns", "--provider", "ccxt:kraken")
    assert candlelake("connections", "add", "anns", "--provider", "ccxt:kraken").code != 0
    assert candlelake("connections", "delete", "gone", "--yes").code != 0
    assert told("connections", "list") == made
    assert json.loads(candlelake("users", "audit", "--json").out)[0]["action"] == "connection.create"
