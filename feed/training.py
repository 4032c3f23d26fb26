"""Trains models on stored candles and keeps them: a file by its digest, a row with the report."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final

from addons.ai_signals.plugin import model_path
from addons.ai_signals.training import Plan, train
from core.candles import CANDLE_SCHEMA
from core.clock import to_us
from core.errors import InputError
from core.interval import Interval
from core.series import Series
from feed.context import Feed
from feed.result import Progress, no_progress
from storage.audit import Witness, unwitnessed
from storage.lake.place import sync_folder
from storage.models import ModelRow, add_model, delete_model, list_models

__all__ = ["Plan", "forget_model", "train_model"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


def train_model(feed: Feed, name: str, series: Series, interval: Interval | None = None, plan: Plan | None = None, *,
                progress: Progress = no_progress, witness: Witness = unwitnessed) -> ModelRow:
    """Train a model on a series' stored candles and store it as the next version of `name`; the same candles give the same model.

    A `witness` writes it down in the transaction that stores it, here and below.

    Raises:
        InputError: the name is none, or there are too few candles. NotFoundError: no such series.
        UnsupportedError: the extra `ai` is not installed.
    """
    if not _NAME.fullmatch(name) or len(name) > 63:
        raise InputError("model name", name[:80], "a-z first, then a-z, 0-9, single - or _, at most 63", "choose another")
    start, end = (None, None) if interval is None else (interval.start_at, interval.end_at)
    candles = feed.lake.candles(series.connection, series.symbol, series.timeframe, start, end).select(list(CANDLE_SCHEMA))
    model = train(candles, plan or Plan(), {"series": str(series)}, lambda done, total: progress(done, total, "folds"))
    path = model_path(feed.settings.home, model.digest)
    _write(path, model.to_bytes())
    values = {
        "digest": model.digest, "path": str(path.relative_to(feed.settings.home)), "connection": series.connection, "symbol": series.symbol,
        "timeframe": series.timeframe.name, "start_us": to_us(candles["ts"][0]), "end_us": to_us(candles["ts"][-1]), "report": model.about}
    with feed.lake.metadata.write() as tx:
        witness(tx)
        return add_model(tx, name, values, feed.clock.now_us())


def forget_model(feed: Feed, name: str, version: int, witness: Witness = unwitnessed) -> ModelRow:
    """Delete one version of a model, and its file when no other version is of it.

    Raises:
        NotFoundError: there is none.
    """
    with feed.lake.metadata.write() as tx:
        row = delete_model(tx, name, version)
        witness(tx)
        is_last = all(other.digest != row.digest for other in list_models(tx))
    if is_last:
        model_path(feed.settings.home, row.digest).unlink(missing_ok=True)
    return row


def _write(path: Path, content: bytes) -> None:
    """Write a file whole and durable: beside it, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    sync_folder(path.parent)
