"""Users: who they are, their role, their permissions, their password. Each function takes an open transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, func, select

from core.errors import InputError, NotFoundError, NotPermittedError
from core.secrets import Secret
from storage.metadata.tables_people import user_permissions, users

Role = Literal["super_admin", "staff_admin", "user"]
ROLES: Final[tuple[Role, ...]] = ("super_admin", "staff_admin", "user")
MANAGE_CONNECTIONS: Final = "manage-data-connections"
PERMISSIONS: Final = (MANAGE_CONNECTIONS,)
PASSWORD_MIN, PASSWORD_MAX = 12, 200
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,61}[a-z0-9]")
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's least for argon2id: a login, not a load
# Checked when there is no such user, so that a wrong name takes as long as a wrong password.
_NOBODY: Final = _HASHER.hash("nobody has this password")
# Lists of common passwords are short ones: of twelve characters and more they are words with digits, runs of keys, and repetitions.
_COMMON: Final = ("password", "passwort", "passw0rd", "qwerty", "letmein", "123456", "candlelake", "admin", "administrator", "iloveyou", "welcome",
                  "monkey", "dragon", "football", "baseball", "sunshine", "princess", "superman", "trustno", "starwars", "whatever", "master",
                  "shadow", "michael", "jennifer", "charlie", "computer", "changeme", "default", "secret", "bitcoin", "trading")
_RUNS: Final = ("abcdefghijklmnopqrstuvwxyz", "0123456789" * 3, "qwertyuiopasdfghjklzxcvbnm", "qwertzuiopasdfghjklyxcvbnm",
                "1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5y6u7i8o9p0", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "qazwsxedcrfvtgbyhnujm")
_REPEATED: Final = re.compile(r"(.{1,8}?)\1+.{0,4}")


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as stored, without the password's hash."""

    id: int
    name: str
    role: Role
    email: str | None
    is_active: bool
    is_email_verified: bool
    is_kyc_done: bool
    has_password: bool
    permissions: frozenset[str]
    created_at_us: int

    @property
    def is_admin(self) -> bool:
        """Whether the user sees all connections: a super admin, or a staff admin with the permission."""
        return self.role == "super_admin" or (self.role == "staff_admin" and MANAGE_CONNECTIONS in self.permissions)

    def as_dict(self) -> dict[str, Any]:
        """Return what may be told of them, as JSON-ready values."""
        return {"name": self.name, "role": self.role, "is_active": self.is_active, "is_email_verified": self.is_email_verified,
                "is_kyc_done": self.is_kyc_done, "has_password": self.has_password, "permissions": sorted(self.permissions)}


def add_user(tx: Connection, name: str, role: str, now_us: int, email: str | None = None) -> UserRow:
    """Add a user who has no password yet.

    Raises:
        InputError: the name or role is not allowed, or the name is taken.
    """
    if not _NAME.fullmatch(name):
        raise InputError("user name", name[:80], "a-z first, then a-z, 0-9, . _ -, 2 to 63 characters", "choose another")
    if role not in ROLES:
        raise InputError("role", role, ROLES, "choose one of them")
    if tx.execute(select(users.c.id).where(users.c.name == name)).first():
        raise InputError("user name", name, "one that is not taken", "choose another")
    tx.execute(users.insert().values(
        name=name, role=role, email=email, is_active=True, is_email_verified=False, is_kyc_done=False,
        created_at_us=now_us, updated_at_us=now_us))
    return get_user(tx, name)


def get_user(tx: Connection, name: str) -> UserRow:
    """Return a user; NotFoundError when there is none of that name."""
    found = list_users(tx, name)
    if not found:
        raise NotFoundError(f"no user {name[:80]!r}; `candlelake users list` shows those there are")
    return found[0]


def list_users(tx: Connection, name: str | None = None) -> list[UserRow]:
    """Return all users by name, or the one of that name."""
    query = select(users).order_by(users.c.name)
    rows = tx.execute(query if name is None else query.where(users.c.name == name)).mappings().all()
    if len(rows) == 1:
        return [_row(tx, rows[0])]
    held: dict[int, set[str]] = {}
    for user_id, permission in tx.execute(select(user_permissions.c.user_id, user_permissions.c.permission)):
        held.setdefault(user_id, set()).add(permission)
    return [_with(row, held.get(row["id"], ())) for row in rows]


def user_of_id(tx: Connection, user_id: int) -> UserRow:
    """Return the user of an id; NotFoundError when they are gone."""
    row = tx.execute(select(users).where(users.c.id == user_id)).mappings().first()
    if row is None:
        raise NotFoundError("this user is gone")
    return _row(tx, row)


def has_users(tx: Connection) -> bool:
    """Return whether anybody was ever added."""
    return bool(tx.execute(select(func.count()).select_from(users)).scalar_one())


def set_password(tx: Connection, name: str, password: Secret, now_us: int) -> None:
    """Give a user a password.

    Raises:
        InputError: too short, too long, or easily guessed; the message never holds it.
    """
    get_user(tx, name)
    check_password(password, name)
    tx.execute(users.update().where(users.c.name == name).values(
        password_hash=_HASHER.hash(password.reveal()), updated_at_us=now_us))


def check_password(password: Secret, name: str) -> None:
    """Raise InputError when a password is not one that we take."""
    text = password.reveal()
    if not PASSWORD_MIN <= len(text) <= PASSWORD_MAX:
        raise InputError("password", f"{len(text)} characters", f"{PASSWORD_MIN} to {PASSWORD_MAX}", "choose a longer one")
    plain = text.lower()
    holds_name = len(name) > 3 and name in plain  # "eve" is in seven
    if holds_name or len(set(plain)) < 5 or any(plain.strip("0123456789!.-_ ") == word for word in _COMMON) or _is_run(plain):
        raise InputError("password", "one that is easily guessed", "a phrase of several words", "choose another")


def _is_run(plain: str) -> bool:
    """Whether a password is keys in a row, forwards or backwards, or one piece again and again; a few digits after it do not count."""
    cores = {plain, plain.rstrip("0123456789!.-_ ")}
    return _REPEATED.fullmatch(plain) is not None or any(
        len(core) > 5 and any(core in run or core in run[::-1] for run in _RUNS) for core in cores)


def verify_password(tx: Connection, name: str, password: Secret) -> UserRow | None:
    """Return the user when the password is right; takes as long when there is no such user."""
    row = tx.execute(select(users).where(users.c.name == name)).mappings().first()
    known = None if row is None else row["password_hash"]
    try:
        _HASHER.verify(known or _NOBODY, password.reveal()[:PASSWORD_MAX + 1])
    except (VerificationError, InvalidHashError):
        return None
    return None if row is None or known is None else _row(tx, row)


def change_user(tx: Connection, name: str, now_us: int, **values: Any) -> UserRow:
    """Change role, email or a flag of a user.

    Raises:
        InputError: a value is not allowed.
        NotPermittedError: nobody could administer the house afterwards.
    """
    row = get_user(tx, name)
    if values.get("role", row.role) not in ROLES:
        raise InputError("role", values["role"], ROLES, "choose one of them")
    stays = values.get("role", row.role) == "super_admin" and values.get("is_active", row.is_active)
    if row.role == "super_admin" and row.is_active and not stays and _super_admins(tx) == 1:
        raise NotPermittedError(f"{name} is the last super admin; add another one first")
    tx.execute(users.update().where(users.c.name == name).values(**values, updated_at_us=now_us))
    return get_user(tx, name)


def grant(tx: Connection, name: str, permissions: Iterable[str]) -> UserRow:
    """Give a user permissions; those that they have stay."""
    row = get_user(tx, name)
    for permission in _known(permissions):
        if permission not in row.permissions:
            tx.execute(user_permissions.insert().values(user_id=row.id, permission=permission))
    return get_user(tx, name)


def revoke(tx: Connection, name: str, permissions: Iterable[str]) -> UserRow:
    """Take permissions from a user."""
    row = get_user(tx, name)
    tx.execute(user_permissions.delete().where(
        user_permissions.c.user_id == row.id, user_permissions.c.permission.in_(_known(permissions))))
    return get_user(tx, name)


def _known(permissions: Iterable[str]) -> list[str]:
    names = list(permissions)
    for name in names:
        if name not in PERMISSIONS:
            raise InputError("permission", name, PERMISSIONS, "choose one of them")
    return names


def _super_admins(tx: Connection) -> int:
    return int(tx.execute(select(func.count()).select_from(users).where(
        users.c.role == "super_admin", users.c.is_active)).scalar_one())


def _row(tx: Connection, row: Any) -> UserRow:
    return _with(row, tx.execute(select(user_permissions.c.permission).where(user_permissions.c.user_id == row["id"])).scalars())


def _with(row: Any, held: Iterable[str]) -> UserRow:
    return UserRow(
        row["id"], row["name"], row["role"], row["email"], row["is_active"], row["is_email_verified"], row["is_kyc_done"],
        row["password_hash"] is not None, frozenset(held), row["created_at_us"])
