"""Trained models as the metadata store knows them: name, version, digest of the file, what it was trained on, its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select

from core.errors import InputError, NotFoundError
from storage.metadata.tables_trading import models


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A trained model; `path` is below the home. Instants are microseconds."""

    name: str
    version: int
    digest: str
    path: str
    connection: str
    symbol: str
    timeframe: str
    start_us: int
    end_us: int
    report: dict[str, Any]
    created_at_us: int


def add_model(tx: Connection, name: str, values: dict[str, Any], now_us: int) -> ModelRow:
    """Store a model as the next version of its name; the newest one again when it has the same digest."""
    newest = tx.execute(select(func.max(models.c.version)).where(models.c.name == name)).scalar() or 0
    if newest and get_model(tx, name, newest).digest == values["digest"]:
        return get_model(tx, name, newest)
    tx.execute(models.insert().values(name=name, version=newest + 1, created_at_us=now_us, **values))
    return get_model(tx, name, newest + 1)


def get_model(tx: Connection, name: str, version: int | None = None) -> ModelRow:
    """Return one version of a model, the newest by default; NotFoundError when there is none."""
    rows = [row for row in list_models(tx, name) if version in {None, row.version}]
    if not rows:
        raise NotFoundError(f"no model {name[:80]!r}{'' if version is None else f' version {version}'}; `candlelake models list` shows those there are")
    return rows[0]


def list_models(tx: Connection, name: str | None = None) -> list[ModelRow]:
    """Return models by name, the newest version first."""
    query = select(models).order_by(models.c.name, models.c.version.desc())
    rows = tx.execute(query if name is None else query.where(models.c.name == name)).mappings()
    return [ModelRow(**{key: value for key, value in row.items() if key != "id"}) for row in rows]


def delete_model(tx: Connection, name: str, version: int) -> ModelRow:
    """Forget one version of a model; NotFoundError when there is none."""
    row = get_model(tx, name, version)
    tx.execute(delete(models).where(models.c.name == name, models.c.version == version))
    return row


def split_version(text: str) -> tuple[str, int | None]:
    """Return name and version of `NAME` or `NAME@VERSION`.

    Raises:
        InputError: the version is no number.
    """
    name, _, version = text.partition("@")
    if version and not version.isdigit():
        raise InputError("model", text, "NAME or NAME@VERSION", "give the version as a number")
    return name, int(version) if version else None
