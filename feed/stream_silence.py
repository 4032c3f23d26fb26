"""Which symbol of a living stream has gone silent: each one's own pace, when REST is to be asked, what is known to be dead.

A connection that speaks proves nothing about each of its subscriptions: a venue may drop one and go on with the others. A
symbol is looked into when it said nothing for one timeframe and a grace of open market, or for longer where its own pace
is slower. REST tells whether it has traded since; only then it counts as silent. A thin symbol costs a question now and
then, ever more rarely, and raises nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from core.calendar import Calendar
from core.clock import HOUR_US, SECOND_US
from core.interval import Interval
from core.timeframe import Timeframe
from storage.series import SeriesRow

PACE: Final = 2  # times the longest pause lately seen: until then a pause is the symbol's own way
PAUSES: Final = 32  # that are remembered
LONGEST_PATIENCE_US: Final = 6 * HOUR_US
MOST_DOUBLINGS: Final = 4  # of the patience after answers that nothing was traded
LONGEST_RETRY_US: Final = HOUR_US // 4  # between two tries to subscribe a dead channel again
WEEK_US: Final = 7 * 86_400 * SECOND_US


class Channel(NamedTuple):
    """What is subscribed: a symbol's ticks, or its candles of one timeframe."""

    symbol: str
    timeframe: Timeframe | None = None

    def __str__(self) -> str:
        """Return its name for people."""
        return self.symbol if self.timeframe is None else f"{self.symbol} {self.timeframe}"


@dataclass(slots=True)
class Pulse:
    """How a channel speaks. Instants are ours.

    Attributes:
        length_us: the shortest timeframe that needs it.
        heard_us: its last news, or since when its subscription stands.
        asked_us: up to here REST knows of no trades.
        silent_us: since when it is known to be dead; None while it is not.
        lost_us: up to here the loss of a dead one is booked.
        retry_us: when a dead one is to be subscribed again.
    """

    length_us: int
    heard_us: int = 0
    asked_us: int = 0
    silent_us: int | None = None
    lost_us: int = 0
    retry_us: int = 0
    tries: int = 0
    _quiet: int = 0  # answers that nothing was traded, since the last news
    _pauses: deque[int] = field(default_factory=lambda: deque(maxlen=PAUSES))

    def hear(self, now_us: int, calendar: Calendar) -> None:
        """Take note of news."""
        pause = now_us - self.heard_us
        if pause > SECOND_US and self.silent_us is None and (pause < self.length_us or open_for_us(calendar, self.heard_us, now_us) >= pause):
            self._pauses.append(pause)
        self.heard_us, self.silent_us, self.tries, self._quiet = now_us, None, 0, 0

    def patience_us(self, grace_us: int) -> int:
        """Return how long it may be silent before somebody asks."""
        usual = max(self._pauses, default=0) * PACE
        least = self.length_us + grace_us
        return max(least, min(max(least, usual) << min(self._quiet, MOST_DOUBLINGS), LONGEST_PATIENCE_US))

    def is_odd(self, now_us: int, grace_us: int) -> bool:
        """Whether it is silent for longer than is its way, whatever the reason."""
        return now_us - self.heard_us > max(grace_us, max(self._pauses, default=0) * PACE)

    def was_quiet(self, now_us: int) -> None:
        """REST knows of no trades up to now."""
        self.asked_us, self._quiet = now_us, self._quiet + 1

    def try_again(self, now_us: int, grace_us: int) -> None:
        """It is subscribed again now; plan when the next time is due if that does not help."""
        wait = (self.length_us + grace_us) << min(self.tries, 10)
        self.retry_us, self.tries = now_us + max(self.length_us + grace_us, min(wait, LONGEST_RETRY_US)), self.tries + 1


class SilenceWatch:
    """The pulses of all channels of a connection's stream.

    Args:
        rows: its series.
        calendars: of their symbols.
        by_symbol: whether ticks are streamed, else candles of each series.
        grace_us: how long a silence may last beyond one timeframe.
    """

    def __init__(self, rows: list[SeriesRow], calendars: Mapping[str, Calendar], *, by_symbol: bool, grace_us: int) -> None:
        self._calendars, self._grace_us = calendars, grace_us
        self._pulses: dict[Channel, Pulse] = {}
        for row in rows:
            channel = Channel(row.series.symbol, None if by_symbol else row.series.timeframe)
            length = row.series.timeframe.length_us
            self._pulses[channel] = Pulse(min(length, self._pulses[channel].length_us if channel in self._pulses else length))

    def begin(self, now_us: int) -> None:
        """All subscriptions stand anew."""
        for pulse in self._pulses.values():
            pulse.heard_us, pulse.silent_us, pulse.tries = now_us, None, 0

    def hear(self, channel: Channel, now_us: int) -> bool:
        """Take note of news; True when the channel had been silent until now."""
        pulse = self._pulses[channel]
        was_silent = pulse.silent_us is not None
        pulse.hear(now_us, self._calendars[channel.symbol])
        return was_silent

    def of(self, channel: Channel) -> Pulse:
        """Return a channel's pulse."""
        return self._pulses[channel]

    def sure_until(self, symbol: str, now_us: int) -> int:
        """Return up to when nothing of a symbol is missing for certain: its last news where its silence is odd, else `now_us`."""
        pulses = [pulse for channel, pulse in self._pulses.items() if channel.symbol == symbol]
        return min(pulse.lost_us if pulse.silent_us is not None else pulse.heard_us if pulse.is_odd(now_us, self._grace_us) else now_us
                   for pulse in pulses)

    def due(self, now_us: int) -> list[Channel]:
        """Return the channels to look into: suspiciously quiet while their market is open, or dead and due for another try."""
        out = []
        for channel, pulse in self._pulses.items():
            if pulse.silent_us is not None:
                if now_us >= pulse.retry_us and closed_since(self._calendars[channel.symbol], now_us) is None:
                    out.append(channel)
                continue
            since, patience = max(pulse.heard_us, pulse.asked_us), pulse.patience_us(self._grace_us)
            if now_us - since > patience and open_for_us(self._calendars[channel.symbol], since, now_us) > patience:
                out.append(channel)
        return out

    def dead(self, now_us: int) -> dict[Channel, int]:
        """Return the channels that are silent in an open market, with since when."""
        return {channel: pulse.silent_us for channel, pulse in self._pulses.items()
                if pulse.silent_us is not None and closed_since(self._calendars[channel.symbol], now_us) is None}


def closed_since(calendar: Calendar, now_us: int) -> int | None:
    """Return since when a market is closed; None when it is open."""
    last = next(iter(calendar.closed(Interval(max(0, now_us - WEEK_US), now_us + 1))[-1:]), None)
    return last.start if last is not None and now_us in last else None


def open_for_us(calendar: Calendar, since_us: int, now_us: int) -> int:
    """Return for how long a market has been open without a break, since `since_us` at most; 0 when it is closed."""
    if closed_since(calendar, now_us) is not None:
        return 0
    return now_us - max([since_us, *(part.end for part in calendar.closed(Interval(since_us, now_us)))])


__all__ = ["Channel", "Pulse", "SilenceWatch", "closed_since", "open_for_us"]
