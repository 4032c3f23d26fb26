"""Commands around orders: what was sent, what is held, the kill switch, and who may send real ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import note, print_object, print_rows
from cli.witness import person, witness

app = typer.Typer(no_args_is_help=True, help="Orders of pipelines: what was sent, and the switch that stops all real ones.")
COLUMNS = ("key", "client_id", "mode", "side", "quantity", "status", "fill_price", "filled_quantity", "error")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]


@app.command("list")
def list_(
    pipeline: Annotated[str | None, typer.Option(help="Only this pipeline's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 100, as_json: Json = False,
) -> None:
    """Show orders, oldest first."""
    from feed import open_feed
    from storage.orders import list_orders

    with open_feed() as feed, feed.lake.metadata.read() as tx:
        rows = list_orders(tx, pipeline=pipeline, limit=limit)
    print_rows([{name: row[name] for name in COLUMNS} for row in rows], COLUMNS, as_json=as_json, empty="no orders")


@app.command()
def show(key: Annotated[str, typer.Argument(help="Key or client id.")], as_json: Json = False) -> None:
    """Show one order with all that is known of it."""
    from feed import open_feed
    from storage.orders import get_order

    with open_feed() as feed, feed.lake.metadata.read() as tx:
        print_object(dict(get_order(tx, key)), as_json=as_json)


@app.command()
def reconcile(as_json: Json = False) -> None:
    """Ask the brokers about real orders that were sent and have not ended; sends nothing."""
    from feed import open_feed
    from feed.reconciling import reconcile as ask

    with open_feed() as feed:
        rows = asyncio.run(ask(feed))
    columns = ("key", "client_id", "status", "message")
    print_rows([dict(row) for row in rows], columns, as_json=as_json, empty="no real order is waiting for an answer")


@app.command()
def halt(reason: Annotated[str, typer.Argument(help="Why; it stands in every refusal.")] = "", as_json: Json = False) -> None:
    """Stop all real orders of this home, at once."""
    _switch(halted=True, reason=reason, as_json=as_json)


@app.command()
def resume(as_json: Json = False) -> None:
    """Let real orders go out again where they are allowed."""
    _switch(halted=False, reason="", as_json=as_json)


@app.command()
def allow(pipeline: Annotated[str, typer.Argument(help="The pipeline.")], as_json: Json = False) -> None:
    """Allow a pipeline to send real orders; the settings and the connection have to allow them too."""
    _permit(pipeline, live=True, as_json=as_json)


@app.command()
def forbid(pipeline: Annotated[str, typer.Argument(help="The pipeline.")], as_json: Json = False) -> None:
    """Take that permission back."""
    _permit(pipeline, live=False, as_json=as_json)


@app.command()
def equity(
    mode: Annotated[str, typer.Option(help="paper or live.")] = "paper",
    book: Annotated[str | None, typer.Option(help="One book of `candlelake positions`; all of the mode without it.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write the curve to this PNG file.")] = None, as_json: Json = False,
) -> None:
    """Show the money made after each fill, commissions taken off; the last row adds what is open at the newest stored price.

    Money of different quote currencies is added up as it is: name a book where they differ.
    """
    from core.clock import isoformat
    from core.errors import InputError
    from feed import open_feed
    from feed.trading import held

    if mode not in {"paper", "live"}:
        raise InputError("mode", mode, ("paper", "live"))
    with open_feed() as feed:
        curve = held(feed, mode=mode, book=book).curve
    if png is not None:
        import numpy as np
        import polars as pl

        from core.candles import CANDLE_SCHEMA
        from pipeline.charts import curve_png

        times = pl.Series([at_us for at_us, _ in curve], dtype=pl.Int64).cast(CANDLE_SCHEMA["ts"])
        png.write_bytes(curve_png(times, np.array([money for _, money in curve]), f"Equity: {book or mode}", "quote currency"))
    print_rows([{"at": isoformat(at_us), "equity": round(money, 8)} for at_us, money in curve], ("at", "equity"), as_json=as_json, empty="no fills")


def positions(as_json: Json = False) -> None:
    """Show what the orders lead to: held quantity, mean price, profit realised, commission, and what closing at the newest price would bring."""
    from feed import open_feed
    from feed.trading import held

    columns = ("book", "quantity", "average", "realised", "commission")
    with open_feed() as feed:
        found = held(feed)
    rows = []
    for row in found.positions:
        price = found.prices.get(row.book)
        rows.append({name: getattr(row, name) for name in columns} | {
            "price": price, "unrealised": None if price is None else row.unrealised(price)})
    print_rows(rows, (*columns, "price", "unrealised"), as_json=as_json, empty="no positions")


def _switch(*, halted: bool, reason: str, as_json: bool) -> None:
    from feed import open_feed
    from storage.orders import set_switch

    with open_feed() as feed, feed.lake.metadata.write() as tx:
        now_us = feed.clock.now_us()
        row: dict[str, Any] = dict(set_switch(tx, halted=halted, reason=reason, by=person(), now_us=now_us))
        witness("orders.halt" if halted else "orders.resume", "all", now_us, reason=reason)(tx)
    print_object(row, as_json=as_json)


def _permit(pipeline: str, *, live: bool, as_json: bool) -> None:
    from feed import open_feed
    from feed.order_kinds import orders_of
    from storage.pipelines import set_live

    with open_feed() as feed:
        with feed.lake.metadata.write() as tx:
            row = set_live(tx, pipeline, live=live, now_us=feed.clock.now_us())
            witness("orders.allow" if live else "orders.forbid", pipeline, feed.clock.now_us())(tx)
        told = orders_of(feed, row)
    if live:
        note("real money moves only when CANDLELAKE_LIVE_TRADING and the connection allow it too; see docs/trading.md")
    print_object({"pipeline": row.name, "is_live": row.is_live, "orders": told.kind, "orders_told": told.line}, as_json=as_json)
