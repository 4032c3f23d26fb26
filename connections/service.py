"""The connection service: everything that is done to a connection, each action logged in its own transaction."""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select
from sqlalchemy import update as change

from connections.accounts import kind_of
from connections.budget import StoredBudget
from connections.changes import entered, keep_series, merged, moves, state_after
from connections.clocks import alarm, note_clock
from connections.health import NEVER_AGAIN, record_failure, record_success
from connections.holdings import check_empty, count_stored, count_ticks, remove_stored, retire_files, unstreamed
from connections.inputs import ConnectionInput, check_credentials, check_input, market_type, may_be_private
from connections.leases import Lease, Leases
from connections.rows import (
    ConnectionRow,
    LogRow,
    Outcome,
    read_connection,
    read_connections,
    read_logs,
    write_log,
)
from connections.trial import ConnectionTest, TestStep, Trial
from connections.watch import WatchedProvider
from core.clock import Clock, SystemClock
from core.errors import (
    CandlelakeError,
    ClockRuleError,
    CredentialsRefusedError,
    InputError,
    PermanentError,
    StoreConflictError,
)
from core.secrets import Secret
from core.settings import Settings
from providers import registry
from providers.addresses import check_url
from providers.base import (
    AccountInfo,
    Capabilities,
    ConnectionSpec,
    MarketDataProvider,
    Priority,
    RateBudget,
    Unlimited,
)
from storage.audit import Witness, unwitnessed
from storage.metadata.tables import connections, lake_files, series
from storage.vault import Vault

if TYPE_CHECKING:
    from storage import Lake

__all__ = ["ConnectionInput", "ConnectionRow", "ConnectionService", "ConnectionTest", "Deleted", "LogRow", "TestStep"]

OpenProvider = Callable[[ConnectionSpec, RateBudget], MarketDataProvider]
Describe = Callable[[str], Capabilities]
log = logging.getLogger(__name__)

_ACCOUNT_FIELDS = ("user", "login", "api_key", "uid")  # the first that is there says whose limits are spent
_BROKER_FIELDS = ("server", "host")  # where a bridge carries the password to
_CHANGEABLE = frozenset(ConnectionInput.model_fields) - {"slug", "provider"}


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was removed with a connection."""

    slug: str
    credentials: int
    series: int
    candles: int


class ConnectionService:
    """The connections of one home. Synchronous but for `test` and `open_provider`."""

    def __init__(self, lake: Lake, vault: Vault, settings: Settings, clock: Clock, *,
                 open_provider: OpenProvider = registry.open_provider, describe: Describe = registry.describe) -> None:
        self.lake = lake
        self.settings = settings
        self.clock = clock
        self._vault = vault
        self._open = open_provider
        self._describe = describe

    def create(self, given: ConnectionInput, *, witness: Witness = unwitnessed) -> ConnectionRow:
        """Add a connection with its series and credentials; a `witness` writes it down in the same transaction, here and below.

        Raises:
            InputError: a part is not allowed, or the slug is taken.
            AddressRefusedError: the base URL is not one we may use.
        """
        capabilities = self._check_input(given)
        secrets = entered(given.credentials)
        check_credentials(set(secrets), capabilities)
        taken = InputError("slug", given.slug, "one that is not taken", "choose another, or update that connection")
        try:
            with self.lake.metadata.write() as tx:
                if tx.execute(select(connections.c.id).where(connections.c.slug == given.slug)).first():
                    raise taken
                now_us = self.clock.now_us()
                key = tx.execute(connections.insert().values(
                    slug=given.slug, name=given.name or given.slug, type=market_type(given, capabilities),
                    provider=given.provider, base_url=given.base_url, config=given.config, settings=given.settings,
                    status="active" if given.is_active else "inactive", is_active=given.is_active, owner=given.owner,
                    is_admin_owned=given.is_admin_owned, created_at_us=now_us, updated_at_us=now_us,
                )).inserted_primary_key
                connection_id = int(key[0]) if key is not None else 0
                self._vault.put(tx, connection_id, given.owner, secrets)
                keep_series(tx, connection_id, given.symbols, given.timeframes, now_us)
                self._log(tx, (connection_id, given.slug), "create", f"added ({given.provider})", series=_count(given))
                witness(tx)
                return read_connection(tx, given.slug)
        except StoreConflictError:
            raise taken from None

    def get(self, slug: str) -> ConnectionRow:
        """Return one connection; NotFoundError when there is none of that slug."""
        with self.lake.metadata.read() as tx:
            return read_connection(tx, slug)

    def list(self, owner: str | None = None) -> list[ConnectionRow]:
        """Return all connections by slug; only one owner's when `owner` is given."""
        with self.lake.metadata.read() as tx:
            return read_connections(tx, owner)

    def logs(self, slug: str, limit: int = 100) -> builtins.list[LogRow]:
        """Return the newest log rows of a slug, newest first, those of a deleted connection too."""
        with self.lake.metadata.read() as tx:
            return read_logs(tx, slug, limit)

    def update(self, slug: str, witness: Witness = unwitnessed, /, **changes: Any) -> ConnectionRow:
        """Change what is given and keep the rest; a blank credential keeps the stored one.

        Raises:
            InputError: unknown field or value; or the host changes and not all stored credentials are entered again, which
                would send them to somebody else.
            NotFoundError: no such connection.
        """
        unknown = sorted(set(changes) - _CHANGEABLE)
        if unknown:
            raise InputError("update", unknown[0], sorted(_CHANGEABLE), "delete and add a connection to change the others")
        with self.lake.metadata.write() as tx:
            row = read_connection(tx, slug, for_update=True)
            given = merged(row, changes)
            capabilities = self._check_input(given)
            secrets = entered(given.credentials)
            if "credentials" in changes or given.base_url != row.base_url:
                self._check_kept(tx, row, given, secrets)
            check_credentials(set(row.credential_fields) | set(secrets), capabilities)
            if given.owner != row.owner:  # ciphertexts are bound to the owner: seal them anew
                secrets = {**self._vault.get(tx, row.id, row.owner), **secrets}
            self._vault.put(tx, row.id, given.owner, secrets)
            now_us = self.clock.now_us()
            tx.execute(connections.update().where(connections.c.id == row.id).values(
                name=given.name or slug, type=market_type(given, capabilities), base_url=given.base_url, config=given.config,
                settings=given.settings, owner=given.owner, is_admin_owned=given.is_admin_owned, is_active=given.is_active,
                updated_at_us=now_us, **state_after(row, given, changes)))
            if {"symbols", "timeframes"} & set(changes):
                keep_series(tx, row.id, given.symbols, given.timeframes, now_us)
            self._log(tx, (row.id, slug), "update", f"changed {', '.join(sorted(changes))}", changed=sorted(changes))
            witness(tx)
            return read_connection(tx, slug)

    def activate(self, slug: str, witness: Witness = unwitnessed) -> ConnectionRow:
        """Let scheduled fetches use the connection, from a clean state."""
        return self._switch(slug, witness, is_active=True)

    def deactivate(self, slug: str, witness: Witness = unwitnessed) -> ConnectionRow:
        """Keep the connection and its candles but fetch nothing through it."""
        return self._switch(slug, witness, is_active=False)

    def delete(self, slug: str, *, purge: bool = False, witness: Witness = unwitnessed) -> Deleted:
        """Remove a connection, its credentials and its series. Candles and ticks are never removed unless `purge` says so.

        Raises:
            PermanentError: it is streamed now, or candles or ticks of it are stored and `purge` was not given; nothing is changed.
            NotFoundError: no such connection.
        """
        self.get(slug)
        with unstreamed(Leases(self.lake.metadata, self.clock), slug) as lease:
            with self.lake.metadata.read() as tx:
                connection_id = read_connection(tx, slug).id
                stored, ticks = count_stored(tx, connection_id), count_ticks(self.lake, tx, slug, connection_id)
            if (stored or ticks) and not purge:
                raise PermanentError(f"{slug} has {stored} stored candles and {ticks} ticks; deactivate it to keep them, or delete it with purge to lose them")
            if purge:
                remove_stored(self.lake, slug)
            return self._deleted(slug, lease, stored, witness)

    def _deleted(self, slug: str, lease: Lease, stored: int, witness: Witness) -> Deleted:
        with lease.write() as tx:
            row = read_connection(tx, slug, for_update=True)
            ids = [item for (item,) in tx.execute(select(series.c.id).where(series.c.connection_id == row.id))]
            check_empty(tx, slug, row.id, ids)
            retire_files(self.lake, tx, row.id)
            tx.execute(lake_files.delete().where(lake_files.c.series_id.in_(ids)))
            removed = Deleted(slug, len(row.credential_fields), len(ids), stored)
            self._log(tx, (row.id, slug), "delete", f"removed {removed.credentials} credential fields, {removed.series} series, "
                      f"{removed.candles} candles", series=removed.series, candles=removed.candles)
            tx.execute(connections.delete().where(connections.c.id == row.id))
            witness(tx)
            return removed

    async def test(self, slug: str) -> ConnectionTest:
        """Try a stored connection with its stored credentials: address, TLS, login, permission, one candle.

        What goes wrong is in the result; a refused login also stops the connection, a success clears its error.

        Raises:
            NotFoundError: no such connection.
        """
        row = await asyncio.to_thread(self.get, slug)
        try:
            spec = await asyncio.to_thread(self._spec, row)
            budget = self._budget(spec, Priority.LIVE)
            result, error, account = await self._try(spec, budget, row.symbols, row.timeframes)
        except CandlelakeError as failed:  # a key is missing, or the config is not the provider's
            result, error, account = ConnectionTest("error", f"{slug}: {failed}", []), failed, None
        await asyncio.to_thread(self._note_test, row, result, error, None if account is None else {"account": kind_of(account)})
        return result

    async def test_input(self, given: ConnectionInput) -> ConnectionTest:
        """Try a connection that is not stored; stores nothing.

        Raises:
            InputError, AddressRefusedError: as `create`.
        """
        capabilities = await asyncio.to_thread(self._check_input, given)
        secrets = entered(given.credentials)
        check_credentials(set(secrets), capabilities)
        spec = self._make_spec(given, secrets)
        result, _, _ = await self._try(spec, Unlimited(), given.symbols, given.timeframes)
        return result

    def open_provider(
        self, slug: str, priority: Priority = Priority.LIVE,
    ) -> AbstractAsyncContextManager[MarketDataProvider]:
        """Return a context manager that yields the connected provider and always disconnects.

        Raises:
            NotFoundError: no such connection.
            InputError: it is inactive.
            CredentialsRefusedError: the login is refused, or was and nobody has changed the credentials since.
            TransientError: the provider does not answer; counted, with back-off.
        """
        return self._opened(slug, priority)

    @asynccontextmanager
    async def _opened(self, slug: str, priority: Priority) -> AsyncIterator[MarketDataProvider]:
        row = await asyncio.to_thread(self.get, slug)
        if not row.is_active:
            raise InputError("connection", slug, "an active one", f"run: candlelake connections activate {slug}")
        if row.retry_at_us == NEVER_AGAIN:
            raise CredentialsRefusedError(f"{slug}: {row.status_reason}")
        watched: WatchedProvider | None = None
        try:
            spec = await asyncio.to_thread(self._spec, row)
            watched = WatchedProvider(self._open(spec, self._budget(spec, priority)))
            await watched.connect()
            await asyncio.to_thread(self._remember_clock, row, watched)
            yield watched
        except CandlelakeError as error:
            if isinstance(error, ClockRuleError):
                await asyncio.to_thread(self._alarm_clock, row, error)
            failure = error if watched is None or watched.failure is None else watched.failure
            await asyncio.to_thread(record_failure, self, slug, failure)
            raise
        else:
            await self._conclude(row, watched)
        finally:
            if watched is not None:
                await watched.disconnect()

    async def _conclude(self, row: ConnectionRow, watched: WatchedProvider) -> None:
        if watched.failure is not None:
            await asyncio.to_thread(record_failure, self, row.slug, watched.failure)
        else:
            await asyncio.to_thread(self._succeeded, row.id)

    def _succeeded(self, connection_id: int) -> None:
        with self.lake.metadata.write() as tx:
            record_success(tx, connection_id, self.clock.now_us())

    def _remember_clock(self, row: ConnectionRow, watched: WatchedProvider) -> None:
        """Keep a broker's clock that was measured, for its rule costs many requests, and each confirmation of it."""
        clock, offset_us = watched.server_clock, getattr(watched, "measured_offset_us", None)
        if clock is None:
            return
        is_new = "server_clock" not in row.config
        with self.lake.metadata.write() as tx:
            if is_new:
                config = {**row.config, "server_clock": clock.as_config()}
                tx.execute(change(connections).where(connections.c.id == row.id).values(config=config))
                self._log(tx, (row.id, row.slug), "clock", "the server's clock was measured and is kept in the config",
                          server_clock=clock.as_config())
            note_clock(tx, row, "learned" if is_new else "confirmed", clock, offset_us, self.clock.now_us())

    def _alarm_clock(self, row: ConnectionRow, error: ClockRuleError) -> None:
        with self.lake.metadata.write() as tx:
            alarm(tx, row, error, self.clock.now_us())

    async def _try(
        self, spec: ConnectionSpec, budget: RateBudget, symbols: Iterable[str], timeframes: Iterable[str],
    ) -> tuple[ConnectionTest, CandlelakeError | None, AccountInfo | None]:
        pairs = [(symbol, name) for symbol in symbols for name in timeframes]
        trial = Trial(spec, self._open(spec, budget), pairs)
        return await trial.run(), trial.error, trial.account

    def _note_test(
        self, row: ConnectionRow, result: ConnectionTest, error: CandlelakeError | None, told: Mapping[str, object] | None,
    ) -> None:
        if isinstance(error, CredentialsRefusedError):
            record_failure(self, row.slug, error)
        with self.lake.metadata.write() as tx:
            if error is None:
                record_success(tx, row.id, self.clock.now_us())
            self._log(tx, (row.id, row.slug), "test", result.message, "success" if error is None else "error",
                      steps=[{"name": step.name, "ok": step.ok, "ms": step.ms} for step in result.steps], **(told or {}))

    def _spec(self, row: ConnectionRow) -> ConnectionSpec:
        with self.lake.metadata.read() as tx:
            secrets = self._vault.get(tx, row.id, row.owner)
        return self._make_spec(row, secrets)

    def _make_spec(self, of: ConnectionInput | ConnectionRow, secrets: Mapping[str, Secret]) -> ConnectionSpec:
        return ConnectionSpec(
            slug=of.slug, provider=of.provider, base_url=of.base_url, credentials=secrets, config=of.config,
            timeout=self.settings.request_timeout, allow_private_hosts=self._may_be_private(of), clock=self.clock)

    def _check_input(self, given: ConnectionInput) -> Capabilities:
        return check_input(given, self._describe, allow_private=self._may_be_private(given))

    def _may_be_private(self, of: ConnectionInput | ConnectionRow) -> bool:
        return may_be_private(of.base_url, self.settings, is_admin_owned=of.is_admin_owned)

    def _budget(self, spec: ConnectionSpec, priority: Priority) -> StoredBudget:
        capabilities = self._describe(spec.provider)
        return StoredBudget(
            self.lake.metadata, budget_key(spec), capabilities.requests_per_second, capabilities.concurrent_requests,
            priority, SystemClock())  # the machine's clock: other processes go by it, whatever clock this run was given

    def _switch(self, slug: str, witness: Witness, *, is_active: bool) -> ConnectionRow:
        with self.lake.metadata.write() as tx:
            row = read_connection(tx, slug, for_update=True)
            status = "active" if is_active else "inactive"
            tx.execute(connections.update().where(connections.c.id == row.id).values(
                is_active=is_active, status=status, status_reason=None, consecutive_failures=0, retry_at_us=None,
                updated_at_us=self.clock.now_us()))
            self._log(tx, (row.id, slug), "activate" if is_active else "deactivate", f"now {status}")
            witness(tx)
            return read_connection(tx, slug)

    def _check_kept(self, tx: Connection, row: ConnectionRow, given: ConnectionInput, entered: Mapping[str, Secret]) -> None:
        """Stored credentials must not go to another host because somebody edits an address."""
        kept = sorted(set(row.credential_fields) - set(entered) - set(_BROKER_FIELDS) - {"port"})
        if not kept:
            return
        moved = moves(row.base_url, given.base_url)
        if not moved and any(name in entered for name in _BROKER_FIELDS):
            stored = self._vault.get(tx, row.id, row.owner)
            moved = any(entered[name] != stored.get(name) for name in _BROKER_FIELDS if name in entered)
        if moved:
            raise InputError("credentials", f"another host without {', '.join(kept)}", "all stored credentials entered again",
                             "stored ones are not sent to a new host")

    def _log(self, tx: Connection, connection: tuple[int, str], action: str, message: str, outcome: Outcome = "success",
             **metadata: object) -> None:
        write_log(tx, connection, action, outcome, message, self.clock.now_us(), **metadata)


def budget_key(spec: ConnectionSpec) -> str:
    """Return whose limits a connection spends: venue and account, or venue and this machine for public data."""
    venue = spec.provider if spec.base_url is None else f"{spec.provider}@{check_url(spec.base_url).host}"
    for name in _ACCOUNT_FIELDS:
        account = spec.credentials.get(name)
        if account:
            place = "".join(item.reveal() for item in (spec.credentials.get(f) for f in _BROKER_FIELDS) if item)
            digest = hashlib.sha256(f"{place}\0{account.reveal()}".encode()).hexdigest()[:16]
            return f"{venue[:150]}:account:{digest}"
    return f"{venue[:120]}:public:{socket.gethostname()[:60]}"


def _count(given: ConnectionInput) -> int:
    return len(given.symbols) * len(given.timeframes)
