"""What the pipeline asks of the house around it; feed/ fills these in, so that plug-ins need no storage and no provider."""

from __future__ import annotations

from typing import Protocol

import polars as pl

from core.clock import Clock
from core.series import Series


class Resources(Protocol):
    """What a definition may name and what is copied into its version when it is saved."""

    def read(self, kind: str, owner: str, name: str) -> str:
        """Return the stored text of `name`, e.g. kind `filter_strategy`; NotFoundError when there is none."""


class Services(Protocol):
    """What an executor may use in a live run."""

    @property
    def clock(self) -> Clock:
        """The present."""

    def candles_after(self, series: Series, ts_us: int, count: int) -> pl.DataFrame:
        """Return up to `count` stored candles that open after `ts_us`, ascending."""
