"""What lets people in: sessions, API tokens, one-time codes, and the throttle of failed logins.

Each is random bytes; the store holds their SHA-256 only, so that a copy of the database opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, case, delete, not_, select

from core.clock import DAY_US, HOUR_US, MINUTE_US, has_come, isoformat
from core.errors import CredentialsRefusedError, InputError, NotFoundError, RateLimitedError
from core.secrets import Secret
from storage.metadata.tables_people import api_tokens, login_throttles, one_time_codes, sessions
from storage.people import UserRow, user_of_id
from storage.statements import insert_into

SCOPES: Final = ("read", "manage")
IDLE_US, ABSOLUTE_US = 8 * HOUR_US, 7 * DAY_US  # a session ends so long after its last use, and after its beginning
SKEW_US = 5 * MINUTE_US  # between the clocks of several consoles
SEEN_EVERY_US = MINUTE_US  # how exactly its last use is kept
CODE_US = DAY_US
FREE_TRIES, WAIT_MAX_US = 5, 15 * MINUTE_US
TOKEN_PREFIX: Final = "clk_"  # noqa: S105  not a secret: tells tokens from other text
TOKEN_DAYS_MAX = 366


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A live session with its user; `csrf` must come back with each change."""

    user: UserRow
    csrf: str
    seen_at_us: int


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An API token without its value."""

    id: int
    user_id: int
    name: str
    hint: str
    scopes: tuple[str, ...]
    expires_at_us: int
    created_at_us: int
    used_at_us: int | None
    revoked_at_us: int | None

    def as_dict(self, now_us: int) -> dict[str, Any]:
        """Return it as JSON-ready values; `state` is live, expired or revoked."""
        state = "revoked" if self.revoked_at_us is not None else "expired" if self.expires_at_us <= now_us else "live"
        return {"id": self.id, "name": self.name, "hint": self.hint, "scopes": list(self.scopes),
                "expires": isoformat(self.expires_at_us), "state": state}


def open_session(tx: Connection, user: UserRow, now_us: int) -> Secret:
    """Begin a session; return the cookie's value. Sessions that have ended are cleared away."""
    value = secrets.token_urlsafe(32)
    tx.execute(delete(sessions).where(not_(_lives(now_us))))
    tx.execute(sessions.insert().values(
        digest=digest_of(value), user_id=user.id, csrf=secrets.token_urlsafe(32), created_at_us=now_us, seen_at_us=now_us))
    return Secret(value)


def find_session(tx: Connection, value: str, now_us: int) -> SessionRow | None:
    """Return the live session of a cookie, None when it has ended or its user may not sign in."""
    row = tx.execute(select(sessions).where(sessions.c.digest == digest_of(value), _lives(now_us))).mappings().first()
    if row is None:
        return None
    user = user_of_id(tx, row["user_id"])
    return None if not user.is_active else SessionRow(user, row["csrf"], row["seen_at_us"])


def _lives(now_us: int) -> ColumnElement[bool]:
    """The sessions that have not ended; one from ahead of time was begun by a clock that was wrong, and would hardly ever end."""
    kept = sessions.c
    return (kept.seen_at_us >= now_us - IDLE_US) & kept.created_at_us.between(now_us - ABSOLUTE_US, now_us + SKEW_US)


def touch_session(tx: Connection, value: str, now_us: int) -> None:
    """Note that a session is used."""
    tx.execute(sessions.update().where(sessions.c.digest == digest_of(value)).values(seen_at_us=now_us))


def close_session(tx: Connection, value: str) -> None:
    """End one session."""
    tx.execute(delete(sessions).where(sessions.c.digest == digest_of(value)))


def close_sessions(tx: Connection, user_id: int) -> None:
    """End all sessions of a user: after a new password, another role, or when they are switched off."""
    tx.execute(delete(sessions).where(sessions.c.user_id == user_id))


def list_sessions(tx: Connection, user_id: int, value: str, now_us: int) -> list[tuple[int, int, bool]]:
    """Return a user's live sessions, last used first: when each began, when it was last used, whether it is that of `value`."""
    kept = sessions.c
    rows = tx.execute(select(kept.created_at_us, kept.seen_at_us, kept.digest).where(
        kept.user_id == user_id, _lives(now_us)).order_by(kept.seen_at_us.desc()))
    return [(created_us, seen_us, digest == digest_of(value)) for created_us, seen_us, digest in rows]


def close_other_sessions(tx: Connection, user_id: int, value: str) -> None:
    """End all sessions of a user but that of `value`."""
    tx.execute(delete(sessions).where(sessions.c.user_id == user_id, sessions.c.digest != digest_of(value)))


def create_token(tx: Connection, user: UserRow, name: str, scopes: Sequence[str], days: int, now_us: int) -> tuple[TokenRow, Secret]:  # noqa: PLR0917  one word for each column
    """Make an API token; its value is returned here and never again.

    Raises:
        InputError: a scope is unknown, or it would live too long.
    """
    for scope in scopes:
        if scope not in SCOPES:
            raise InputError("scope", scope, SCOPES, "choose one or both")
    if not scopes:
        raise InputError("scope", "none", SCOPES, "choose one or both")
    if not 1 <= days <= TOKEN_DAYS_MAX:
        raise InputError("days", days, f"1 to {TOKEN_DAYS_MAX}", "make a new token when it has expired")
    if not name or len(name) > 100:
        raise InputError("token name", name[:80], "1 to 100 characters", "say what it is for")
    value = TOKEN_PREFIX + secrets.token_urlsafe(32)
    digest = digest_of(value)
    tx.execute(api_tokens.insert().values(
        user_id=user.id, name=name, digest=digest, hint=value[-4:], scopes=sorted(set(scopes)), expires_at_us=now_us + days * DAY_US,
        created_at_us=now_us))
    return next(row for row in list_tokens(tx, user.id) if row.hint == value[-4:] and row.created_at_us == now_us), Secret(value)


def list_tokens(tx: Connection, user_id: int | None = None) -> list[TokenRow]:
    """Return the tokens of a user, or all, newest first."""
    query = select(api_tokens).order_by(api_tokens.c.id.desc())
    rows = tx.execute(query if user_id is None else query.where(api_tokens.c.user_id == user_id)).mappings()
    return [TokenRow(row["id"], row["user_id"], row["name"], row["hint"], tuple(row["scopes"]), row["expires_at_us"],
                     row["created_at_us"], row["used_at_us"], row["revoked_at_us"]) for row in rows]


def revoke_token(tx: Connection, token_id: int, user_id: int | None, now_us: int) -> TokenRow:
    """End a token; NotFoundError when it is not there, or not that user's."""
    found = [row for row in list_tokens(tx, user_id) if row.id == token_id]
    if not found:
        raise NotFoundError(f"no token {token_id}; `candlelake tokens list` shows those there are")
    if found[0].revoked_at_us is None:
        tx.execute(api_tokens.update().where(api_tokens.c.id == token_id).values(revoked_at_us=now_us))
    return next(row for row in list_tokens(tx, found[0].user_id) if row.id == token_id)


def find_token(tx: Connection, value: str, now_us: int) -> tuple[TokenRow, UserRow] | None:
    """Return a live token with its user, None when it is unknown, expired, revoked, or its user may not sign in."""
    if not value.startswith(TOKEN_PREFIX):
        return None
    found = tx.execute(select(api_tokens.c.id, api_tokens.c.user_id).where(api_tokens.c.digest == digest_of(value))).first()
    if found is None:
        return None
    row = next(item for item in list_tokens(tx, found.user_id) if item.id == found.id)
    user = user_of_id(tx, row.user_id)
    if row.revoked_at_us is not None or row.expires_at_us <= now_us or not user.is_active:
        return None
    return row, user


def make_code(tx: Connection, purpose: str, user_id: int | None, now_us: int) -> Secret:
    """Make a one-time code that lives a day; an earlier one of the same purpose and person is void."""
    tx.execute(delete(one_time_codes).where(
        (one_time_codes.c.expires_at_us <= now_us)
        | ((one_time_codes.c.purpose == purpose) & one_time_codes.c.user_id.is_not_distinct_from(user_id))))
    value = secrets.token_hex(16)
    tx.execute(one_time_codes.insert().values(
        digest=digest_of(value), purpose=purpose, user_id=user_id, expires_at_us=now_us + CODE_US))
    return Secret(value)


def use_code(tx: Connection, purpose: str, value: str, now_us: int) -> int:
    """Use a one-time code up; return the user it is for, 0 for the first admin's.

    Raises:
        CredentialsRefusedError: unknown, used, or too old.
    """
    row = tx.execute(select(one_time_codes).where(
        one_time_codes.c.digest == digest_of(value.strip()), one_time_codes.c.purpose == purpose,
        one_time_codes.c.expires_at_us > now_us)).mappings().first()
    if row is None or not tx.execute(delete(one_time_codes).where(one_time_codes.c.digest == row["digest"])).rowcount:
        raise CredentialsRefusedError("the code is not right, was used, or is older than a day; have a new one printed")
    return int(row["user_id"] or 0)


def check_throttle(tx: Connection, keys: Collection[str], now_us: int) -> None:
    """Raise RateLimitedError while a name or an address has to wait after failed logins."""
    rows = tx.execute(select(login_throttles).where(login_throttles.c.key.in_(keys))).mappings().all()
    until = [row["last_at_us"] + wait_us(row["failures"]) for row in rows]
    waits = [at - now_us for at in until if not has_come(at, now_us, WAIT_MAX_US)]
    if waits:
        raise RateLimitedError("too many failed logins; wait and try again", retry_after=max(waits) / 1e6)


def wait_us(failures: int) -> int:
    """Return how long to wait after so many failures in a row: nothing at first, then doubling up to a quarter hour."""
    return 0 if failures < FREE_TRIES else min(WAIT_MAX_US, 2 ** min(failures - FREE_TRIES, 20) * 1_000_000)


def note_failure(tx: Connection, keys: Collection[str], now_us: int) -> None:
    """Count a failed login against a name and an address; a quarter hour without one forgets."""
    kept = login_throttles.c
    failures = case((kept.last_at_us < now_us - WAIT_MAX_US, 1), else_=kept.failures + 1)
    for key in sorted(keys):  # one order for all: no two logins wait for each other
        tx.execute(insert_into(tx, login_throttles).values(key=key, failures=1, last_at_us=now_us).on_conflict_do_update(
            index_elements=["key"], set_={"failures": failures, "last_at_us": now_us}))


def forget_failures(tx: Connection, key: str) -> None:
    """Begin to count anew after a login that succeeded."""
    tx.execute(delete(login_throttles).where(login_throttles.c.key == key))


def digest_of(value: str) -> str:
    """Return the SHA-256 under which a random value is stored; no salt, for it has 256 bits of its own."""
    return hashlib.sha256(value.encode()).hexdigest()


def same(left: str, right: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(left.encode(), right.encode())
