"""Second factors: time-based one-time codes (RFC 6238) of an authenticator app, and recovery codes. Each code counts once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

import pyotp
from sqlalchemy import Connection, delete, select

from core.clock import SECOND_US
from core.errors import CredentialsRefusedError, InputError
from core.secrets import Secret
from storage.access import digest_of, same
from storage.metadata.tables_factors import second_factors
from storage.people import UserRow
from storage.vault import Vault

ISSUER: Final = "Candlelake"
RECOVERY_CODES: Final = 10
_STEP: Final = 30  # seconds
_DRIFT: Final = 1  # steps before and after: a phone's clock is rarely exact


@dataclass(frozen=True, slots=True)
class FactorRow:
    """A user's second factor. `is_confirmed`: a code of it was shown, so that it counts at sign-in."""

    user_id: int
    is_confirmed: bool
    recovery_left: int


def find_factor(tx: Connection, user_id: int) -> FactorRow | None:
    """Return a user's second factor, confirmed or begun; None when there is none."""
    row = tx.execute(select(second_factors).where(second_factors.c.user_id == user_id)).mappings().first()
    return None if row is None else FactorRow(user_id, row["confirmed_at_us"] is not None, len(row["recovery"]))


def has_factor(tx: Connection, user_id: int) -> bool:
    """Whether signing in as this user takes a code."""
    found = find_factor(tx, user_id)
    return found is not None and found.is_confirmed


def users_with_factor(tx: Connection) -> frozenset[int]:
    """Return the ids of the users who sign in with a code."""
    return frozenset(tx.execute(select(second_factors.c.user_id).where(second_factors.c.confirmed_at_us.is_not(None))).scalars())


def begin_factor(tx: Connection, vault: Vault, user: UserRow) -> Secret:
    """Make a new secret for a user's app; it counts once `confirm_factor` has seen a code of it.

    Raises:
        InputError: there is a confirmed one already.
    """
    if has_factor(tx, user.id):
        raise InputError("second factor", "another one", "one for each user", "remove the one that is there first")
    secret = Secret(pyotp.random_base32())
    tx.execute(delete(second_factors).where(second_factors.c.user_id == user.id))
    tx.execute(second_factors.insert().values(
        user_id=user.id, **vault.seal_factor(tx, user.id, secret), confirmed_at_us=None, last_step=0, recovery=[]))
    return secret


def address_of(secret: Secret, user: UserRow) -> Secret:
    """Return the otpauth:// address that an app reads from a QR code."""
    return Secret(pyotp.TOTP(secret.reveal()).provisioning_uri(name=user.name, issuer_name=ISSUER))


def begun_secret(tx: Connection, vault: Vault, user: UserRow) -> Secret | None:
    """Return the secret that waits for its first code, None when none does."""
    row = tx.execute(select(second_factors).where(
        second_factors.c.user_id == user.id, second_factors.c.confirmed_at_us.is_(None))).mappings().first()
    return None if row is None else vault.open_factor(user.id, bytes(row["ciphertext"]))


def confirm_factor(tx: Connection, vault: Vault, user: UserRow, code: str, now_us: int) -> list[Secret]:
    """Put a begun factor in force with a first code; return the recovery codes, which are shown once.

    Raises:
        InputError: none was begun. CredentialsRefusedError: the code is not right.
    """
    found = find_factor(tx, user.id)
    if found is None or found.is_confirmed:
        raise InputError("second factor", "a code", "a code for one that was begun", "begin to set one up first")
    codes = [f"{secrets.token_hex(4)}-{secrets.token_hex(4)}" for _ in range(RECOVERY_CODES)]
    if not _use_app_code(tx, vault, user.id, _digits(code), now_us):
        raise CredentialsRefusedError("the code is not right; wait for the app's next one, and check the phone's clock")
    tx.execute(second_factors.update().where(second_factors.c.user_id == user.id).values(
        confirmed_at_us=now_us, recovery=[digest_of(item) for item in codes]))
    return [Secret(item) for item in codes]


def use_factor_code(tx: Connection, vault: Vault, user_id: int, code: str, now_us: int) -> bool:
    """Whether a code of the app or a recovery code is right; a right one is used up.

    Raises:
        KeyMissingError, DecryptionError: the app's secret does not open; recovery codes still count.
    """
    return _use_recovery_code(tx, user_id, code) or _use_app_code(tx, vault, user_id, _digits(code), now_us)


def remove_factor(tx: Connection, user_id: int) -> bool:
    """Remove a user's second factor; whether there was one."""
    return bool(tx.execute(delete(second_factors).where(second_factors.c.user_id == user_id)).rowcount)


def _use_app_code(tx: Connection, vault: Vault, user_id: int, code: str, now_us: int) -> bool:
    row = tx.execute(select(second_factors).where(second_factors.c.user_id == user_id).with_for_update()).mappings().first()
    if row is None or len(code) != 6:
        return False
    app, now = pyotp.TOTP(vault.open_factor(user_id, bytes(row["ciphertext"])).reveal()), now_us // SECOND_US // _STEP
    steps = [step for step in range(now - _DRIFT, now + _DRIFT + 1) if same(app.at(step * _STEP), code)]
    if not steps or steps[-1] <= row["last_step"]:  # a code that was seen over a shoulder is spent
        return False
    tx.execute(second_factors.update().where(second_factors.c.user_id == user_id).values(last_step=steps[-1]))
    return True


def _use_recovery_code(tx: Connection, user_id: int, code: str) -> bool:
    row = tx.execute(select(second_factors.c.recovery).where(second_factors.c.user_id == user_id).with_for_update()).first()
    digest = digest_of(code.strip().lower())
    if row is None or not any(same(digest, left) for left in row.recovery):
        return False
    tx.execute(second_factors.update().where(second_factors.c.user_id == user_id).values(
        recovery=[left for left in row.recovery if left != digest]))
    return True


def _digits(code: str) -> str:
    return "".join(code.split())
