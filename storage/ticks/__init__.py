"""Ticks: a durable journal while they stream, immutable Parquet files by day, and the ledger of what was lost."""
