"""Charts as files: what `candlelake pipelines replay` writes holds the candles, every signal, and nothing from elsewhere."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import orjson
import polars as pl
import pytest
from matplotlib.image import imread

from cli.main import run
from core.clock import HOUR_US, isoformat
from core.interval import Interval
from feed.pipelines import create
from feed.replaying import replay_pipeline
from pipeline.charts import CANDLES_MAX, chart_html, chart_png, equity_png
from tests.pipeline.conftest import SERIES, START, definition, market

COUNT = 400
RANGE = ("2024-01-08", "2024-01-17")
BUY, SELL = "0b6e4f", "8f1d1d"
TITLE = f"trend: {SERIES}"


class Page(HTMLParser):
    """What stands on a page: cells of the table by row, pictures, tags, and every attribute that loads something."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.pictures, self.tags, self.loads, self.heading = [], [], set(), [], ""
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._tag = tag
        given = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag == "img":
            self.pictures.append(given["src"])
        self.loads += [value for name, value in attrs if name in {"src", "href", "srcset", "action", "data"} and tag != "img"]

    def handle_data(self, data):
        if self._tag in {"td", "th"}:
            self.rows[-1].append(data)
        if self._tag == "h1":
            self.heading += data

    def handle_endtag(self, _tag):
        self._tag = ""


def pixels(png):
    """Return a picture as rows of colours, six hex digits each."""
    image = (imread(io.BytesIO(png), format="png")[:, :, :3] * 255).round().astype(np.uint32)
    return image[:, :, 0] << 16 | image[:, :, 1] << 8 | image[:, :, 2]


def painted(png, colour):
    """Return how many pixels have a colour."""
    return int((pixels(png) == int(colour, 16)).sum())


@pytest.fixture
def replayed(feed, store):
    """A replay of a pipeline whose signals lie on both sides of its threshold."""
    store(market(COUNT))
    create(feed, definition(), "me")
    (found,) = replay_pipeline(feed, "trend", Interval.parse(*RANGE))
    kinds = {(item.side, item.is_actionable) for item in found.result.records}
    assert kinds == {(side, sure) for side in ("buy", "sell") for sure in (True, False)}
    return found


def test_a_replay_writes_its_charts(replayed, tmp_path, capsys):
    """The PNG shows candles and signals, the page the same picture and a row for each signal; neither needs anything from elsewhere."""
    png, page = tmp_path / "chart.png", tmp_path / "chart.html"
    assert run(["pipelines", "replay", "trend", *RANGE, "--png", str(png), "--html", str(page), "--json"]) == 0
    told = orjson.loads(capsys.readouterr().out)[0]["list"]
    drawn = png.read_bytes()
    assert pixels(drawn).shape == (770, 1540)
    assert drawn == chart_png(replayed.judged, replayed.result.records, TITLE)
    assert len(replayed.judged) == replayed.result.candles < len(replayed.candles)  # what they look back on is not drawn
    for side, colour in (("buy", BUY), ("sell", SELL)):
        others = [item for item in replayed.result.records if item.side != side]
        assert painted(drawn, colour) > 0 == painted(chart_png(replayed.candles.tail(40), others, TITLE), colour)

    shown = Page(page.read_text(encoding="utf-8"))
    assert shown.heading == TITLE
    head, *rows = shown.rows
    assert head == ["candle", "side", "price", "confidence", "reason"]
    assert [(row[0], row[1], row[4]) for row in rows] == [(item["ts"], item["side"], item["reason"]) for item in told]
    assert [float(row[2]) for row in rows] == pytest.approx([item["price"] for item in told])
    assert [float(row[3]) for row in rows] == pytest.approx([item["confidence"] for item in told], abs=0.051)
    assert len(rows) == len(replayed.result.records) > 10
    (picture,) = shown.pictures
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,"), validate=True) == drawn
    assert shown.loads == []
    assert not shown.tags & {"script", "link", "iframe", "object", "form"}


def test_the_files_say_when_they_cannot_be_written(replayed, tmp_path, capsys):
    """A folder that is not there is one line, not a traceback."""
    assert run(["pipelines", "replay", "trend", *RANGE, "--png", str(tmp_path / "none" / "chart.png")]) != 0
    err = capsys.readouterr().err
    assert "chart.png" in err
    assert "Traceback" not in err


def test_what_is_written_on_a_page_is_text(replayed):
    """Titles and reasons are escaped: a plug-in's words are no markup."""
    (record, *_) = replayed.result.records
    hostile = "<script>alert(1)</script>&\"'"
    text = chart_html(replayed.candles.tail(40), [type(record)(**{
        name: getattr(record, name) for name in record.__dataclass_fields__} | {"reason": hostile})], hostile)
    page = Page(text)
    assert "script" not in page.tags
    assert page.heading == hostile
    assert page.rows[1][0] == isoformat(record.ts_us)
    assert page.rows[1][4] == hostile


def test_signals_at_or_above_the_threshold_are_filled(replayed):
    """A triangle is filled when the signal is actionable and hollow when it is not; no candles make an empty chart, not an error."""
    buys = [item for item in replayed.result.records if item.side == "buy"]
    sure, unsure = next(item for item in buys if item.is_actionable), next(item for item in buys if not item.is_actionable)
    candles = replayed.candles.tail(40)
    filled, hollow = chart_png(candles, [sure], TITLE), chart_png(candles, [unsure], TITLE)
    assert painted(filled, BUY) > painted(hollow, BUY) > 0 == painted(chart_png(candles, [], TITLE), BUY)
    assert painted(chart_png(candles.clear(), [], TITLE), BUY) == 0


def test_many_candles_are_drawn_as_few_that_keep_their_range():
    """More candles than pixels are joined, neighbours to one with their highest and lowest price: no spike is lost."""
    count = 2 * CANDLES_MAX + 500
    candles = market(count).with_columns(high=pl.when(pl.int_range(count) == 1_234).then(pl.col("high") * 2).otherwise(pl.col("high")))
    joined = candles.group_by_dynamic("ts", every="3h", start_by="datapoint").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last())
    assert joined["high"].max() == candles["high"][1_234]
    assert chart_png(candles, [], TITLE) == chart_png(joined, [], TITLE)


def test_equity_adds_up_what_is_known():
    """Gains are added up in order of time; a signal whose outcome is not known yet is left out, and changes nothing."""
    times = pl.Series([START + at * HOUR_US for at in range(4)]).cast(pl.Datetime("us", "UTC"))
    gains = np.array([5.0, -2.0, np.nan, 4.0])
    known = ~np.isnan(gains)
    drawn = equity_png(times, gains, "gain")
    assert drawn == equity_png(times.filter(pl.Series(known)), gains[known], "gain")
    assert drawn != equity_png(times, -gains, "gain")
    assert painted(drawn, BUY) > 0 == painted(equity_png(times, np.full(4, np.nan), "gain"), BUY)
