"""Calendars, clock and listings on the command line."""

import json
from pathlib import Path

import sandbox

DATA = Path(sandbox.__file__).parent / "data"


def replayed(candlelake, slug, prefix, symbol, **config):
    """Add a connection that replays recorded candles."""
    answer = candlelake("connections", "add", slug, "--provider", "replay", "--symbol", symbol, "--timeframe", "1h", "--config",
                        json.dumps({"folder": str(DATA), "prefix": prefix, **config}))
    assert answer.code == 0, answer.err


def test_a_calendar_is_learned_shown_edited_and_dropped(candlelake, tmp_path):
    """Learn shows without storing, --apply stores; what a person has set is not overwritten; drop gives the default back."""
    replayed(candlelake, "oanda", "oanda", "EURUSD")
    assert candlelake("backfill", "oanda", "EURUSD", "1h", "2013-11-01", "2014-03-20").code in {0, 3}
    seen = candlelake("calendars", "learn", "oanda", "--symbol", "EURUSD", "--json").json
    assert seen["applied"] is False
    assert seen["spec"]["weekly"] == [{"from": "Fri 17:00", "to": "Sun 17:00", "why": "weekend"}]
    assert [item["why"] for item in seen["spec"]["closed"]] == ["Christmas Eve", "New Year's Eve"]
    assert candlelake("calendars", "show", "--json").json == []
    assert candlelake("calendars", "learn", "oanda", "--symbol", "EURUSD", "--apply").code == 0
    (row,) = candlelake("calendars", "show", "oanda", "--json").json
    assert (row["symbol"], row["origin"], row["spec"]) == ("EURUSD", "learned", seen["spec"])
    hours = candlelake("calendars", "hours", "oanda", "EURUSD", "2013-12-24", "2013-12-26", "--json").json
    assert hours == [{"start": "2013-12-24T19:00:00Z", "end": "2013-12-25T22:00:00Z", "why": "Christmas Eve"}]
    edited = tmp_path / "calendar.json"
    edited.write_text(json.dumps({**row["spec"], "closed": []}))
    assert candlelake("calendars", "set", "oanda", str(edited), "--symbol", "EURUSD").code == 0
    refused = candlelake("calendars", "learn", "oanda", "--symbol", "EURUSD", "--apply")
    assert refused.code == 2
    assert "set by hand" in refused.err
    assert candlelake("calendars", "drop", "oanda", "--symbol", "EURUSD").code == 0
    assert candlelake("calendars", "drop", "oanda", "--symbol", "EURUSD").code == 1
    assert candlelake("calendars", "show").out.strip().count("\n") == 0
    told = candlelake("users", "audit", "--subject", "oanda EURUSD", "--json").json
    assert [row["action"] for row in told] == ["calendar.drop", "calendar.set", "calendar.learn"]


def test_a_bad_calendar_is_one_line(candlelake, tmp_path):
    """JSON that is none, and a spec with an unknown field, name what is allowed; nothing is stored."""
    replayed(candlelake, "oanda", "oanda", "EURUSD")
    for text in ("{", '{"weekend": 1}', '{"zone": "Moon"}'):
        file = tmp_path / "bad.json"
        file.write_text(text)
        answer = candlelake("calendars", "set", "oanda", str(file))
        assert answer.code == 2
        assert answer.err.count("\n") == 1
        assert "calendar" in answer.err
    assert candlelake("calendars", "show", "--json").json == []
    assert candlelake("calendars", "learn", "oanda").code == 2  # nothing stored to learn from


def test_a_clock_is_shown_set_and_learned(candlelake):
    """The rules in force, their history, a person's own, and those that the candles show."""
    replayed(candlelake, "broker", "mt5", "GBPUSD", server_clock={"offset_minutes": 120, "dst": "eu"})
    assert candlelake("backfill", "broker", "GBPUSD", "1h", "2018-01-01", "2018-03-01").code in {0, 3}
    shown = candlelake("clock", "broker", "--json").json
    assert shown["rules"] == {"offset_minutes": 120, "dst": "eu"}
    assert shown["history"][0]["kind"] == "confirmed"
    assert ("weak", "week end") in {(line["strength"], line["proved_by"]) for line in shown["history"]}
    assert candlelake("clock", "broker", "--set", '{"offset_minutes": 120, "dst": "us"}').code == 0
    assert candlelake("clock", "broker", "--json").json["history"][0]["kind"] == "set"
    assert candlelake("clock", "broker", "--set", '{"offset_minutes": 7}').code == 2
    learned = candlelake("clock", "broker", "--learn", "--json")
    assert learned.code == 0, learned.err
    assert [row["action"] for row in candlelake("users", "audit", "--json").json] == ["clock.learn", "clock.set", "connection.create"]
    assert learned.json["rules"][-1] == {**learned.json["rules"][-1], "offset_minutes": 120, "dst": "eu"}
    replayed(candlelake, "utc", "oanda", "EURUSD")
    assert candlelake("clock", "utc", "--json").json == {"connection": "utc", "rules": None, "history": []}
    assert candlelake("clock", "utc", "--learn").code == 2


def test_listings_are_shown_and_decided(candlelake):
    """Each symbol that was looked at is listed; there is nothing to decide; a rename is kept."""
    replayed(candlelake, "oanda", "oanda", "EURUSD")
    assert candlelake("backfill", "oanda", "EURUSD", "1h", "2018-01-01", "2018-02-01").code in {0, 3}
    (row,) = candlelake("listings", "show", "--json").json
    assert (row["symbol"], row["asked_as"], row["generation"], row["status"]) == ("EURUSD", "EURUSD", 1, "listed")
    for word in ("same", "anew"):
        answer = candlelake("listings", word, "oanda", "EURUSD")
        assert answer.code == 2
        assert "nothing to decide" in answer.err
    assert candlelake("listings", "rename", "oanda", "NOPE", "EUR").code == 1
    assert candlelake("listings", "rename", "oanda", "EURUSD", "EURUSD.x").code == 0
    (row,) = candlelake("listings", "show", "oanda", "--json").json
    assert row["asked_as"] == "EURUSD.x"
