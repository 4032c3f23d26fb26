"""Commands around a person's own filters: expressions that pipelines use by name."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import note, print_json, print_object, print_rows
from cli.witness import person, witness

app = typer.Typer(no_args_is_help=True, help="Your own filters: expressions over candles and indicators.")
LISTED = ("owner", "name", "expression", "description")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Owner = Annotated[str | None, typer.Option(help="Whose; yours without it.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The filter's name.")]
Expression = Annotated[str, typer.Argument(metavar="EXPRESSION", help="e.g. 'rsi(14) < 30 and volume > sma(volume, 20)'")]


@app.callback()
def _group() -> None:
    """Your own filters: expressions over candles and indicators."""


@app.command("list")
def list_(owner: Owner = None, as_json: Json = False) -> None:
    """Show stored filters, of everybody unless an owner is named."""
    from feed import open_feed
    from storage.pipelines import list_strategies

    with open_feed() as feed, feed.lake.metadata.read() as tx:
        rows = list_strategies(tx, owner)
    print_rows(rows, LISTED, as_json=as_json, empty="no filters; `candlelake pipelines filters save` adds one")


@app.command()
def save(
    name: Name, expression: Expression, description: Annotated[str, typer.Option(help="For people.")] = "", owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Store an expression under a name; pipelines that use it keep the copy of their version."""
    from feed import open_feed
    from feed.filter_strategies import save as keep

    with open_feed() as feed:
        keep(feed, owner or person(), name, expression, description, witness=witness("filter.save", name, feed.clock.now_us(), owner=owner or person()))
    if as_json:
        print_json({"name": name, "expression": expression})
    else:
        note(f"filter {name} stored")


@app.command()
def delete(name: Name, owner: Owner = None, as_json: Json = False) -> None:
    """Remove a stored filter."""
    from feed import open_feed
    from storage.pipelines import delete_strategy

    with open_feed() as feed, feed.lake.metadata.write() as tx:
        delete_strategy(tx, owner or person(), name)
        witness("filter.delete", name, feed.clock.now_us(), owner=owner or person())(tx)
    print_object({"deleted": name}, as_json=as_json)


@app.command("test")
def try_(
    expression: Expression, slug: Annotated[str, typer.Argument(metavar="SLUG")], symbol: Annotated[str, typer.Argument(metavar="SYMBOL")],
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME")],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="On so many newest candles.")] = 1000, owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Try an expression, or a stored filter by its name, on stored candles: how many pass, and the newest of them."""
    from core.series import Series
    from feed import open_feed
    from feed.filter_strategies import try_out

    with open_feed() as feed:
        report = try_out(feed, Series.parse(slug, symbol, timeframe), expression, count, owner=owner or person())
    print_object(report, as_json=as_json)
