"""Addon: confidence that was learned from history, calibrated, and measured on candles that the model never saw."""
