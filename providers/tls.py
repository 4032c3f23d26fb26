"""TLS of our connections to others: one context serves all of a process."""

from __future__ import annotations

import ssl
from functools import cache

import certifi


@cache
def client_context() -> ssl.SSLContext:
    """Return the context of every client: it trusts certifi's authorities. Made once, for reading them takes some 20 ms."""
    return ssl.create_default_context(cafile=certifi.where())
