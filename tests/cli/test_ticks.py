"""The commands around ticks that need no socket."""

import json

from core.clock import DAY_US, SystemClock
from core.ticks import Tick, frame_of
from storage import open_lake


def test_cleanup_takes_ticks_by_a_retention_of_their_own(candlelake, home, tmp_path, monkeypatch):
    """Days of ticks beyond CANDLELAKE_TICK_RETENTION_DAYS are in the plan, go with --apply, and younger ones stay."""
    (tmp_path / "tapes").mkdir()
    assert candlelake("connections", "add", "tape", "--provider", "replay", "--symbol", "BTCUSD", "--timeframe", "1m",
                      "--config", json.dumps({"folder": str(tmp_path / "tapes"), "market_type": "crypto"})).code == 0
    now = SystemClock().now_us()
    for days, count in ((9, 40), (0, 7)):
        at = now // DAY_US * DAY_US - days * DAY_US
        ticks = [Tick("BTCUSD", at + n, at + n, None, None, 1.0, 1.0, "buy", f"{days}-{n}") for n in range(count)]
        with open_lake(home) as lake:
            lake.tick_store.write("tape", "BTCUSD", frame_of(ticks, "rest", "r").drop("symbol"))
    monkeypatch.setenv("CANDLELAKE_TICK_RETENTION_DAYS", "5")
    plan = candlelake("cleanup", "--json").json
    assert (plan["applied"], plan["items"]) == (False, [{"series": "ticks of tape BTCUSD", "rows": 40}])
    assert "removed 40 rows" in candlelake("cleanup", "--apply").err
    assert candlelake("cleanup", "--json").json["items"] == []
    with open_lake(home) as lake:
        assert lake.ticks("tape", "BTCUSD").height == 7
