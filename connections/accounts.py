"""Which account stands behind a connection, a practice one or real money: as its provider said last, until its login changes.

Nothing is stored for it: the log holds what tests were told, and which changes came after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, select

from core.clock import isoformat
from providers.base import AccountInfo
from storage.metadata.tables import connection_logs

AccountKind = Literal["demo", "real", "unknown"]
_DECIDES: Final = frozenset({"credentials", "base_url", "config"})  # another one of these may be another account
_LOOKED_AT: Final = 500  # newest log rows; who asks no provider for so long is told that nobody knows


@dataclass(frozen=True, slots=True)
class AccountSeen:
    """An account's kind and when the provider said it; `unknown` where nobody asked since the login changed, or it does not say."""

    kind: AccountKind
    seen_at_us: int | None = None

    def line(self, slug: str) -> str:
        """Return one line for a person."""
        if self.seen_at_us is None:
            return f"account unknown: `candlelake connections test {slug}` asks {slug} for it"
        told = f"as {slug} said on {isoformat(self.seen_at_us)}"
        if self.kind == "unknown":
            return f"account unknown: {slug} does not say which kind it is; take it for real money"
        return f"REAL account, {told}" if self.kind == "real" else f"demo account, {told}"


def kind_of(account: AccountInfo) -> AccountKind:
    """Return what a provider's answer says of the account."""
    if account.is_demo is None:
        return "unknown"
    return "demo" if account.is_demo else "real"


def account_of(tx: Connection, slug: str) -> AccountSeen:
    """Return what is known of the account behind a connection."""
    log = connection_logs.c
    rows = tx.execute(select(log.action, log.metadata, log.created_at_us).where(
        log.slug == slug, log.action.in_(("create", "update", "test"))).order_by(log.created_at_us.desc(), log.id.desc()).limit(_LOOKED_AT))
    for action, told, at_us in rows:
        if action == "test" and told.get("account") in {"demo", "real", "unknown"}:
            return AccountSeen(told["account"], at_us)
        if action == "create" or (action == "update" and not _DECIDES.isdisjoint(told.get("changed", _DECIDES))):
            break
    return AccountSeen("unknown")
