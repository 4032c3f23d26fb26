"""The head in blocks: a row of `head_candles` holds what one write brought for one series, packed."""

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Open time in microseconds; open, high, low, close, volume, spread (NaN: none).
CANDLE = struct.Struct("<q6d")
BLOCK_ROWS = 4_096
ROW = "series_id, ts_us, open, high, low, close, volume, spread, known_at_us, source, run_id"
BLOCK = "series_id, last_us, first_us, rows, known_at_us, source, run_id, candles"


def upgrade() -> None:
    blocks = list(_packed())
    op.drop_table("head_candles")
    _create(
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("known_at_us", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=10), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("candles", sa.LargeBinary(), nullable=False),
        time="last_us")
    _insert(BLOCK, blocks)


def downgrade() -> None:
    rows = [(series_id, time, *values, None if spread != spread else spread, known_at_us, source, run_id)  # noqa: PLR0124  NaN
            for series_id, known_at_us, source, run_id, candles in op.get_bind().execute(
                sa.text("SELECT series_id, known_at_us, source, run_id, candles FROM head_candles ORDER BY series_id, last_us"))
            for time, *values, spread in CANDLE.iter_unpack(candles)]
    op.drop_table("head_candles")
    _create(
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("open", "high", "low", "close", "volume")),
        sa.Column("spread", sa.Float(), nullable=True),
        sa.Column("known_at_us", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=10), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        time="ts_us")
    _insert(ROW, rows)


def _packed() -> Iterator[tuple[Any, ...]]:
    """Yield the head's rows as blocks: what shares series, instant, source and run, as one write left it."""
    rows = op.get_bind().execute(sa.text(f"SELECT {ROW} FROM head_candles ORDER BY series_id, known_at_us, source, run_id, ts_us"))  # noqa: S608  names
    for (series_id, *shared), group in groupby(rows, key=itemgetter(0, 8, 9, 10)):
        while part := list(islice(group, BLOCK_ROWS)):
            candles = b"".join(CANDLE.pack(*row[1:7], float("nan") if row[7] is None else row[7]) for row in part)
            yield (series_id, part[-1][1], part[0][1], len(part), *shared, candles)


def _create(*columns: sa.Column[Any], time: str) -> None:
    op.create_table("head_candles",
        sa.Column("series_id", ID, nullable=False),
        *columns,
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_head_candles_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("series_id", time, name=op.f("pk_head_candles")),
        sqlite_with_rowid=False)


def _insert(columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        names = columns.split(", ")
        marks = ", ".join(f":{name}" for name in names)
        op.get_bind().execute(sa.text(f"INSERT INTO head_candles ({columns}) VALUES ({marks})"),  # noqa: S608  names
                              [dict(zip(names, row, strict=True)) for row in rows])
