"""Where a provider meets the lake: fetch, backfill, repair and upkeep as plain functions, without Prefect."""

from feed.context import Feed, open_feed
from feed.result import Progress, RunResult, SeriesResult

__all__ = ["Feed", "Progress", "RunResult", "SeriesResult", "open_feed"]
