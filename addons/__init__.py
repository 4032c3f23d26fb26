"""Plug-ins found through entry points."""
