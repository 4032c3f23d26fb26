"""Credentials at rest: AES-GCM, the key's id in every ciphertext, and each ciphertext bound to its place.

The associated data names connection, owner, field and key: a ciphertext copied to another row, or one left behind when a
connection changes hands, does not decrypt.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import ColumnElement, Connection, and_, func, select

from core.clock import Clock
from core.errors import DecryptionError, InputError, KeyMissingError, PermanentError
from core.secrets import Secret
from storage.keys import KeyRing
from storage.metadata.store import MetadataStore
from storage.metadata.tables import connections, credentials

__all__ = ["KeyRing", "Progress", "Vault"]

Progress = Callable[[int, int, str], None]
_VERSION: Final = b"v1"
_NONCE_BYTES: Final = 12
_BATCH: Final = 50  # rows in one transaction of a rotation


class Vault:
    """Seals and opens the credentials of connections with the keys of `key_ring`."""

    def __init__(self, metadata: MetadataStore, key_ring: KeyRing, clock: Clock) -> None:
        self._metadata = metadata
        self._ring = key_ring
        self._clock = clock

    def put(self, tx: Connection, connection_id: int, owner: str | None, fields: Mapping[str, Secret]) -> None:
        """Store `fields` encrypted with the first key; fields of the same name are replaced, others stay.

        On a store without any credentials and a ring without keys the key file is made.

        Raises:
            KeyMissingError: the store holds credentials, but there is no key at all.
        """
        if not fields:
            return
        key_id = self._first_key(tx)
        now_us = self._clock.now_us()
        for field, secret in fields.items():
            tx.execute(credentials.delete().where(_is_field(connection_id, field)))
            tx.execute(credentials.insert().values(
                connection_id=connection_id, field=field, key_id=key_id, updated_at_us=now_us,
                ciphertext=self._seal(secret.reveal(), key_id, connection_id, owner, field)))

    def get(self, tx: Connection, connection_id: int, owner: str | None) -> dict[str, Secret]:
        """Return the connection's credentials by field.

        Raises:
            KeyMissingError: the key of a ciphertext is not at hand; names its id.
            DecryptionError: a ciphertext was altered or does not belong here; names the key's id.
        """
        rows = tx.execute(select(credentials.c.field, credentials.c.ciphertext)
                          .where(credentials.c.connection_id == connection_id).order_by(credentials.c.field))
        return {field: Secret(self._open(bytes(ciphertext), connection_id, owner, field)) for field, ciphertext in rows}

    def fields(self, tx: Connection, connection_id: int) -> list[str]:
        """Return the names of the stored fields, sorted; opens nothing."""
        query = select(credentials.c.field).where(credentials.c.connection_id == connection_id)
        return sorted(tx.execute(query).scalars())

    def remove(self, tx: Connection, connection_id: int, fields: list[str] | None = None) -> None:
        """Delete the connection's credentials; only `fields` when given."""
        statement = credentials.delete().where(credentials.c.connection_id == connection_id)
        tx.execute(statement if fields is None else statement.where(credentials.c.field.in_(fields)))

    def rotate(self, progress: Progress | None = None) -> int:
        """Encrypt every credential with the first key and return how many were; goes on where a killed one stopped.

        When all are under the first key already and the keys lie in a file, a new key is made and put first.

        Raises:
            KeyMissingError: a ciphertext's key is not at hand; nothing is changed.
            DecryptionError: a ciphertext does not open; it stays as it is, those before it are done.
        """
        self._ring.reload()
        with self._metadata.read() as tx:
            used = set(tx.execute(select(credentials.c.key_id).distinct()).scalars())
        for key_id in sorted(used):
            self._ring.key(key_id)
        if self._ring.path is not None and self._ring.keys and used <= {self._ring.first}:
            self._ring.add()
        if not used:
            return 0
        return self._reencrypt(self._ring.first, progress)

    def retire(self, key_id: str) -> None:
        """Take a key out of the key file.

        Raises:
            InputError: there is no such key.
            PermanentError: it is the one that encrypts, or credentials still need it.
        """
        self._ring.reload()
        if key_id not in self._ring.keys:
            raise InputError("key id", key_id, list(self._ring.keys), "name one of the keys in the file")
        if key_id == self._ring.first:
            raise PermanentError(f"key {key_id} encrypts new credentials; run `candlelake keys rotate` first")
        with self._metadata.write() as tx:  # nobody seals with it while we look
            query = select(func.count()).select_from(credentials).where(credentials.c.key_id == key_id)
            left = tx.execute(query).scalar_one()
            if left:
                raise PermanentError(f"key {key_id} still seals {left} credential fields; run `candlelake keys rotate` first")
            self._ring.remove(key_id)

    def _first_key(self, tx: Connection) -> str:
        self._ring.reload()  # a rotation in another process may have put a new key first
        if not self._ring.keys:
            needed = tx.execute(select(credentials.c.key_id).limit(1)).scalar()
            if needed is not None:
                self._ring.key(needed)
            if self._ring.path is None:
                raise KeyMissingError("no credential key: CANDLELAKE_KEYS is empty; unset it or put a key there", key_id="")
            self._ring.keys = _create_or_read(self._ring.path).keys
        return self._ring.first

    def _reencrypt(self, key_id: str, progress: Progress | None) -> int:
        old = credentials.c.key_id != key_id
        with self._metadata.read() as tx:
            total = tx.execute(select(func.count()).select_from(credentials).where(old)).scalar_one()
        done = 0
        while True:
            with self._metadata.write() as tx:
                rows = tx.execute(
                    select(credentials, connections.c.owner).join_from(credentials, connections).where(old)
                    .order_by(credentials.c.connection_id, credentials.c.field).limit(_BATCH)
                    .with_for_update(of=credentials)).mappings().all()
                for row in rows:
                    place = (row["connection_id"], row["owner"], row["field"])
                    tx.execute(credentials.update().where(_is_field(row["connection_id"], row["field"])).values(
                        ciphertext=self._seal(self._open(bytes(row["ciphertext"]), *place), key_id, *place),
                        key_id=key_id, updated_at_us=self._clock.now_us()))
            if not rows:
                return done
            done += len(rows)
            if progress is not None:
                progress(done, max(done, total), "credentials")

    def _seal(self, text: str, key_id: str, connection_id: int, owner: str | None, field: str) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self._ring.key(key_id)).encrypt(nonce, text.encode(), _bound_to(connection_id, owner, field, key_id))
        return b":".join((_VERSION, key_id.encode(), base64.urlsafe_b64encode(nonce), base64.urlsafe_b64encode(sealed)))

    def _open(self, envelope: bytes, connection_id: int, owner: str | None, field: str) -> str:
        key_id, nonce, sealed = _parts(envelope, connection_id, field)
        key = self._ring.key(key_id)
        try:
            return AESGCM(key).decrypt(nonce, sealed, _bound_to(connection_id, owner, field, key_id)).decode()
        except (InvalidTag, ValueError):
            raise _undecryptable(connection_id, field, key_id) from None


def _is_field(connection_id: int, field: str) -> ColumnElement[bool]:
    return and_(credentials.c.connection_id == connection_id, credentials.c.field == field)


def _bound_to(connection_id: int, owner: str | None, field: str, key_id: str) -> bytes:
    return json.dumps(["candlelake credential", connection_id, owner, field, key_id]).encode()


def _parts(envelope: bytes, connection_id: int, field: str) -> tuple[str, bytes, bytes]:
    version, *rest = envelope.split(b":")
    key_id = rest[0].decode("ascii", "replace") if rest else "?"
    if version != _VERSION or len(rest) != 3:  # key id, nonce, ciphertext
        raise _undecryptable(connection_id, field, key_id)
    try:
        nonce, sealed = (base64.b64decode(part, altchars=b"-_", validate=True) for part in rest[1:])
    except binascii.Error:
        raise _undecryptable(connection_id, field, key_id) from None
    return key_id, nonce, sealed


def _undecryptable(connection_id: int, field: str, key_id: str) -> DecryptionError:
    return DecryptionError(
        f"credential {field!r} of connection {connection_id} does not open with key {key_id!r}: it was altered, moved from "
        "another place, or sealed with another key of that id; enter the credentials again", key_id=key_id)


def _create_or_read(path: Path) -> KeyRing:
    try:
        return KeyRing.create(path)
    except PermanentError:  # another process was faster
        ring = KeyRing({}, path)
        ring.reload()
        return ring
