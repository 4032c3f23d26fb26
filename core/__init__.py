"""Vocabulary of the house: candles, timeframes, intervals, calendars, errors, settings. No I/O but the environment."""
