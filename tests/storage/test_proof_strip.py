"""storage.proof_strip: what the strip of a published proof shows is what the slots are."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.clock import MINUTE_US, parse_instant
from core.interval import Interval
from storage.ledger import Gap
from storage.proof_strip import HEIGHT, LEGEND, boxes, strip_of

START = parse_instant("2024-03-01")
SHOWN = {"stored": "stored", "no_trade": "explained", "market_closed": "closed", "provider_empty": "waiting", "unknown": "open", "nothing": "open"}


@given(st.lists(st.sampled_from(list(SHOWN)), min_size=1, max_size=400), st.integers(0, 50), st.integers(0, 50))
def test_a_strip_counts_every_slot(kinds: list[str], before: int, after: int) -> None:
    """Whatever each slot is, and however much of the period lies outside the series: the parts' shares add up to its slots."""
    at = [START + number * MINUTE_US for number in range(len(kinds))]
    booked = [(Gap(1, part, kind), part) for us, kind in zip(at, kinds, strict=True) if kind not in {"stored", "nothing"}
              for part in [Interval(us, us + MINUTE_US)]]
    period = Interval(START - before * MINUTE_US, at[-1] + (after + 1) * MINUTE_US)
    slots = np.array([us for us, kind in zip(at, kinds, strict=True) if kind == "stored"], dtype=np.int64)
    strip = strip_of(slots, MINUTE_US, booked, Interval(at[0], at[-1] + MINUTE_US), period)
    total = before + len(kinds) + after
    count = min(120, total)
    assert len(strip) == count
    widths = np.diff(np.round(np.linspace(0, total, count + 1)))
    found: Counter[str] = Counter()
    for shares, width in zip(strip, widths, strict=True):
        assert sum(shares.values()) <= 1.0001
        found.update({name: share * width for name, share in shares.items()})
    wanted = Counter(SHOWN[kind] for kind in kinds)
    assert {name: round(number) for name, number in found.items()} == dict(wanted)


@given(st.lists(st.dictionaries(st.sampled_from(list(LEGEND)), st.floats(1e-6, 1.0), max_size=5), max_size=150))
def test_boxes_stay_inside_and_hide_nothing_unsettled(parts: list[dict[str, float]]) -> None:
    """Each part is drawn where it lies, within the picture; what is open or asked for again is seen, however short."""
    strip = [{name: share / max(1.0, sum(part.values())) for name, share in part.items()} for part in parts]
    drawn: dict[int, set[str]] = {at: set() for at in range(len(strip))}
    for name, left, top, width, height in boxes(strip):
        assert top >= 0
        assert top + height <= HEIGHT + 1.0  # rounded to half steps
        for at in range(left, left + width):
            assert name not in drawn[at]
            drawn[at].add(name)
    for at, shares in enumerate(strip):
        assert drawn[at] <= set(shares)
        assert {name for name in ("open", "waiting") if name in shares} <= drawn[at]


def test_a_series_that_holds_nothing_has_an_empty_strip() -> None:
    """No slot is expected: one part, of nothing."""
    assert strip_of(np.array([], dtype=np.int64), MINUTE_US, [], None, Interval(START, START + MINUTE_US)) == [{}]
    assert boxes([{}]) == []
    assert boxes([]) == []
