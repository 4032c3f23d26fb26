"""Credentials at rest, and the secrets of second factors: sealed with the keys of the ring, each bound to its place.

The associated data names connection, owner, field and key: a ciphertext copied to another row, or one left behind when a
connection changes hands, does not decrypt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, func, select

from core.clock import Clock
from core.errors import DecryptionError, InputError, KeyMissingError, PermanentError
from core.secrets import Secret
from storage.keys import KeyRing
from storage.metadata.store import MetadataStore
from storage.metadata.tables import connections, credentials
from storage.metadata.tables_factors import second_factors
from storage.sealing import seal, unseal

__all__ = ["KeyRing", "Progress", "Vault"]

Progress = Callable[[int, int, str], None]
_BATCH: Final = 50  # rows in one transaction of a rotation


_SEALED: Final = (credentials, second_factors)


def _keys_in_use(tx: Connection) -> set[str]:
    return {key_id for table in _SEALED for key_id in tx.execute(select(table.c.key_id).distinct()).scalars()}


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
            DecryptionError: the first key is another than the one of its id that the store's credentials are sealed with.
        """
        if not fields:
            return
        key_id = self._first_key(tx)
        now_us = self._clock.now_us()
        for field, secret in fields.items():
            tx.execute(credentials.delete().where(_is_field(connection_id, field)))
            tx.execute(credentials.insert().values(
                connection_id=connection_id, field=field, key_id=key_id, updated_at_us=now_us,
                ciphertext=self._seal(secret.reveal(), key_id, (connection_id, owner, field))))

    def get(self, tx: Connection, connection_id: int, owner: str | None) -> dict[str, Secret]:
        """Return the connection's credentials by field.

        Raises:
            KeyMissingError: the key of a ciphertext is not at hand; names its id.
            DecryptionError: a ciphertext was altered or does not belong here; names the key's id.
        """
        rows = tx.execute(select(credentials.c.field, credentials.c.ciphertext)
                          .where(credentials.c.connection_id == connection_id).order_by(credentials.c.field))
        return {field: Secret(self._open(bytes(ciphertext), (connection_id, owner, field))) for field, ciphertext in rows}

    def fields(self, tx: Connection, connection_id: int) -> list[str]:
        """Return the names of the stored fields, sorted; opens nothing."""
        query = select(credentials.c.field).where(credentials.c.connection_id == connection_id)
        return sorted(tx.execute(query).scalars())

    def remove(self, tx: Connection, connection_id: int, fields: list[str] | None = None) -> None:
        """Delete the connection's credentials; only `fields` when given."""
        statement = credentials.delete().where(credentials.c.connection_id == connection_id)
        tx.execute(statement if fields is None else statement.where(credentials.c.field.in_(fields)))

    def seal_factor(self, tx: Connection, user_id: int, secret: Secret) -> dict[str, Any]:
        """Return the values of `second_factors` that hold a user's secret: key id and ciphertext."""
        key_id = self._first_key(tx)
        return {"key_id": key_id, "ciphertext": seal(self._ring, key_id, secret.reveal(), _factor_place(user_id))}

    def open_factor(self, user_id: int, ciphertext: bytes) -> Secret:
        """Return a user's secret.

        Raises:
            KeyMissingError, DecryptionError: as `get`.
        """
        return Secret(unseal(self._ring, ciphertext, _factor_place(user_id), _factor_name(user_id)))

    def rotate(self, progress: Progress | None = None) -> int:
        """Encrypt every credential and second factor with the first key and return how many were; goes on where a killed one stopped.

        When all are under the first key already and the keys lie in a file, a new key is made and put first.

        Raises:
            KeyMissingError: a ciphertext's key is not at hand; nothing is changed.
            DecryptionError: a key opens nothing of what is sealed with its id, and nothing is changed; or a ciphertext does not open:
                it stays as it is, those before it are done.
        """
        self._ring.reload()
        with self._metadata.read() as tx:
            used = _keys_in_use(tx)
            for key_id in sorted(used):
                self._prove(tx, key_id)
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
            left = sum(tx.execute(select(func.count()).select_from(table).where(table.c.key_id == key_id)).scalar_one()
                       for table in _SEALED)
            if left:
                raise PermanentError(f"key {key_id} still seals {left} credential fields; run `candlelake keys rotate` first")
            self._ring.remove(key_id)

    def _first_key(self, tx: Connection) -> str:
        self._ring.reload()  # a rotation in another process may have put a new key first
        if not self._ring.keys:
            for needed in sorted(_keys_in_use(tx)):
                self._ring.key(needed)
            if self._ring.path is None:
                raise KeyMissingError("no credential key: CANDLELAKE_KEYS is empty; unset it or put a key there", key_id="")
            self._ring.keys = _create_or_read(self._ring.path).keys
        self._prove(tx, self._ring.first)
        return self._ring.first

    def _prove(self, tx: Connection, key_id: str) -> None:
        """Check that a key is the one that the store's ciphertexts of its id were sealed with: at least one of them opens."""
        self._ring.key(key_id)
        last: DecryptionError | None = None
        for attempt in self._attempts(tx, key_id):
            try:
                attempt()
            except DecryptionError as error:
                last = error
            else:
                return
        if last is not None:
            raise DecryptionError(
                f"credential key {key_id!r} opens nothing of what is stored under that id: it is another key; bring the right one back"
                " from your backup of the keys, or give this one an id of its own", key_id=key_id) from last

    def _attempts(self, tx: Connection, key_id: str) -> Iterator[Callable[[], object]]:
        query = select(credentials, connections.c.owner).join_from(credentials, connections).where(credentials.c.key_id == key_id)
        for row in tx.execute(query).mappings():
            place = (row["connection_id"], row["owner"], row["field"])
            yield partial(self._open, bytes(row["ciphertext"]), place)
        for row in tx.execute(select(second_factors).where(second_factors.c.key_id == key_id)).mappings():
            yield partial(self.open_factor, row["user_id"], bytes(row["ciphertext"]))

    def _reencrypt(self, key_id: str, progress: Progress | None) -> int:
        old = credentials.c.key_id != key_id
        with self._metadata.read() as tx:
            total = sum(tx.execute(select(func.count()).select_from(table).where(table.c.key_id != key_id)).scalar_one()
                        for table in _SEALED)
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
                        ciphertext=self._seal(self._open(bytes(row["ciphertext"]), place), key_id, place),
                        key_id=key_id, updated_at_us=self._clock.now_us()))
                factors = [] if rows else self._factors_left(tx, key_id)
                for row in factors:
                    self._reseal_factor(tx, row, key_id)
            if not rows and not factors:
                return done
            done += len(rows) + len(factors)
            if progress is not None:
                progress(done, max(done, total), "credentials")

    def _factors_left(self, tx: Connection, key_id: str) -> Sequence[RowMapping]:
        return tx.execute(select(second_factors).where(second_factors.c.key_id != key_id)
                          .order_by(second_factors.c.user_id).limit(_BATCH).with_for_update()).mappings().all()

    def _reseal_factor(self, tx: Connection, row: RowMapping, key_id: str) -> None:
        user_id = row["user_id"]
        text = unseal(self._ring, bytes(row["ciphertext"]), _factor_place(user_id), _factor_name(user_id))
        tx.execute(second_factors.update().where(second_factors.c.user_id == user_id).values(
            ciphertext=seal(self._ring, key_id, text, _factor_place(user_id)), key_id=key_id))

    def _seal(self, text: str, key_id: str, place: tuple[int, str | None, str]) -> bytes:
        return seal(self._ring, key_id, text, ("candlelake credential", *place))

    def _open(self, envelope: bytes, place: tuple[int, str | None, str]) -> str:
        what = f"credential {place[2]!r} of connection {place[0]}"
        return unseal(self._ring, envelope, ("candlelake credential", *place), what)


def _is_field(connection_id: int, field: str) -> ColumnElement[bool]:
    return and_(credentials.c.connection_id == connection_id, credentials.c.field == field)


def _factor_place(user_id: int) -> tuple[object, ...]:
    return ("candlelake second factor", user_id)


def _factor_name(user_id: int) -> str:
    return f"the second factor of user {user_id}"


def _create_or_read(path: Path) -> KeyRing:
    try:
        return KeyRing.create(path)
    except PermanentError:  # another process was faster
        ring = KeyRing({}, path)
        ring.reload()
        return ring
