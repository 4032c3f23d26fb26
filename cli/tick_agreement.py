"""The command tick-agreement: candles built from stored ticks against the provider's own."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import note, print_rows

COLUMNS = ("ts", "field", "of_ticks", "stored", "cause")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("tick-agreement")(tick_agreement)


def tick_agreement(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")],
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling, e.g. BTC/USDT.")],
    timeframe: Annotated[str, typer.Argument(metavar="[TIMEFRAME]", help="Of the stored candles.")] = "1m",
    start: Annotated[str | None, typer.Option(help="From this open time on; without it, from the first candle that the ticks hold whole.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to this open time, exclusive; without it, the last one that they hold whole.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")] = False,
) -> int:
    """List every difference of candles built from stored ticks to the provider's own; exit 1 where lost ticks explain it not."""
    from cli.data import parse_range
    from core.clock import to_us
    from core.series import Series
    from feed.tick_agreement import compare_ticks
    from storage import open_lake

    series = Series.parse(slug, symbol, timeframe)
    first, last = parse_range(start, end)
    lake = open_lake()
    try:
        found = compare_ticks(lake, series, None if first is None else to_us(first), None if last is None else to_us(last))
    finally:
        lake.close()
    print_rows([item.as_dict() for item in found.differences], COLUMNS, as_json=as_json, empty="no difference")
    note(f"{found.ticks} ticks, {found.compared} candles of {series} compared: {found.equal} equal, {len(found.differences)} differences, "
         f"{found.unexplained} of them without lost ticks; {found.of_stream} candles of the stream itself left out")
    return 1 if found.unexplained else 0
