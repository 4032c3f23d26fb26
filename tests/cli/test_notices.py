"""The commands of notifications."""

import json

from connections.rows import notify, read_connection
from feed import open_feed
from storage import audit


def test_listed_acknowledged_and_sent(candlelake, home):
    """A notification is listed as JSON, leaves the unseen ones when acknowledged, and the audit log knows; nothing is set up to send it."""
    assert candlelake("connections", "add", "mine", "--provider", "ccxt:kraken", "--symbol", "BTC/USD", "--timeframe", "1m").code == 0
    with open_feed() as feed, feed.lake.metadata.write() as tx:
        notify(tx, "stale", "warning", read_connection(tx, "mine").id, "mine is stale", "no new candle", feed.clock.now_us())
    (row,) = json.loads(candlelake("notifications", "list", "--json").out)
    assert (row["severity"], row["connection"], row["title"], row["seen"]) == ("warning", "mine", "mine is stale", None)
    assert candlelake("notifications", "acknowledge", str(row["id"])).code == 0
    assert json.loads(candlelake("notifications", "list", "--unseen", "--json").out) == []
    with open_feed() as feed, feed.lake.metadata.read() as tx:
        assert [item.action for item in audit.list_audit(tx, 5)] == ["notification.acknowledge", "connection.create"]
    assert json.loads(candlelake("notifications", "send", "--json").out) == {"sent": 0, "errors": []}


def test_bad_input_is_one_line(candlelake):
    """An unknown number, and a trial with no channel, say what to do and exit with 1 or 2."""
    unknown = candlelake("notifications", "acknowledge", "99")
    assert unknown.code in {1, 2}
    assert "notifications list" in unknown.err
    trial = candlelake("notifications", "trial")
    assert trial.code in {1, 2}
    assert "CANDLELAKE_SMTP_URL" in trial.err
    assert trial.err.strip().count("\n") == 0
