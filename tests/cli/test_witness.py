"""The command line is no way round the audit log: what it changes stands there, by whom, or it did not happen."""

import json

import pytest

from core.settings import Settings, settings
from feed import open_feed
from storage import audit
from tests.console.home import YAML, store_candles


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


def test_a_refused_deed_leaves_no_row_that_says_it_was_done(told, candlelake):
    """The row is part of the deed: one that fails takes it along."""
    made = told("connections", "add", "anns", "--provider", "ccxt:kraken")
    assert candlelake("connections", "add", "anns", "--provider", "ccxt:kraken").code != 0
    assert candlelake("connections", "delete", "gone", "--yes").code != 0
    assert told("connections", "list") == made
    assert json.loads(candlelake("users", "audit", "--json").out)[0]["action"] == "connection.create"
