"""The command `report`: the published proof as text, JSON, or a page that a person reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.data import AnySlug, check_filter, parse_range
from cli.output import JSON_OPTIONS, note, print_json

if TYPE_CHECKING:
    from storage.proof_report import ProofReport

FORMATS = ("text", "json", "html")


def register(parent: typer.Typer) -> None:
    """Add this module's command to `parent`."""
    parent.command()(report)


def report(
    slug: AnySlug = None,
    start: Annotated[str | None, typer.Option(help="Candles from here on; ISO 8601. Default: the first stored one.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to here, exclusive. Default: the last stored one.")] = None,
    format_: Annotated[str, typer.Option("--format", help="text, json or html.")] = "text",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> int:
    """Publish the proof: completeness, causes, revisions, clocks, time to repair, digests; exit 1 with unexplained slots."""
    from cli.report_page import as_html, as_text
    from core.errors import InputError
    from storage import open_lake
    from storage.proof_report import make_report

    shape = "json" if as_json else format_
    if shape not in FORMATS:
        raise InputError("--format", shape, FORMATS, "use one of those")
    span = parse_range(start, end)
    with open_lake() as lake:
        check_filter(lake, slug)
        proof = make_report(lake.place, slug, _period(span, lake.clock.now_us()))
    if shape == "json" and output is None:
        print_json(proof.as_dict())
    else:
        _write(_encoded(proof, shape, {"html": as_html, "text": as_text}), output)
    return 1 if proof.totals["unexplained"] else 0


def _period(span: tuple[Any, Any], now_us: int) -> Any:
    from core.clock import EARLIEST_US, to_us
    from core.interval import Interval

    if span == (None, None):
        return None
    return Interval(EARLIEST_US if span[0] is None else to_us(span[0]), now_us if span[1] is None else to_us(span[1]))


def _encoded(proof: ProofReport, shape: str, shapes: dict[str, Any]) -> str:
    import orjson

    if shape == "json":
        return orjson.dumps(proof.as_dict(), option=JSON_OPTIONS).decode()
    text: str = shapes[shape](proof)
    return text


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    temporary = output.with_name(f".{output.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    note(f"report written to {output}")
