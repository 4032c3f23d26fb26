"""Charts of candles with signals: PNG by matplotlib, and HTML that holds the picture and a table, with nothing to load."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from core.clock import isoformat
from pipeline.stages import SignalRecord

_dates: Final[Any] = import_module("matplotlib.dates")  # its functions are not typed
CANDLES_MAX: Final = 1_500  # more would be narrower than a pixel: neighbours are drawn as one
_UP, _DOWN, _BUY, _SELL = "#2b8a6e", "#b0413e", "#0b6e4f", "#8f1d1d"


def chart_png(candles: pl.DataFrame, signals: Sequence[SignalRecord], title: str) -> bytes:
    """Return a PNG of candles with their signals: triangles up for buys, down for sells, filled from the threshold on."""
    shown = _thinned(candles)
    figure = Figure(figsize=(14, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(shown):
        x = np.asarray(_dates.date2num(shown["ts"].dt.replace_time_zone(None).to_numpy()))
        low, high, opens, closes = (shown[name].to_numpy() for name in ("low", "high", "open", "close"))
        colours = np.where(closes >= opens, _UP, _DOWN).tolist()
        width = float(np.median(np.diff(x))) * 0.7 if len(x) > 1 else 0.001
        axes.add_collection(LineCollection([[(a, b), (a, c)] for a, b, c in zip(x, low, high, strict=True)], colors=colours, linewidths=0.8))
        axes.bar(x, np.abs(closes - opens), width, bottom=np.minimum(opens, closes), color=colours)
        for side, marker, colour in (("buy", "^", _BUY), ("sell", "v", _SELL)):
            for is_actionable in (True, False):
                at = [s for s in signals if s.side == side and s.is_actionable is is_actionable]
                if at:
                    times = pl.Series([s.ts_us for s in at]).cast(pl.Datetime("us")).to_numpy()
                    axes.scatter(
                        np.asarray(_dates.date2num(times)), [s.price for s in at], marker=marker, s=60, zorder=3, edgecolors=colour,
                        facecolors=colour if is_actionable else "none",
                        label=f"{side}, {'at or above' if is_actionable else 'below'} threshold")
        if signals:
            axes.legend(loc="upper left", frameon=False)
        locator = _dates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(_dates.AutoDateFormatter(locator))
        axes.autoscale_view()
    axes.set_title(title)
    axes.set_ylabel("price")
    axes.grid(visible=True, alpha=0.25)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "candlelake"})
    return out.getvalue()


def equity_png(times: pl.Series, gains: NDArray[np.float64], title: str) -> bytes:
    """Return a PNG of the gains of signals added up, in basis points; signals without an outcome yet are left out."""
    known = ~np.isnan(gains)
    return curve_png(times.filter(pl.Series(known)), np.cumsum(gains[known]), title, "basis points")


def curve_png(times: pl.Series, values: NDArray[np.float64], title: str, unit: str) -> bytes:
    """Return a PNG of values that hold from their instant on until the next one."""
    figure = Figure(figsize=(14, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(values):
        x = np.asarray(_dates.date2num(times.dt.replace_time_zone(None).to_numpy()))
        axes.step(x, values, where="post", color=_BUY)
        locator = _dates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(_dates.AutoDateFormatter(locator))
    axes.axhline(0.0, color="#888888", linewidth=0.8)
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.grid(visible=True, alpha=0.25)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "candlelake"})
    return out.getvalue()


def reliability_png(rows: Sequence[Mapping[str, float]], title: str) -> bytes:
    """Return a PNG of how often what was said came true: rows with `said` and `came_true`, shares from 0 to 1."""
    figure = Figure(figsize=(7, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axline((0.5, 0.5), slope=1, color="#888888", linewidth=0.8)
    axes.plot([row["said"] for row in rows], [row["came_true"] for row in rows], "o-", color=_BUY)
    axes.set_title(title)
    axes.set_xlabel("said")
    axes.set_ylabel("came true")
    axes.grid(visible=True, alpha=0.25)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "candlelake"})
    return out.getvalue()


def chart_html(candles: pl.DataFrame, signals: Sequence[SignalRecord], title: str) -> str:
    """Return a page with the chart and a table of the signals; it loads nothing from anywhere."""
    picture = base64.b64encode(chart_png(candles, signals, title)).decode()
    rows = "".join(
        f"<tr><td>{isoformat(s.ts_us)}</td><td>{s.side}</td><td>{s.price:.10g}</td><td>{s.confidence:.1f}</td>"
        f"<td>{html.escape(s.reason)}</td></tr>" for s in signals)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font:15px system-ui,sans-serif;margin:2rem;color:#1b1b1b}img{max-width:100%}"
        "table{border-collapse:collapse}td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #ccc}</style></head>"
        f'<body><h1>{html.escape(title)}</h1><img alt="Candles with {len(signals)} signals" src="data:image/png;base64,{picture}">'
        "<table><thead><tr><th>candle</th><th>side</th><th>price</th><th>confidence</th><th>reason</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></body></html>")


def _thinned(candles: pl.DataFrame) -> pl.DataFrame:
    if len(candles) <= CANDLES_MAX:
        return candles
    each = -(-len(candles) // CANDLES_MAX)
    return candles.with_row_index("row").group_by(pl.col("row") // each, maintain_order=True).agg(
        pl.col("ts").first(), pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last())
