"""TLS of our connections to others: whom they trust is said here, once, for fetches, streams and tests of a connection."""

from __future__ import annotations

import os
import ssl
from functools import cache
from pathlib import Path

import certifi

from core.errors import InputError


def client_context() -> ssl.SSLContext:
    """Return the context of every client: it trusts certifi's authorities, or those that SSL_CERT_FILE and SSL_CERT_DIR name in their place.

    Raises:
        InputError: what they name cannot be read.
    """
    return _context(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@cache  # reading the authorities takes some 20 ms
def _context(file: str, folder: str) -> ssl.SSLContext:
    if folder and not Path(folder).is_dir():  # OpenSSL says nothing of it
        raise InputError("SSL_CERT_DIR", folder, "a folder of authorities' certificates", "correct it, or unset it to trust certifi's")
    chosen = file or (None if folder else certifi.where())
    try:
        return ssl.create_default_context(cafile=chosen, capath=folder or None)
    except OSError as error:  # an SSLError too
        reason = getattr(error, "reason", None) or error.strerror
        raise InputError("SSL_CERT_FILE", chosen, "a PEM file of authorities' certificates", f"it cannot be used: {reason}") from None
