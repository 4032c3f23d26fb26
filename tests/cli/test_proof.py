"""The commands of the proof, as a person runs them: a provider that rewrites history, and all that says so."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTES, HOURS = ("tape", "BTCUSD", "1m"), ("tape", "BTCUSD", "1h")
DAY = ("2024-01-01", "2024-01-02")


def minutes_of(changed=()):
    """A day of made-up minutes; the high of those in `changed` is sixty times as far."""
    close = [100 + (i * 7919 % 100) / 10 for i in range(1440)]
    return pl.DataFrame({
        "ts": [START + timedelta(minutes=i) for i in range(1440)], "open": close,
        "high": [c + (60 if i in changed else 1) for i, c in enumerate(close)], "low": [c - 1 for c in close], "close": close,
        "volume": [float(i % 10 + 1) for i in range(1440)],
    }, schema_overrides={"ts": pl.Datetime("us", "UTC")})


def hours_of():
    return minutes_of().group_by_dynamic("ts", every="1h").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum())


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tapes"
    path.mkdir()
    minutes_of().write_parquet(path / "made_BTCUSD_1m.parquet")
    hours_of().write_parquet(path / "made_BTCUSD_1h.parquet")
    return path


@pytest.fixture
def filled(candlelake, folder):
    """A connection `tape` whose day of minutes and hours is stored."""
    config = json.dumps({"folder": str(folder), "market_type": "crypto"})
    for words in (("connections", "add", "tape", "--provider", "replay", "--symbol", "BTCUSD", "--timeframe", "1m", "--config", config),
                  ("backfill", *MINUTES, *DAY), ("backfill", *HOURS, *DAY)):
        answer = candlelake(*words)
        assert answer.code == 0, answer.err
    return candlelake


def test_a_rewritten_candle_is_seen_traced_and_located(filled, folder):
    """Verify finds it and writes nothing; audit makes one revision; runs, trace, consistency and report all tell of it."""
    at = "2024-01-01T10:17:00Z"
    assert filled("verify", "tape", "--against-provider", "--json").json["differences"] == []
    minutes_of(changed={617}).write_parquet(folder / "made_BTCUSD_1m.parquet")
    seen = filled("verify", "tape", "--against-provider", "--json")
    assert (seen.code, [(row["ts"], row["what"]) for row in seen.json["differences"]]) == (1, [(at, "changed")])
    assert filled("revisions", "--json").json == []
    before = filled("runs", "list", "--json").json

    first = filled("audit", "tape", "--deep", "--json")
    assert (first.code, first.json["revised"], first.json["stored"]) == (0, 1, 0)
    assert "1 had changed" in first.err
    again = filled("audit", "tape", "--deep", "--start", DAY[0], "--end", DAY[1], "--json")
    assert (again.code, again.json["revised"]) == (0, 0)
    runs = filled("runs", "list", "--json").json
    assert len(runs) == len(before) + 1
    assert (runs[0]["kind"], runs[0]["revised"], runs[0]["status"]) == ("audit", 1, "complete")
    shown = filled("runs", "show", runs[0]["run_id"], "--json").json
    assert [item["revised"] for item in shown["requests"]] == [1]

    new = filled("trace", *MINUTES, at, "--json").json
    assert new["run"]["run_id"] == runs[0]["run_id"]
    assert new["request"]["request_id"] == shown["requests"][0]["request_id"]
    old = filled("trace", *MINUTES, at, "--as-of", before[-1]["last_write"], "--json").json
    assert old["run"]["kind"] == "backfill"
    assert old["request"]["start"] <= at < old["request"]["end"]
    assert old["candle"]["high"] != new["candle"]["high"]
    assert filled("trace", *MINUTES, "2024-01-03").code == 1

    found = filled("consistency", "tape", "BTCUSD", "--json")
    assert found.code == 1
    assert [(row["timeframe"], row["field"]) for row in found.json["disagreements"]] == [("1h", "high")]
    assert found.json["compared"] == {"1h": 24}

    report = filled("report", "tape", "--start", DAY[0], "--end", DAY[1], "--json").json
    assert (report["totals"]["revisions"], report["totals"]["unexplained"], report["totals"]["completeness"]) == (1, 0, 1.0)
    text = filled("report", "tape")
    assert text.code == 0
    assert re.search(r"revisions\s+1\n", text.out)


def test_derived_candles_are_read_and_needed_ones_kept(filled):
    """Any length at any anchor as a read option; a declared one keeps its source from cleanup until it is forced."""
    rows = filled("candles", "tape", "BTCUSD", "45m", "--derive-from", "1m", "--anchor", "new_york", "--json").json
    assert {row["source"] for row in rows} == {"derived"}
    assert sum(row["parts"] for row in rows) == 1440
    assert filled("candles", "tape", "BTCUSD", "45m", "--anchor", "new_york").code == 2
    assert filled("candles", "tape", "BTCUSD", "7m", "--derive-from", "1m").code == 2
    assert filled("derivations", "add", "tape", "BTCUSD", "45m").code == 0
    assert [row["timeframe"] for row in filled("derivations", "list", "--json").json] == ["45m"]
    refused = filled("cleanup", "--retention-days", "1", "--timeframe", "1m", "--apply")
    assert refused.code == 1
    assert "only source of 45m" in refused.err
    assert filled("cleanup", "--retention-days", "1", "--timeframe", "1m", "--apply", "--force", "--json").json["rows"] == 1440
    assert filled("derivations", "remove", "tape", "BTCUSD", "45m").code == 0
    assert filled("derivations", "remove", "tape", "BTCUSD", "45m").code == 2


def test_a_snapshot_by_its_commands(filled, folder, tmp_path, monkeypatch):
    """Created, read, verified here and by its manifest; after a revision the home no longer has those rows."""
    made = filled("snapshots", "create", "day", "--note", "for the test", "--json").json
    assert (made["series"], made["rows"]) == (2, 1464)
    manifest = tmp_path / "day.json"
    manifest.write_text(filled("snapshots", "show", "day", "--json").out)
    assert filled("snapshots", "verify", "day").code == 0
    assert filled("snapshots", "verify", "--manifest", manifest).code == 0
    minutes_of(changed={5}).write_parquet(folder / "made_BTCUSD_1m.parquet")
    assert filled("audit", "--deep", "--json").json["revised"] == 1
    assert filled("snapshots", "verify", "day").code == 0
    answer = filled("snapshots", "verify", "--manifest", manifest, "--json")
    assert (answer.code, [row["path"] for row in answer.json]) == (1, ["tape BTCUSD 1m"])
    old = filled("candles", *MINUTES, "--snapshot", "day", "--json").json
    assert (len(old), old[5]["high"]) == (1440, minutes_of()["high"][5])
    assert filled("flush").code == 0
    copy = tmp_path / "copy.tar"
    assert filled("backup", copy).code == 0
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "elsewhere"))
    assert filled("restore", copy).code == 0
    assert filled("snapshots", "verify", "day").code == 0
    assert filled("verify").code == 0
    assert len(filled("query", "FROM all_candles", "--json").json) == 1464
    assert filled("snapshots", "verify").code == 2
    assert filled("snapshots", "delete", "day").code == 0
    assert filled("snapshots", "list", "--json").json == []


def test_two_connections_are_reconciled(filled, candlelake, folder, tmp_path):
    """A spike at one of two connections is named with its candle; nothing is changed."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    minutes_of(changed={700}).write_parquet(other / "made_BTCUSD_1m.parquet")
    config = json.dumps({"folder": str(other), "market_type": "crypto"})
    candlelake("connections", "add", "spiky", "--provider", "replay", "--symbol", "BTCUSD", "--timeframe", "1m", "--config", config)
    assert candlelake("backfill", "spiky", *MINUTES[1:], *DAY).code == 0
    found = candlelake("reconcile", "tape=BTCUSD", "spiky=BTCUSD", "--timeframe", "1m", "--json").json
    assert [(row["connection"], row["ts"], row["field"]) for row in found["outliers"]] == [("spiky BTCUSD", "2024-01-01T11:40:00Z", "high")]
    assert {(row["connection"], row["score"] == 100.0) for row in found["days"]} == {("tape BTCUSD", True), ("spiky BTCUSD", False)}
    assert candlelake("reconcile", "tape=BTCUSD").code == 2
    assert candlelake("reconcile", "tape", "spiky").code == 2


def test_what_cleanup_retired_and_when_a_revision_was_seen_can_be_asked(candlelake, folder):
    """The ledger below a retention is read by --retired; revisions are asked for by when they were seen; bad ends are one line."""
    holed = minutes_of().filter(~pl.col("ts").is_between(START + timedelta(minutes=50), START + timedelta(minutes=59)))
    holed.write_parquet(folder / "made_BTCUSD_1m.parquet")
    config = json.dumps({"folder": str(folder), "market_type": "crypto"})
    candlelake("connections", "add", "tape", "--provider", "replay", "--symbol", "BTCUSD", "--timeframe", "1m", "--config", config)
    assert candlelake("backfill", *MINUTES, *DAY).code == 3
    (gap,) = candlelake("gaps", "tape", "--json").json
    holed.with_columns(high=pl.col("high") + 1).write_parquet(folder / "made_BTCUSD_1m.parquet")
    assert candlelake("audit", "tape", "--deep", "--start", DAY[0], "--end", "2024-01-01T00:02", "--json").json["revised"] == 2
    seen = candlelake("revisions", "tape", "--json").json
    assert candlelake("revisions", "--since", seen[-1]["known_at"], "--json").json == seen
    assert candlelake("revisions", "--until", seen[-1]["known_at"], "--json").json == []
    for words in (("--since", "then"), ("--since", "2024-01-02", "--until", "2024-01-01")):
        answer = candlelake("revisions", *words)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert candlelake("cleanup", "--retention-days", "1", "--apply").code == 0
    assert candlelake("gaps", "--json").json == []
    (kept,) = candlelake("gaps", "tape", "BTCUSD", "1m", "--retired", "--json").json
    assert {name: kept[name] for name in ("start", "end", "cause", "proof")} == {name: gap[name] for name in ("start", "end", "cause", "proof")}
    assert candlelake("gaps", "--retired").out.count("provider_empty") == 1


def test_the_page_is_one_file_that_escapes_what_it_shows(filled, tmp_path):
    """The page holds no script and no foreign address, and says what the JSON says."""
    page = tmp_path / "proof.html"
    assert filled("report", "tape", "--format", "html", "-o", page).code == 0
    text = page.read_text()
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert filled("report", "tape", "--json").json["digest"] in text
    assert "tape BTCUSD 1m" in text
    assert filled("report", "tape", "--format", "pdf").code == 2
    assert filled("report", "none").code == 1
