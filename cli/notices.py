"""Commands around notifications: what was told, by which ways it went out, and whether those work."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.output import note, print_json, print_rows
from cli.witness import witness

app = typer.Typer(no_args_is_help=True, help="Notifications of failing connections and pipelines.")
COLUMNS = ("id", "at", "severity", "connection", "title", "message", "seen", "sent", "failed")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 100,
    unseen: Annotated[bool, typer.Option("--unseen", help="Only those that nobody has acknowledged.")] = False,
    as_json: Json = False,
) -> None:
    """Show notifications, newest first, and the channels by which each was sent."""
    from core.clock import isoformat
    from feed import open_feed
    from feed.notices import list_notices

    with open_feed() as feed:
        rows = list_notices(feed, limit, only_unseen=unseen)
    print_rows([{
        "id": row.id, "at": isoformat(row.created_at_us), "severity": row.severity, "connection": row.connection, "title": row.title,
        "message": row.message, "seen": None if row.acknowledged_at_us is None else isoformat(row.acknowledged_at_us),
        "sent": ", ".join(row.sent), "failed": "; ".join(row.failed)} for row in rows],
        COLUMNS, as_json=as_json, empty="nothing to tell: all is well")


@app.command()
def acknowledge(number: Annotated[int, typer.Argument(metavar="ID", min=1, help="The notification.")]) -> None:
    """Mark a notification as seen."""
    from core.clock import isoformat
    from feed import notices, open_feed

    with open_feed() as feed:
        seen_at_us, is_new = notices.acknowledge(feed, number)
        if is_new:
            with feed.lake.metadata.write() as tx:
                witness("notification.acknowledge", str(number), seen_at_us)(tx)
    note(f"notification {number} seen {isoformat(seen_at_us)}")


@app.command()
def send(as_json: Json = False) -> int:
    """Send what is due now; the flow `health` does it every five minutes. Exit code 1 when a channel failed."""
    from feed import open_feed
    from feed.notices import send_notices

    with open_feed() as feed:
        done = asyncio.run(send_notices(feed))
    for error in done.errors:
        note(f"not sent: {error}")
    if as_json:
        print_json({"sent": done.sent, "errors": done.errors})
    else:
        print(f"{done.sent} notifications sent, {len(done.errors)} failed")
    return 1 if done.errors else 0


@app.command()
def trial(as_json: Json = False) -> int:
    """Send one message by every channel that is set up, and say what became of it."""
    from core.errors import UnsupportedError
    from feed import open_feed
    from feed.notices import send_trial

    with open_feed() as feed:
        done = asyncio.run(send_trial(feed))
    if not done:
        raise UnsupportedError("no channel is set up; set CANDLELAKE_SMTP_URL with CANDLELAKE_NOTIFY_EMAIL, or CANDLELAKE_NOTIFY_WEBHOOK_URL")
    print_rows([{"channel": name, "result": result} for name, result in done.items()], ("channel", "result"), as_json=as_json)
    return 0 if set(done.values()) == {"sent"} else 1
