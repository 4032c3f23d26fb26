"""Prefect tasks: retries, artifacts and events around what feed does."""
