"""Which user an identity at another provider belongs to. Each function takes an open transaction."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from storage.metadata.tables_identities import user_identities
from storage.metadata.tables_people import users
from storage.people import UserRow, user_of_id


def find_user(tx: Connection, issuer: str, subject: str) -> UserRow | None:
    """Return the user who is linked to an identity, None when nobody is."""
    user_id = tx.execute(select(user_identities.c.user_id).where(
        user_identities.c.issuer == issuer, user_identities.c.subject == subject)).scalar_one_or_none()
    return None if user_id is None else user_of_id(tx, user_id)


def user_of_email(tx: Connection, email: str) -> UserRow | None:
    """Return the one user whom an admin gave this e-mail address; None when there is none, or more than one."""
    found = tx.execute(select(users.c.id).where(func.lower(users.c.email) == email.strip().lower())).scalars().all()
    return user_of_id(tx, found[0]) if len(found) == 1 else None


def link(tx: Connection, issuer: str, subject: str, user: UserRow, now_us: int) -> None:
    """Let an identity sign in as a user from now on."""
    tx.execute(user_identities.insert().values(issuer=issuer, subject=subject, user_id=user.id, linked_at_us=now_us))
