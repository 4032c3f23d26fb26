"""Sealing of short secrets: AES-GCM, the key's id in every ciphertext, and each ciphertext bound to its place."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import DecryptionError
from storage.keys import KeyRing

_VERSION: Final = b"v1"
_NONCE_BYTES: Final = 12


def seal(ring: KeyRing, key_id: str, text: str, place: Sequence[object]) -> bytes:
    """Return `text` encrypted with a key of the ring; it opens at this place only.

    Raises:
        KeyMissingError: the ring has no such key.
    """
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(ring.key(key_id)).encrypt(nonce, text.encode(), _bound_to(place, key_id))
    return b":".join((_VERSION, key_id.encode(), base64.urlsafe_b64encode(nonce), base64.urlsafe_b64encode(sealed)))


def unseal(ring: KeyRing, envelope: bytes, place: Sequence[object], what: str) -> str:
    """Return the text of a ciphertext; `what` names it in errors.

    Raises:
        KeyMissingError: its key is not at hand; names the id.
        DecryptionError: it was altered or does not belong to this place; names the key's id.
    """
    key_id, nonce, sealed = _parts(envelope, what)
    key = ring.key(key_id)
    try:
        return AESGCM(key).decrypt(nonce, sealed, _bound_to(place, key_id)).decode()
    except (InvalidTag, ValueError):
        raise _undecryptable(what, key_id) from None


def _bound_to(place: Sequence[object], key_id: str) -> bytes:
    return json.dumps([*place, key_id]).encode()


def _parts(envelope: bytes, what: str) -> tuple[str, bytes, bytes]:
    version, *rest = envelope.split(b":")
    key_id = rest[0].decode("ascii", "replace") if rest else "?"
    if version != _VERSION or len(rest) != 3:  # key id, nonce, ciphertext
        raise _undecryptable(what, key_id)
    try:
        nonce, sealed = (base64.b64decode(part, altchars=b"-_", validate=True) for part in rest[1:])
    except binascii.Error:
        raise _undecryptable(what, key_id) from None
    return key_id, nonce, sealed


def _undecryptable(what: str, key_id: str) -> DecryptionError:
    return DecryptionError(
        f"{what} does not open with key {key_id!r}: it was altered, moved from another place, or sealed with another key of that id;"
        " enter it again", key_id=key_id)
