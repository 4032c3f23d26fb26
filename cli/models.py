"""Commands around trained models: the confidence of signals, learned from stored candles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import note, print_json, print_object, print_rows, progress_bar
from cli.witness import witness

if TYPE_CHECKING:
    from storage.models import ModelRow

app = typer.Typer(no_args_is_help=True, help="Models that say how likely a signal is right.")
LISTED = ("name", "version", "series", "trained_from", "trained_to", "unseen_to", "verdict", "digest")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Model = Annotated[str, typer.Argument(metavar="NAME", help="The model, or NAME@VERSION.")]


@app.command()
def train(  # one option for each part of the plan
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; the same name again makes the next version.")],
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")],
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling.")],
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME", help="e.g. 1h.")],
    start: Annotated[str | None, typer.Option(help="First open time; all stored candles without it.")] = None,
    end: Annotated[str | None, typer.Option(help="Where to stop (exclusive).")] = None,
    horizon: Annotated[int, typer.Option(min=1, max=1_000, help="Candles ahead at which the close is compared.")] = 12,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts of the walk forward.")] = 5,
    holdout: Annotated[float, typer.Option(min=0.05, max=0.5, help="Share of the newest candles that training never sees.")] = 0.2,
    trees: Annotated[int, typer.Option(min=1, max=500, help="At most so many trees.")] = 60,
    cost: Annotated[float | None, typer.Option(
        min=0, max=1_000, help="What a trade there and back costs, in basis points; the candles' median spread without it, 10 where they tell none.",
    )] = None, as_json: Json = False,
) -> None:
    """Train a model on stored candles and say, of candles that it never saw, whether it beats the base rate."""
    from core.errors import InputError
    from core.interval import Interval
    from core.series import Series
    from feed import open_feed
    from feed.training import Plan, train_model

    if (start is None) != (end is None):
        raise InputError("range", "a start or an end alone", "both, or neither", "give --start and --end")
    interval = None if start is None or end is None else Interval.parse(start, end)
    with open_feed() as feed, progress_bar(f"train {name}", quiet=as_json) as progress:
        series = Series.parse(slug, symbol, timeframe)
        row = train_model(feed, name, series, interval, Plan(horizon, folds, holdout, trees, cost), progress=progress,
                          witness=witness("model.train", name, feed.clock.now_us(), series=series))
    if as_json:
        print_json(_shown(row))
    else:
        note(f"model {row.name} version {row.version}: {row.report['verdict']}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show trained models, what they were trained on, and what their reports say."""
    from feed import open_feed
    from storage.models import list_models

    with open_feed() as feed, feed.lake.metadata.read() as tx:
        rows = list_models(tx)
    print_rows([_shown(row) for row in rows], LISTED, as_json=as_json, empty="no models; `candlelake models train` makes one")


@app.command()
def show(name: Model, as_json: Json = False) -> None:
    """Show one model with its whole report."""
    from feed import open_feed
    from storage.models import get_model, split_version

    with open_feed() as feed, feed.lake.metadata.read() as tx:
        row = get_model(tx, *split_version(name))
    print_object(_shown(row) | {"report": row.report["report"], "plan": row.report["plan"]}, as_json=as_json)


@app.command()
def delete(
    name: Model, is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete one version of a model; pipelines that use it fail from then on."""
    from core.errors import InputError
    from feed import open_feed
    from feed.training import forget_model
    from storage.models import get_model, split_version

    with open_feed() as feed:
        with feed.lake.metadata.read() as tx:
            row = get_model(tx, *split_version(name))
        if not is_sure:
            raise InputError("delete", f"{row.name}@{row.version}", "--yes with it", "add --yes when you are sure")
        forget_model(feed, row.name, row.version, witness("model.delete", f"{row.name}@{row.version}", feed.clock.now_us()))
    note(f"model {row.name} version {row.version} deleted")


def _shown(row: ModelRow) -> dict[str, Any]:
    about = row.report
    return {"name": row.name, "version": row.version, "series": f"{row.connection} {row.symbol} {row.timeframe}", "digest": row.digest[:12],
            **{key: about[key] for key in ("trained_from", "trained_to", "unseen_from", "unseen_to", "verdict")}}
