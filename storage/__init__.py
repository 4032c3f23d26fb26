"""The storage floor: candles in a transactional head and an open Parquet lake, metadata, ledger and vault.

Blind to providers and to Prefect. Start with `open_lake`.
"""

from storage.coverage import CoverageRow
from storage.head import Batch, Written
from storage.ledger import Gap, GapRow
from storage.open import Lake, open_lake
from storage.series import SeriesRow

__all__ = ["Batch", "CoverageRow", "Gap", "GapRow", "Lake", "SeriesRow", "Written", "open_lake"]
