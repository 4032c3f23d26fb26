"""The connection service, on SQLite and on PostgreSQL."""

import logging
import traceback

import pytest
from sqlalchemy import select, text

from connections.inputs import check_credentials
from connections.service import ConnectionInput, budget_key
from core.clock import LATEST_US, MINUTE_US
from core.errors import (
    AddressRefusedError,
    BadPayloadError,
    CredentialsRefusedError,
    DecryptionError,
    InputError,
    NetworkError,
    NotFoundError,
    PermanentError,
    UnknownSymbolError,
)
from core.interval import Interval
from core.secrets import Secret
from core.timeframe import Timeframe
from providers.base import ConnectionSpec
from providers.mtapi.provider import MT5_CAPABILITIES
from storage.metadata.tables import credentials, head_candles, notifications, series

M1 = Timeframe.parse("1m")
CANARY = "canary-5f1e7c"


def _notified(service):
    with service.lake.metadata.read() as tx:
        return list(tx.execute(select(notifications.c.kind).order_by(notifications.c.id)).scalars())


def _actions(service, slug="small"):
    return [(row.action, row.status) for row in service.logs(slug)]


def _stored_credentials(service, row):
    with service.lake.metadata.read() as tx:
        return {k: v.reveal() for k, v in service._vault.get(tx, row.id, row.owner).items()}


async def _use(service, fault=None):
    async with service.open_provider("small") as provider:
        if fault is not None:
            raise fault
        return provider


def test_create_stores_everything_and_logs_it(service, given, clock):
    """A new connection has its type from the provider, its series, encrypted credentials and a log row."""
    row = service.create(given(symbols=["BTC/USD", "ETH/USD", "BTC/USD"], timeframes=["1m", "1h"]))
    assert (row.status, row.type, row.name, row.created_at_us) == ("active", "crypto", "small", clock.now_us())
    assert row.symbols == ("BTC/USD", "ETH/USD")
    assert row.timeframes == ("1m", "1h")
    assert row.credential_fields == ("password", "user")
    assert _stored_credentials(service, row) == {"user": "7", "password": "right"}
    assert service.list() == [row] == [service.get("small")]
    assert service.list(owner="nobody") == []
    assert _actions(service) == [("create", "success")]
    assert service.logs("small")[0].metadata == {"series": 2 * 2}


@pytest.mark.parametrize(("changes", "error", "words"), [
    ({"slug": "Bad Slug"}, InputError, "slug"),
    ({"provider": "nobody"}, InputError, "small"),
    ({"timeframes": ["1y"]}, InputError, "1y"),
    ({"timeframes": ["1d"]}, InputError, "1h"),
    ({"symbols": [" "]}, InputError, "symbol"),
    ({"symbols": []}, InputError, "symbols"),
    ({"timeframes": []}, InputError, "timeframes"),
    ({"credentials": {"user": "7", "password": ""}}, InputError, "password"),
    ({"credentials": {"user": "7", "password": "x", "pin": CANARY}}, InputError, "pin"),
    ({"config": {"api_key": CANARY}}, InputError, "credentials"),
    ({"settings": {"retention": 1}}, InputError, "retention_days"),
    ({"settings": {"retention_days": 0}}, InputError, "retention_days"),
    ({"base_url": "ftp://127.0.0.1"}, AddressRefusedError, "ftp"),
    ({"base_url": "http://169.254.169.254/"}, AddressRefusedError, "not allowed"),
    ({"base_url": f"http://user:{CANARY}@127.0.0.1/"}, AddressRefusedError, "user part"),
])
def test_bad_input_is_refused_in_one_line(service, given, changes, error, words):
    """Each bad part is named with what is allowed; nothing is stored and no secret is repeated."""
    with pytest.raises(error, match=words) as caught:
        service.create(given(**changes))
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    assert service.list() == []


@pytest.mark.parametrize("data", [
    {"slug": "a"}, {"slug": "a", "provider": "small", "passwort": CANARY},
    {"slug": "a", "provider": "small", "credentials": {"password": [CANARY]}},
    {"slug": "a", "provider": "small", "credentials": CANARY},
])
def test_malformed_input_is_an_input_error_without_its_content(data):
    """Missing and unknown fields and wrong types are InputErrors that repeat nothing of what was entered."""
    with pytest.raises(InputError) as caught:
        ConnectionInput(**data)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(("changes", "reaches"), [
    ({"is_admin_owned": True}, True),
    ({"is_admin_owned": False}, False),  # anybody's connection
    ({"is_admin_owned": True, "base_url": "http://127.0.0.1:4281/small"}, False),  # another server of this machine
    ({"is_admin_owned": True, "base_url": "https://127.0.0.1:4280/small"}, False),
    ({"is_admin_owned": True, "base_url": "http://10.0.0.1:4280/small"}, False),
])
async def test_only_the_operators_own_reach_the_sandbox(service, given, venue, changes, reaches):
    """Without leave for private addresses, only an operator's connection to this home's sandbox may use one, on opening too."""
    service.settings = service.settings.model_copy(update={"allow_private_hosts": False})
    if not reaches:
        with pytest.raises(AddressRefusedError):
            service.create(given(**changes))
        return
    service.create(given(**changes))
    async with service.open_provider("small"):
        assert venue.specs[-1].allow_private_hosts
    service.settings = service.settings.model_copy(update={"sandbox_port": 4300})
    async with service.open_provider("small"):
        assert not venue.specs[-1].allow_private_hosts


def test_slug_is_taken(service, given):
    """A second connection of the same slug is refused and the first one stays."""
    service.create(given())
    with pytest.raises(InputError, match="taken"):
        service.create(given(name="other"))
    assert service.get("small").name == "small"


def test_unknown_slug(service):
    """Every action on a slug that does not exist is a NotFoundError."""
    for action in (service.get, service.update, service.delete, service.activate, service.deactivate):
        with pytest.raises(NotFoundError, match="nobody"):
            action("nobody")


@pytest.mark.parametrize("given", [set(), {"api_key"}, {"host"}, {"port"}])
def test_a_brokers_login_needs_a_server_or_an_address(given):
    """User and password alone lead nowhere: a MetaTrader connection without its server, or half an address, is refused."""
    with pytest.raises(InputError, match="server, or host and port"):
        check_credentials({"user", "password"} | given, MT5_CAPABILITIES)
    check_credentials({"user", "password", "server"} | given, MT5_CAPABILITIES)
    check_credentials({"user", "password", "host", "port"} | given, MT5_CAPABILITIES)


def test_update_keeps_blank_credentials(service, given):
    """A blank secret keeps the stored one; a given one replaces it."""
    service.create(given())
    row = service.update("small", name="New", credentials={"user": "8", "password": ""})
    assert _stored_credentials(service, row) == {"user": "8", "password": "right"}
    assert row.name == "New"
    assert _actions(service)[0] == ("update", "success")


def test_update_refuses_what_cannot_change(service, given):
    """Slug, provider and state columns are no fields of an update (mass assignment)."""
    service.create(given())
    for name in ("slug", "provider", "status", "id", "consecutive_failures"):
        with pytest.raises(InputError, match=name):
            service.update("small", **{name: "x"})


def test_another_host_needs_the_credentials_again(service, given):
    """Stored credentials never go to a new host because somebody edits the address; a new port is the same host."""
    service.create(given())
    for url in ("http://10.0.0.9/small", None):
        with pytest.raises(InputError, match="entered again"):
            service.update("small", base_url=url)
    with pytest.raises(InputError, match="password"):
        service.update("small", base_url="http://10.0.0.9/small", credentials={"user": "7"})
    with pytest.raises(InputError, match="password"):
        service.update("small", credentials={"server": "Evil-Server"})
    assert service.get("small").base_url == "http://127.0.0.1:4280/small"
    service.update("small", base_url="http://127.0.0.1:4999/small")
    row = service.update("small", base_url="http://10.0.0.9/small", credentials={"user": "7", "password": "new"})
    assert row.base_url == "http://10.0.0.9/small"
    assert _stored_credentials(service, row)["password"] == "new"


def test_a_new_owner_gets_ciphertexts_of_his_own(service, given):
    """When the owner changes the credentials are sealed anew; those bound to the old owner open no more."""
    row = service.create(given(owner="ann"))
    with service.lake.metadata.read() as tx:
        before = dict(tx.execute(select(credentials.c.field, credentials.c.ciphertext)).tuples().all())
    row = service.update("small", owner="bob")
    assert _stored_credentials(service, row) == {"user": "7", "password": "right"}
    with service.lake.metadata.write() as tx:
        for field, ciphertext in before.items():
            tx.execute(credentials.update().where(credentials.c.field == field).values(ciphertext=ciphertext))
    with pytest.raises(DecryptionError):
        _stored_credentials(service, row)


def test_series_follow_the_symbols_and_keep_their_candles(service, given):
    """Symbols that are no longer wanted are switched off, not removed, and come back as they were."""
    service.create(given(symbols=["A", "B"]))
    row = service.update("small", symbols=["B", "C"])
    assert row.symbols == ("B", "C")
    with service.lake.metadata.read() as tx:
        assert sorted(tx.execute(select(series.c.symbol, series.c.is_active)).tuples()) == [
            ("A", False), ("B", True), ("C", True)]
    assert service.update("small", symbols=["A"], timeframes=["1h"]).timeframes == ("1h",)


def test_delete_never_removes_candles_silently(service, given):
    """With stored candles a delete is refused and says what to do; without, all goes but the log."""
    row = service.create(given())
    with service.lake.metadata.write() as tx:
        series_id = tx.execute(select(series.c.id)).scalar_one()
        tx.execute(head_candles.insert().values(
            series_id=series_id, first_us=0, last_us=0, rows=1, known_at_us=1, source="rest", run_id="r", candles=bytes(56)))
    with pytest.raises(PermanentError, match=r"1 stored candles.*purge"):
        service.delete("small")
    assert service.get("small") == row
    with service.lake.metadata.write() as tx:
        tx.execute(head_candles.delete())
    removed = service.delete("small")
    assert (removed.credentials, removed.series, removed.candles) == (2, 1, 0)
    assert service.list() == []
    with service.lake.metadata.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM credentials")).scalar_one() == 0
    assert _actions(service) == [("delete", "success"), ("create", "success")]


def test_activate_and_deactivate(service, given):
    """Both are logged; an inactive connection is not opened."""
    service.create(given(is_active=False))
    assert service.get("small").status == "inactive"
    assert service.activate("small").status == "active"
    assert service.deactivate("small").is_active is False
    assert [action for action, _ in _actions(service)] == ["deactivate", "activate", "create"]


async def test_inactive_is_not_opened(service, given, venue):
    """Opening an inactive connection says how to activate it and asks nobody."""
    service.create(given(is_active=False))
    with pytest.raises(InputError, match="activate small"):
        await _use(service)
    assert venue.logins == 0


async def test_open_provider_connects_and_disconnects(service, given, venue, clock):
    """The body gets a connected provider with the stored credentials; afterwards the session is closed."""
    service.create(given())
    async with service.open_provider("small") as provider:
        assert provider.is_connected
        assert venue.open_sessions == 1
        page = await provider.fetch_candles("BTC/USD", M1, Interval(clock.now_us() - 5 * MINUTE_US, clock.now_us()))
        assert page.candles.height
    assert venue.open_sessions == 0
    assert venue.specs[0].credentials["password"] == Secret("right")
    assert service.get("small").last_connected_at_us == clock.now_us()
    with pytest.raises(RuntimeError):
        await _use(service, RuntimeError())
    assert venue.open_sessions == 0
    assert service.get("small").consecutive_failures == 0


async def test_refused_credentials_stop_at_once(service, given, venue):
    """One refused login puts the connection into error; nobody logs in again until the credentials change."""
    service.create(given(credentials={"user": "7", "password": "wrong"}))
    for _ in range(3):
        with pytest.raises(CredentialsRefusedError):
            await _use(service)
    row = service.get("small")
    assert venue.logins == 1
    assert (row.status, row.retry_at_us) == ("error", LATEST_US)
    assert "enter the credentials again" in row.status_reason
    assert _notified(service) == ["credentials_refused"]
    service.update("small", name="another name")
    service.update("small", base_url="http://127.0.0.1:9/small")
    with pytest.raises(CredentialsRefusedError):
        await _use(service)
    assert venue.logins == 1
    assert service.update("small", credentials={"password": "right"}).status == "active"
    await _use(service)
    assert venue.logins == 2


async def test_a_login_refused_inside_the_body_stops_the_rest(service, given, venue, clock):
    """When the provider refuses in the middle, further calls are not passed on, even if the caller goes on."""
    service.create(given())
    venue.data_fault = CredentialsRefusedError("key revoked")
    interval = Interval(clock.now_us() - 5 * MINUTE_US, clock.now_us())
    async with service.open_provider("small") as provider:
        for _ in range(2):
            with pytest.raises(CredentialsRefusedError, match="revoked"):
                await provider.fetch_candles("BTC/USD", M1, interval)
            venue.data_fault = None
        assert not provider.is_connected
    assert service.get("small").retry_at_us == LATEST_US


async def test_failures_back_off_and_are_told_once(service, given, venue, clock):
    """Transient failures wait longer each time, become an error after the limit with one notification; recovery is told."""
    service.create(given())
    venue.fault = NetworkError("no route")
    waits = []
    for count in range(1, 6):
        with pytest.raises(NetworkError):
            await _use(service)
        row = service.get("small")
        assert row.consecutive_failures == count
        assert row.status == ("error" if count >= 3 else "active")
        assert row.last_error == "no route"
        waits.append(row.retry_at_us - clock.now_us())
    assert waits[4] > waits[0] > 0
    assert _notified(service) == ["connection_failing"]
    venue.fault = None
    await _use(service)
    row = service.get("small")
    assert (row.status, row.consecutive_failures, row.retry_at_us, row.last_error) == ("active", 0, None, None)
    assert _notified(service) == ["connection_failing", "connection_recovered"]
    await _use(service)
    assert len(_notified(service)) == 2


async def test_a_session_whose_every_call_fails_counts_as_failure(service, given, venue, clock):
    """A caller that swallows errors hides nothing: a session without one good answer is a failure, one good one is none."""
    service.create(given())
    interval = Interval(clock.now_us() - 5 * MINUTE_US, clock.now_us())
    venue.data_fault = BadPayloadError("HTML")
    async with service.open_provider("small") as provider:
        with pytest.raises(BadPayloadError):
            await provider.fetch_candles("BTC/USD", M1, interval)
    assert service.get("small").consecutive_failures == 1
    async with service.open_provider("small") as provider:
        with pytest.raises(BadPayloadError):
            await provider.fetch_candles("BTC/USD", M1, interval)
        await provider.symbols()
        await provider.account_info()
    assert service.get("small").consecutive_failures == 0


async def test_unknown_symbols_say_nothing_about_the_connection(service, given, venue):
    """An error about what was asked for is passed on and not counted."""
    service.create(given())
    with pytest.raises(UnknownSymbolError):
        await _use(service, UnknownSymbolError("no such symbol"))
    assert service.get("small").consecutive_failures == 0


async def test_an_undecryptable_credential_is_an_error_state(service, given, venue):
    """A ciphertext that does not open puts the connection into error and nobody is asked to log in."""
    service.create(given())
    with service.lake.metadata.write() as tx:
        tx.execute(credentials.update().values(ciphertext=b"v1:gone:AAAA:AAAA"))
    with pytest.raises(PermanentError, match="gone"):
        await _use(service)
    assert service.get("small").status == "error"
    result = await service.test("small")
    assert result.type == "error"
    assert "gone" in result.message
    assert venue.logins == 0


async def test_test_takes_named_steps(service, given, venue):
    """A good connection passes every step with the stored secret; what cannot be tried says that it was skipped."""
    service.create(given())
    result = await service.test("small")
    assert result.type == "success"
    assert [(step.name, step.ok) for step in result.steps] == [
        ("address", True), ("tls", True), ("login", True), ("permission", True), ("candle", True)]
    assert "skipped" in result.steps[1].message
    assert "may trade" in result.steps[3].message
    assert "BTC/USD 1m: " in result.steps[4].message
    assert venue.open_sessions == 0
    assert _actions(service)[0] == ("test", "success")


async def test_test_stops_at_the_step_that_fails(service, given, venue):
    """A refused login is said with what to do, the steps behind it are not tried, and the connection is stopped."""
    service.create(given(credentials={"user": "7", "password": "wrong"}))
    result = await service.test("small")
    assert result.type == "error"
    assert [step.ok for step in result.steps] == [True, True, False, False, False]
    assert "enter the credentials again" in result.steps[2].message
    assert "not tried: login failed" in result.steps[3].message
    assert _actions(service)[0] == ("test", "error")
    assert service.get("small").status == "error"
    service.update("small", credentials={"password": "right"})
    assert (await service.test("small")).type == "success"
    assert service.get("small").status == "active"


async def test_test_names_an_unknown_symbol(service, given):
    """A symbol the provider does not offer fails the last step and names some that it does."""
    service.create(given(symbols=["NOPE"]))
    result = await service.test("small")
    assert [step.ok for step in result.steps] == [True, True, True, True, False]
    assert "BTC/USD" in result.steps[4].message


async def test_test_of_tls_and_addresses(service, given, unused_tcp_port):
    """An https address that does not answer fails at TLS; a host that does not resolve fails at the address."""
    result = await service.test_input(given(base_url=f"https://127.0.0.1:{unused_tcp_port}/x"))
    assert [step.ok for step in result.steps[:3]] == [True, False, False]
    result = await service.test_input(given(base_url="https://does-not-exist.invalid/x"))
    assert result.steps[0].ok is False
    assert "spelling" in result.steps[0].message


async def test_an_unsaved_connection_can_be_tried(service, given):
    """Testing before saving stores nothing; without series the provider's first symbol is tried."""
    result = await service.test_input(given(symbols=[], timeframes=[]))
    assert result.type == "success"
    assert service.list() == []


async def test_no_secret_leaves_the_vault(service, given, venue, caplog, metadata_url):
    """A planted secret is in no log row, notification, database byte, log line, repr or traceback."""
    caplog.set_level(logging.DEBUG)
    row = service.create(given(credentials={"user": "7", "password": CANARY}))
    texts = [repr(row), repr(given(credentials={"user": "7", "password": CANARY})), repr(service.list())]
    venue.password = CANARY
    assert (await service.test("small")).type == "success"
    venue.fault = NetworkError(f"GET http://x/y?password={CANARY}&a=1 failed")
    for _ in range(4):
        with pytest.raises(NetworkError):
            await _use(service)
    venue.fault, venue.password = None, "changed"
    with pytest.raises(CredentialsRefusedError) as caught:
        await _use(service)
    texts += traceback.format_exception(caught.value)
    texts += [repr(venue.specs), caplog.text, repr(service.get("small")), repr(service.logs("small"))]
    with service.lake.metadata.read() as tx:
        for table in ("connections", "connection_logs", "notifications", "credentials"):
            texts += [repr(item) for item in tx.execute(text(f"SELECT * FROM {table}"))]
    assert CANARY not in "".join(texts)
    if metadata_url.startswith("sqlite"):
        from pathlib import Path

        database = Path(metadata_url.removeprefix("sqlite:///"))
        for path in database.parent.glob(database.name + "*"):
            assert CANARY.encode() not in path.read_bytes()


def test_budget_key_is_venue_and_account():
    """Accounts of one venue have budgets of their own, public data shares one; no account's name is in the key."""
    def key(**fields):
        return budget_key(ConnectionSpec("s", "mtapi:mt5", "http://127.0.0.1:1", {k: Secret(v) for k, v in fields.items()}))

    assert key(user="7", password="a") == key(user="7", password="b")
    assert key(user="7", server="A") != key(user="7", server="B") != key(user="8", server="B")
    assert CANARY not in key(api_key=CANARY)
    assert "public" in key()
