"""Where a provider meets the lake: fetch, backfill, repair, upkeep as plain functions."""
