"""The event of a revision: names the candle and both values, for a run's own series, and nobody is told outside of a run."""

from core.clock import parse_instant
from core.series import Series
from storage.lake.revisions import RevisionRow
from tasks.revisions import emit_revisions, revision_event


def test_an_event_names_the_candle_and_both_values() -> None:
    """Resource: the series; payload: candle, when it was seen, by which run, old and new values, and no more."""
    values = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0, "spread": None, "source": "rest"}
    change = RevisionRow(Series.parse("kraken", "BTC/USD", "1m"), parse_instant("2026-01-01"), parse_instant("2026-01-02"),
                         parse_instant("2026-01-01T01:00Z"), {**values, "run_id": "fetch-1"}, {**values, "close": 1.6, "run_id": "audit-1"})
    resource, payload = revision_event(change)
    assert resource["prefect.resource.id"] == "candlelake.series.kraken.BTC/USD.1m"
    assert (payload["ts"], payload["known_at"], payload["run_id"]) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "audit-1")
    assert (payload["old"]["close"], payload["new"]["close"]) == (1.5, 1.6)
    assert set(payload["old"]) == {"open", "high", "low", "close", "volume", "spread"}


def test_outside_of_a_run_nobody_is_told() -> None:
    """Without a run there is no server to tell, and nothing is read for it."""

    class Changed:
        revised = 3

    emit_revisions(None, Changed())
