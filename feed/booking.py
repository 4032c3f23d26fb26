"""Turns what an answer shows to be absent into entries of the gap ledger: cause, proof, attempts, next try."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.clock import Clock, isoformat
from core.errors import CandlelakeError
from core.interval import Interval
from core.slots import Slots
from core.timeframe import Grid
from feed.planning import OBSERVATIONS_APART_US, STANDING_APART_US, STANDING_US, next_try_us, not_in, slot_runs
from providers.base import CandlePage
from storage.ledger import Gap

WITHHELD = "withheld"  # in a proof: why the provider's candle is not stored though it shows one


@dataclass(slots=True)
class Booker:
    """Books gaps of one series. `booked` is what the ledger held when the run began, `stored` what the lake held."""

    series_id: int
    grid: Grid
    clock: Clock
    stored: Slots
    booked: Sequence[Gap]

    def absent(self, slots: Slots, answer: CandlePage, *, both_sides: bool, adds_up: str | None = None) -> list[Gap]:
        """Book slots that an answer does not hold.

        With real candles on both sides in one answer, or a longer timeframe (`adds_up`) whose volume is whole without
        them, seen twice and apart in time, it is `no_trade` and final; anything less is `provider_empty` and asked for again.
        """
        proof: dict[str, object] = {"request": answer.request_id, "both_sides": both_sides}
        if adds_up is not None:
            proof["adds_up"] = adds_up
        is_proof = both_sides or adds_up is not None
        return [self._twice(run, "no_trade", proof, answer) if is_proof else self._retried(run, "provider_empty", proof)
                for run in self._runs(slots)]

    def before_first(self, slots: Slots, answer: CandlePage, first_us: int) -> list[Gap]:
        """Book slots before the first candle that a provider shows: `before_listing` when it shows the same twice."""
        proof: dict[str, object] = {"request": answer.request_id, "first": isoformat(first_us)}
        return [self._twice(run, "before_listing", proof, answer) for run in self._runs(slots)]

    def delisted(self, slots: Slots, delisted_us: int) -> list[Gap]:
        """Book slots after the symbol left the provider's list: final."""
        return [self._gap(run, "after_delisting", None, {"delisted": isoformat(delisted_us)}) for run in self._runs(slots)]

    def listed_later(self, slots: Slots, listed_us: int) -> list[Gap]:
        """Book slots from before the listing that the provider itself names: final."""
        return [self._gap(run, "before_listing", None, {"listed": isoformat(listed_us)}) for run in self._runs(slots)]

    def waiting(self, slots: Slots) -> list[Gap]:
        """Book slots that nobody has asked for yet: due at once."""
        return [Gap(self.series_id, run, "unknown", attempts=0, next_try_us=self.clock.now_us(), proof={"waiting": True})
                for run in self._runs(slots)]

    def not_reached(self, slots: Slots, answer: CandlePage) -> list[Gap]:
        """Book slots that a provider's clock has been past and is not any more: asked for again."""
        proof: dict[str, object] = {"request": answer.request_id, "server_time": isoformat(answer.server_us)}
        return [self._retried(run, "unknown", proof) for run in self._runs(slots)]

    def out_of_reach(self, slots: Slots, answer: CandlePage) -> list[Gap]:
        """Book slots older than all that the provider keeps: final."""
        proof: dict[str, object] = {"request": answer.request_id, "reachable_from": isoformat(answer.reachable_from or 0)}
        return [self._gap(run, "out_of_reach", None, proof) for run in self._runs(slots)]

    def before_listing(self, slots: Slots, timeframe: str, first_us: int, answer: CandlePage) -> list[Gap]:
        """Book slots older than the first candle that a longer timeframe shows: `before_listing` when it shows the same twice."""
        proof: dict[str, object] = {"timeframe": timeframe, "first": isoformat(first_us), "request": answer.request_id}
        return [self._twice(run, "before_listing", proof, answer) for run in self._runs(slots)]

    def nowhere(self, slots: Slots, timeframe: str, next_us: int | None) -> list[Gap]:
        """Book a long range in which the provider's own longer timeframe shows nothing either."""
        proof: dict[str, object] = {"timeframe": timeframe, "next": None if next_us is None else isoformat(next_us)}
        return [self._retried(run, "provider_empty", proof) for run in self._runs(slots)]

    def closed(self, slots: Slots, reasons: Sequence[tuple[Interval, str]]) -> list[Gap]:
        """Book slots at which the market is closed: final. `reasons` are the calendar's, ascending."""
        out = []
        for part, why in reasons:
            first, last = np.searchsorted(slots, [part.start, part.end])
            out += [self._gap(run, "market_closed", None, {"calendar": why}) for run in self._runs(slots[first:last])]
        return out

    def quarantined(self, slots: Slots, answer: CandlePage) -> list[Gap]:
        """Book slots whose row may not be stored: the provider may mend it."""
        proof: dict[str, object] = {"request": answer.request_id, "quarantined": True}
        return [self._retried(run, "unknown", proof) for run in self._runs(slots)]

    def withheld(self, slots: Slots) -> list[Gap]:
        """Book slots for which the broker's clock is no ground to store: until other rules are in force."""
        proof: dict[str, object] = {
            WITHHELD: "the broker's clock showed another hour than its rules", "see": "candlelake clock SLUG; --set says the rules"}
        return [self._gap(run, "unknown", None, proof) for run in self._runs(slots)]

    def failed(self, slots: Slots, error: CandlelakeError) -> list[Gap]:
        """Book slots for which no usable answer came."""
        proof: dict[str, object] = {"error": type(error).__name__, "message": str(error)[:300]}
        return [self._retried(run, "fetch_failed", proof) for run in self._runs(slots)]

    def left_of(self, slot: int, limit: int) -> int:
        """Return where a request for `slot` begins: for a booked slot at the stored candle before it, for proof."""
        place = int(np.searchsorted(self.stored, slot)) - 1
        if place < 0 or not self._is_booked(slot):
            return slot
        left = int(self.stored[place])
        return left if slot - left < limit // 2 * self.grid.timeframe.length_us else slot

    def right_of(self, slot: int, limit: int) -> int:
        """Return where requests up to `slot` end: for a booked slot behind the stored candle after it, for proof."""
        place = int(np.searchsorted(self.stored, slot, side="right"))
        if place == len(self.stored) or not self._is_booked(slot):
            return self.grid.next(slot)
        right = int(self.stored[place])
        near = right - slot < limit // 2 * self.grid.timeframe.length_us
        return self.grid.next(right if near else slot)

    def _is_booked(self, slot: int) -> bool:
        return self._earlier(Interval(slot, slot)) is not None

    def _twice(self, run: Interval, cause: str, proof: dict[str, object], answer: CandlePage) -> Gap:
        """Book a cause that takes two sights apart in time, by our clock and by the provider's: `provider_empty` the first time."""
        now, server = self.clock.now_us(), answer.server_us
        earlier = self._earlier(run)
        known = {} if earlier is None else earlier.proof
        sighted, there = known.get("sighted_us"), known.get("sighted_server_us")
        there = server - OBSERVATIONS_APART_US if not isinstance(there, int) else there  # a sight from before that was kept
        stands = abs(server - there) <= STANDING_US
        if not isinstance(sighted, int) or sighted > now or (there > server and not stands) or known.get("first") != proof.get("first"):
            return self._retried(run, "provider_empty", proof | {"sighted_us": now, "sighted_server_us": server})
        is_archive = stands and now - sighted >= STANDING_APART_US
        if not is_archive and min(now - sighted, server - there) < OBSERVATIONS_APART_US:  # one clock alone may have jumped
            return self._retried(run, "provider_empty", proof | {"sighted_us": sighted, "sighted_server_us": there})
        return self._gap(run, cause, None, proof | {
            "first_request": known.get("request"), "sighted_us": sighted, "again_us": now})

    def _retried(self, run: Interval, cause: str, proof: dict[str, object]) -> Gap:
        earlier = self._earlier(run)
        tried = 1 if earlier is None else earlier.attempts + 1
        return self._gap(run, cause, next_try_us(tried, self.clock.now_us()), proof)

    def _gap(self, run: Interval, cause: str, next_try: int | None, proof: dict[str, object]) -> Gap:
        # One attempt: the ledger adds it to what is booked there. First and last seen are the ledger's too.
        return Gap(self.series_id, run, cause, next_try_us=next_try, proof=proof)

    def _earlier(self, run: Interval) -> Gap | None:
        place = bisect_right(self.booked, run.start, key=lambda gap: gap.interval.start) - 1
        if place < 0 or self.booked[place].interval.end < run.end:
            return None
        return self.booked[place]

    def _runs(self, slots: Slots) -> list[Interval]:
        """Return the runs of slots that are not stored, cut where one booked gap ends: each keeps its own history."""
        out = []
        for run in slot_runs(not_in(slots, self.stored), self.grid):
            first = bisect_right(self.booked, run.start, key=lambda gap: gap.interval.end)
            last = bisect_left(self.booked, run.end, key=lambda gap: gap.interval.start)
            edges = {edge for gap in self.booked[first:last] for edge in (gap.interval.start, gap.interval.end)}
            cuts = [run.start, *sorted(edge for edge in edges if run.start < edge < run.end), run.end]
            out += [Interval(a, b) for a, b in itertools.pairwise(cuts)]
        return out
