"""What a run says at its end: complete, complete with booked gaps, or failed; never silently short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from core.errors import CandlelakeError, LeaseHeldError
from core.interval import Interval

Status = Literal["complete", "complete_with_gaps", "failed"]
Progress = Callable[[int, int, str], None]  # done, total, what

EXIT_CODES: dict[Status, int] = {"complete": 0, "complete_with_gaps": 3, "failed": 1}


def no_progress(done: int, total: int, what: str) -> None:
    """Show nothing."""


@dataclass(slots=True)
class SeriesResult:
    """What a run did for one series (or for a whole connection that could not be opened: `series` is its slug)."""

    series: str
    stored: int = 0
    revised: int = 0
    quarantined: int = 0
    gaps: int = 0  # booked ranges that a person may wonder about, inside what this run looked at
    absent: dict[str, int] = field(default_factory=dict)  # booked slots by cause: of a backfill's range, or as a fetch booked them
    requests: int = 0
    compared: int = 0  # stored candles that an audit asked for again
    vanished: int = 0  # of these, those that the provider shows no longer; they stay stored
    changed: Interval | None = None  # where candles were stored or revised, first to last open time (a range for hints)
    skipped: str | None = None  # why nothing was tried, e.g. another run has it
    error: CandlelakeError | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON-ready values."""
        return {
            "series": self.series, "stored": self.stored, "revised": self.revised, "quarantined": self.quarantined,
            "gaps": self.gaps, "absent": self.absent, "requests": self.requests, "skipped": self.skipped, "compared": self.compared,
            "vanished": self.vanished, "error": None if self.error is None else str(self.error),
        }


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run. `message` is one line for a person."""

    run_id: str
    status: Status
    message: str
    series: Sequence[SeriesResult] = field(default_factory=tuple)

    @property
    def stored(self) -> int:
        """New candles."""
        return sum(item.stored for item in self.series)

    @property
    def revised(self) -> int:
        """Stored candles that the provider has changed."""
        return sum(item.revised for item in self.series)

    @property
    def quarantined(self) -> int:
        """Rows that may not be stored."""
        return sum(item.quarantined for item in self.series)

    @property
    def gaps(self) -> int:
        """Booked ranges without candles that are not explained for good."""
        return sum(item.gaps for item in self.series)

    @property
    def exit_code(self) -> int:
        """0 complete, 3 complete with booked gaps, 1 failed."""
        return EXIT_CODES[self.status]

    @property
    def errors(self) -> list[CandlelakeError]:
        """The errors of the series that failed, in their order."""
        return [item.error for item in self.series if item.error is not None]

    @property
    def only_skipped(self) -> bool:
        """Whether other runs hold all that this run was to do."""
        return bool(self.series) and all(item.skipped for item in self.series)

    def as_dict(self) -> dict[str, object]:
        """Return the result as JSON-ready values."""
        return {
            "status": self.status, "stored": self.stored, "revised": self.revised, "gaps": self.gaps,
            "quarantined": self.quarantined, "message": self.message, "run_id": self.run_id,
            "series": [item.as_dict() for item in self.series],
        }


def conclude(run_id: str, what: str, series: Sequence[SeriesResult]) -> RunResult:
    """Return the end of a run from what happened to each series."""
    failed = [item for item in series if item.error is not None and not isinstance(item.error, LeaseHeldError)]
    gaps = sum(item.gaps for item in series)
    counts = f"{sum(i.stored for i in series)} candles stored, {sum(i.revised for i in series)} revised"
    quarantined = sum(item.quarantined for item in series)
    if quarantined:
        counts += f", {quarantined} rows quarantined"
    skipped = [item for item in series if item.skipped]
    if skipped:
        counts += f", {len(skipped)} skipped ({skipped[0].series}: {skipped[0].skipped})"
    absent = sum((Counter(item.absent) for item in series), Counter[str]())
    if absent:
        counts += f"; absent: {', '.join(f'{count} {cause}' for cause, count in absent.most_common())}"
    if failed:
        first = failed[0]
        text = f"{what} failed for {len(failed)} of {len(series)}: {first.series}: {first.error}; {counts}"
        return RunResult(run_id, "failed", text, tuple(series))
    if gaps:
        return RunResult(
            run_id, "complete_with_gaps", f"{what} complete with {gaps} booked gaps: {counts}", tuple(series))
    return RunResult(run_id, "complete", f"{what} complete: {counts}", tuple(series))
