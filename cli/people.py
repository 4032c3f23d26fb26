"""Commands around people: users, their permissions, one-time codes, API tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import note, print_json, print_object, print_rows
from cli.witness import witness

if TYPE_CHECKING:
    from sqlalchemy import Connection

users = typer.Typer(no_args_is_help=True, help="People who may use the console.")
tokens = typer.Typer(no_args_is_help=True, help="API tokens of programs.")
LISTED = ("name", "role", "is_active", "is_email_verified", "is_kyc_done", "has_password", "permissions")
AUDITED = ("id", "at", "actor", "via", "action", "subject", "outcome", "detail")
TOKENS = ("id", "user", "name", "hint", "scopes", "expires", "state")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]


@contextmanager
def _store() -> Iterator[tuple[Connection, int]]:
    from storage import open_lake

    with open_lake() as lake, lake.metadata.write() as tx:
        yield tx, lake.clock.now_us()


@users.command()
def add(
    name: Name, role: Annotated[str, typer.Option(help="super_admin, staff_admin or user.")] = "user",
    email: Annotated[str | None, typer.Option(help="Their e-mail address.")] = None, as_json: Json = False,
) -> None:
    """Add a user and print the one-time code with which they set their password."""
    from storage import access, people

    with _store() as (tx, now_us):
        user = people.add_user(tx, name, role, now_us, email)
        code = access.make_code(tx, "password", user.id, now_us)
        witness("user.add", name, now_us, role=role)(tx)
    if as_json:
        print_json(user.as_dict() | {"code": code.reveal()})
        return
    note(f"added {name} ({role}); they set a password at /password within a day with this code:")
    print(code.reveal())


@users.command("list")
def list_(as_json: Json = False) -> None:
    """Show who may use the console."""
    from storage import people

    with _store() as (tx, _):
        rows = [user.as_dict() for user in people.list_users(tx)]
    print_rows(rows, LISTED, as_json=as_json, empty="nobody yet; `candlelake users code` prints the first admin's code")


@users.command()
def grant(name: Name, permission: Annotated[str, typer.Argument(help="manage-data-connections.")], as_json: Json = False) -> None:
    """Give a user a permission."""
    _change(name, "user.grant", as_json=as_json, permission=permission)


@users.command()
def revoke(name: Name, permission: Annotated[str, typer.Argument(help="manage-data-connections.")], as_json: Json = False) -> None:
    """Take a permission from a user."""
    _change(name, "user.revoke", as_json=as_json, permission=permission)


@users.command()
def activate(name: Name, as_json: Json = False) -> None:
    """Let a user in again."""
    _change(name, "user.activate", as_json=as_json, is_active=True)


@users.command()
def deactivate(name: Name, as_json: Json = False) -> None:
    """Keep a user out at once: their sessions end and their tokens open nothing."""
    _change(name, "user.deactivate", as_json=as_json, is_active=False)


@users.command()
def update(  # one option for each mark
    name: Name, role: Annotated[str | None, typer.Option(help="super_admin, staff_admin or user.")] = None,
    email: Annotated[str | None, typer.Option(help="Their e-mail address.")] = None,
    email_verified: Annotated[bool | None, typer.Option(help="Whether it was verified.")] = None,
    kyc_done: Annotated[bool | None, typer.Option(help="Whether their KYC is done.")] = None, as_json: Json = False,
) -> None:
    """Change a user's role or marks."""
    values: dict[str, Any] = {"role": role, "email": email, "is_email_verified": email_verified, "is_kyc_done": kyc_done}
    _change(name, "user.change", as_json=as_json, **{key: value for key, value in values.items() if value is not None})


@users.command("reset-factor")
def reset_factor(name: Name) -> None:
    """Remove a user's second factor, for a lost phone; their sessions end."""
    from storage import access, factors, people

    with _store() as (tx, now_us):
        user = people.get_user(tx, name)
        was_there = factors.remove_factor(tx, user.id)
        access.close_sessions(tx, user.id)
        witness("factor.reset", name, now_us)(tx)
    note(f"{name} signs in without a second factor now" if was_there else f"{name} had no second factor")


@users.command()
def code(name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The user; without one the first admin's.")] = None) -> None:
    """Print a new one-time code: for the first admin, or for a user who has lost the password."""
    from core.errors import InputError
    from storage import access, people

    with _store() as (tx, now_us):
        if name is None and people.has_users(tx):
            raise InputError("user name", "none", "a user's name, once the first admin is there", "run: candlelake users list")
        user_id = None if name is None else people.get_user(tx, name).id
        value = access.make_code(tx, "setup" if name is None else "password", user_id, now_us)
        witness("user.code", name or "first admin", now_us)(tx)
    note("this code works once, within a day, at " + ("/setup" if name is None else "/password"))
    print(value.reveal())


@users.command("audit")
def audit_(
    actor: Annotated[str | None, typer.Option(help="Only what this person did; `cli:NAME` on the command line.")] = None,
    action: Annotated[str | None, typer.Option(help="Only deeds of this kind, e.g. connection.delete.")] = None,
    outcome: Annotated[str | None, typer.Option(help="begun, done, refused or failed.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to something whose name holds this.")] = None,
    before: Annotated[int | None, typer.Option(min=1, help="Older than this id: the next page.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 100,
    check: Annotated[bool, typer.Option("--check", help="Check the chain instead, and print its head; exit code 1 when a row was changed or is missing.")] = False,
    head: Annotated[str | None, typer.Option(metavar="ID:DIGEST", help="With --check: a head printed before; up to there the log must be as it was then.")] = None,
    as_json: Json = False,
) -> None:
    """Show who did what, newest first; or whether that log is whole."""
    from core.errors import InputError
    from storage import audit

    if outcome is not None and outcome not in audit.OUTCOMES:
        raise InputError("outcome", outcome, audit.OUTCOMES, "choose one of them")
    if head is not None and not check:
        raise InputError("--head", head, "none without --check", "add --check")
    with _store() as (tx, _):
        if check:
            broken = audit.verify_audit(tx, head)
            print_object({"is_whole": broken is None, "first_broken": broken, "head": audit.audit_head_of(tx)}, as_json=as_json)
            raise typer.Exit(0 if broken is None else 1)
        rows = [row.as_dict() for row in audit.list_audit(tx, limit, audit.AuditFilter(actor, action, outcome, subject, before))]
    print_rows(rows, AUDITED, as_json=as_json, empty="nobody has done anything that matches")


@tokens.command()
def create(
    user: Annotated[str, typer.Option(help="Whose rights it has.")], name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="read or manage; repeat for both.")] = None,
    days: Annotated[int, typer.Option(help="How long it lives.")] = 90, as_json: Json = False,
) -> None:
    """Make an API token; it is printed once and never again."""
    from storage import access, people

    with _store() as (tx, now_us):
        row, value = access.create_token(tx, people.get_user(tx, user), name, scope or ["read"], days, now_us)
        witness("token.create", name, now_us, user=user)(tx)
    if as_json:
        print_json({"user": user} | row.as_dict(now_us) | {"token": value.reveal()})
        return
    note("shown once; send it in the header Authorization, after the word Bearer")
    print(value.reveal())


@tokens.command("list")
def list_tokens(as_json: Json = False) -> None:
    """Show the tokens, never their values."""
    from storage import access, people

    with _store() as (tx, now_us):
        names = {user.id: user.name for user in people.list_users(tx)}
        rows = [{"user": names.get(row.user_id)} | row.as_dict(now_us) for row in access.list_tokens(tx)]
    print_rows(rows, TOKENS, as_json=as_json, empty="no tokens")


@tokens.command("revoke")
def revoke_token(token_id: Annotated[int, typer.Argument(metavar="ID")]) -> None:
    """End a token at once."""
    from storage import access

    with _store() as (tx, now_us):
        row = access.revoke_token(tx, token_id, None, now_us)
        witness("token.revoke", row.name, now_us)(tx)
    note(f"revoked token {token_id}")


def _change(name: str, action: str, *, as_json: bool, permission: str | None = None, **values: Any) -> None:
    from storage import access, people

    with _store() as (tx, now_us):
        if permission is not None:
            turn = people.grant if action == "user.grant" else people.revoke
            user = turn(tx, name, [permission])
        else:
            user = people.change_user(tx, name, now_us, **values)
        access.close_sessions(tx, user.id)
        witness(action, name, now_us, **values, **({} if permission is None else {"permission": permission}))(tx)
    print_object(user.as_dict(), as_json=as_json)

