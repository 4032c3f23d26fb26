"""Connections as lists show them: with their health, a page at a time, found by words or by how they fare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from connections.accounts import AccountSeen, account_of
from connections.health import HealthRow, judge, read_health
from connections.rows import ConnectionName, ConnectionRow
from console import readings
from console.identity import Identity, not_there
from console.series_pages import Page, page_of
from core.clock import isoformat
from feed.context import Feed

Health = Literal["ok", "stale", "failing", "error", "inactive"]
STATES: Final[tuple[Health, ...]] = get_args(Health)
SHOWN: Final = 50  # on one page


@dataclass(frozen=True, slots=True)
class Listed:
    """A connection with its health; `account` is None where no credentials are stored (public data), and on pages that do not show it."""

    row: ConnectionRow
    health: HealthRow
    account: AccountSeen | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values; of credentials only the names of the stored fields."""
        row = self.row
        return {
            "slug": row.slug, "name": row.name, "type": row.type, "provider": row.provider, "base_url": row.base_url,
            "symbols": list(row.symbols), "timeframes": list(row.timeframes), "status": row.status,
            "status_reason": row.status_reason, "is_active": row.is_active, "owner": row.owner,
            "is_admin_owned": row.is_admin_owned, "last_error": row.last_error, "credential_fields": list(row.credential_fields),
            "settings": dict(row.settings), "last_connected": _iso(row.last_connected_at_us),
            "health": self.health.status, "health_reason": self.health.reason, "last_candle": _iso(self.health.last_candle_us),
            "lag_seconds": self.health.lag_seconds, "gaps": self.health.gaps,
            "account": None if self.account is None else self.account.kind,
        }


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """Which connections: those whose slug, name, provider or owner hold each word of `text`, and that fare so."""

    text: str = ""
    health: str | None = None


def listed(feed: Feed, who: Identity, only: ConnectionFilter | None = None, limit: int | None = None, skip: int = 0) -> list[Listed]:
    """Return the reader's connections that match with their health, by slug; all of them without a limit."""
    slugs = _found(feed, who, only or ConnectionFilter())
    return _with_account(feed, slugs[skip:None if limit is None else skip + limit])


def listed_page(feed: Feed, who: Identity, only: ConnectionFilter, number: int) -> Page[Listed]:
    """Return a page of the reader's connections that match, by slug; only of those shown it is looked at how they fare."""
    shown = page_of(_found(feed, who, only), number, SHOWN)
    return shown.showing([Listed(row, health) for row, health in _judged(feed, shown.found)])


def listed_one(feed: Feed, row: ConnectionRow) -> Listed:
    """Return a connection that the reader may see with its health."""
    found = _with_account(feed, [row.slug])
    if not found:
        raise not_there(row.slug)
    return found[0]


def health_of_all(feed: Feed) -> list[dict[str, Any]]:
    """Return what monitoring may know without a login: states and lags, no names of people, no errors, no addresses."""
    now_us = feed.clock.now_us()
    return [{"connection": row.slug, "status": row.status, "last_candle": _iso(row.last_candle_us), "lag_seconds": row.lag_seconds,
             "gaps": row.gaps, "stream": None if row.stream is None else row.stream.as_dict(now_us)}
            for row in read_health(feed.lake, now_us)]


def _found(feed: Feed, who: Identity, only: ConnectionFilter) -> list[str]:
    words = only.text.casefold().split()
    slugs = [row.slug for row in readings.seen_names(feed, who) if all(word in _words(row) for word in words)]
    if only.health is None:
        return slugs
    return [row.slug for row in read_health(feed.lake, feed.clock.now_us(), slugs) if row.status == only.health]


def _words(row: ConnectionName) -> str:
    return f"{row.slug} {row.name} {row.provider} {row.owner or ''}".casefold()


def _judged(feed: Feed, slugs: list[str]) -> list[tuple[ConnectionRow, HealthRow]]:
    with feed.lake.metadata.read() as tx:
        return judge(tx, feed.clock.now_us(), slugs)


def _with_account(feed: Feed, slugs: list[str]) -> list[Listed]:
    judged = _judged(feed, slugs)
    with feed.lake.metadata.read() as tx:
        return [Listed(row, health, account_of(tx, row.slug) if row.credential_fields else None) for row, health in judged]


def _iso(value: int | None) -> str | None:
    return None if value is None else isoformat(value)
