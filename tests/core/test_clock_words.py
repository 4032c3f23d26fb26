"""core.clock_words: what people read of a broker's clock."""

from core.clock_words import evidence_in_words, offset_in_words, rules_in_words


def test_rules_are_told_with_their_history() -> None:
    """Each rule with its offset, summer time and since when."""
    assert rules_in_words([{"offset_minutes": 120, "dst": "us"}]) == "UTC+2, summer time by America's dates"
    assert rules_in_words([{"offset_minutes": 60, "dst": "eu"}, {"offset_minutes": -210, "dst": "none", "since": "2014-11-22T22:00:00Z"}]) == (
        "UTC+1, summer time by Europe's dates; from 2014-11-22T22:00:00Z: UTC-3:30, no summer time")
    assert offset_in_words(0) == "UTC+0"


def test_evidence_is_told_with_what_it_withholds() -> None:
    """By what a clock was judged, of how much, and which stretches are not stored; a contradiction says its own words."""
    told = evidence_in_words({
        "weeks_by": {"correlation": 12, "order stamp": 1, "week end": 30}, "reference": "ref EURUSD 1h", "half_days": {"rhythm": 4815},
        "withheld": [{"from": "2013-06-05T11:00:00Z", "to": "2013-06-14T13:00:00Z", "shown_minutes": 180, "ruled_minutes": 120}]})
    assert told == ("12 weeks by correlation; 1 order stamp; 30 week ends; beside ref EURUSD 1h; 4,815 half days by rhythm; "
                    "withheld 2013-06-05T11:00:00Z to 2013-06-14T13:00:00Z: it showed UTC+3")
    assert evidence_in_words({"message": "it moved"}) == "it moved"
    assert evidence_in_words({"by": "a person"}) == "a person"
    assert evidence_in_words({}) == ""
