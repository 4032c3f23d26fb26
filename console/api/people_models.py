"""What the API tells of people, for its documentation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from storage.audit import Outcome, Via
from storage.people import Role


class UserOut(BaseModel):
    """Somebody who may use the console."""

    name: str
    role: Role
    email: str | None
    is_active: bool
    is_email_verified: bool
    is_kyc_done: bool
    has_password: bool
    has_second_factor: bool
    permissions: list[str]
    created: str


class AuditOut(BaseModel):
    """One deed; `begun` is the word before an order to Prefect, whose end has a row of its own."""

    id: int
    at: str
    actor: str
    via: Via
    action: str
    subject: str
    outcome: Outcome
    detail: dict[str, Any]


class ChainOut(BaseModel):
    """Whether each row of the audit log follows from the one before it."""

    is_whole: bool
    first_broken: int | None = Field(description="The first row that was changed, is missing or stands behind a hole.")
    head: str = Field(description="The newest row's number and digest: noted elsewhere and given later, it proves that nothing up to there was changed.")


class AccountOut(BaseModel):
    """Who asks; `scopes` are those of the token or session in use."""

    name: str
    role: Role
    permissions: list[str]
    scopes: list[str]
    sees_connections: bool
    has_second_factor: bool


class TokenOut(BaseModel):
    """An API token; `hint` are the last four characters of its value, which nobody can read again."""

    id: int
    name: str
    hint: str
    scopes: list[str]
    expires: str
    state: Literal["live", "expired", "revoked"]


class SessionOut(BaseModel):
    """A browser that is signed in."""

    began: str
    last_used: str
    is_this: bool
