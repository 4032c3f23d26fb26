"""Filters that people write themselves: expressions over candles and indicators, in a small safe language."""
