"""connections.trial: each step of a connection's test against real sockets: plain, TLS with good and bad certificates, silence."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connections.trial import Trial
from core.clock import to_datetime
from core.errors import ProviderTimeoutError, UnsupportedError
from core.secrets import Secret
from providers.base import ConnectionSpec, Unlimited
from tests.connections.conftest import NOW_US, SmallProvider, Venue


class Provider(SmallProvider):
    """A small provider whose account, symbols, login time and trading can be chosen."""

    has_account, login_seconds, trades = True, 0.0, True

    async def connect(self):
        await asyncio.sleep(self.login_seconds)
        await super().connect()

    async def account_info(self):
        if not self.has_account:
            raise UnsupportedError("no accounts here")
        return await super().account_info()

    async def fetch_candles(self, symbol, timeframe, interval):
        page = await super().fetch_candles(symbol, timeframe, interval)
        return page if self.trades else SimpleNamespace(candles=page.candles.clear())


@pytest.fixture
def trial(clock):
    """Build a trial of a provider with changes; it has no addresses of its own unless a base URL is given."""
    def make(base_url=None, series=(("BTC/USD", "1m"),), symbols=("BTC/USD",), timeout=5.0, **options):
        spec = ConnectionSpec("small", "small", base_url, {"user": Secret("7"), "password": Secret("right")}, {}, timeout, True, clock)
        provider = Provider(Venue(symbols=symbols), spec, Unlimited())
        for name, value in options.items():
            setattr(provider, name, value)
        return Trial(spec, provider, list(series))
    return make


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost that signs itself, and its key: one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    day = to_datetime(NOW_US)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(day - timedelta(days=3650)).not_valid_after(day + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256()))
    path = tmp_path / "localhost.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


@asynccontextmanager
async def listening(certificate=None):
    """Listen on loopback, with TLS when a certificate is given; yields the port."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    async def answer(reader, writer):
        if context is None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def step(result, name):
    return next(item for item in result.steps if item.name == name)


async def test_a_good_certificate_is_said_with_its_protocol(trial, certificate, monkeypatch) -> None:
    """Against a server whose certificate the machine trusts the TLS step passes and names the protocol."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with listening(certificate) as port:
        result = await trial(f"https://localhost:{port}").run()
    assert step(result, "tls").ok, step(result, "tls").message
    assert step(result, "tls").message.startswith("TLSv1.")
    assert result.type == "success"


async def test_a_certificate_nobody_trusts_ends_the_test(trial, certificate) -> None:
    """A self-signed certificate is not good: no login is tried, so no password goes there."""
    made = trial(None)
    async with listening(certificate) as port:
        made = trial(f"https://localhost:{port}")
        result = await made.run()
    assert "certificate of localhost is not good" in step(result, "tls").message
    assert "check the port and the certificate" in step(result, "tls").message
    assert "not tried: tls failed" in step(result, "login").message
    assert made.provider.venue.logins == 0


async def test_a_port_without_tls_and_a_closed_port_are_told_apart(trial, unused_tcp_port) -> None:
    """A server that speaks plain HTTP where TLS is expected, and a port where nobody listens, each have their own line."""
    async with listening() as port:
        plain = await trial(f"https://127.0.0.1:{port}").run()
    assert "does not speak TLS" in step(plain, "tls").message
    closed = await trial(f"https://127.0.0.1:{unused_tcp_port}").run()
    assert "takes no connection" in step(closed, "tls").message
    assert isinstance(closed.type, str)
    assert "\n" not in closed.message


async def test_what_does_not_apply_is_skipped_by_name(trial) -> None:
    """Without a base URL and without accounts the steps say that they were skipped, and the test succeeds."""
    result = await trial(has_account=False).run()
    assert result.type == "success"
    assert "the provider's own addresses" in step(result, "address").message
    assert "part of the login" in step(result, "tls").message
    assert "public data has no account" in step(result, "permission").message


async def test_without_series_the_first_symbol_is_tried(trial) -> None:
    """A connection with no series yet is tried with what the provider offers; offering nothing is a failure that says so."""
    assert "BTC/USD 1m: " in step(await trial(series=()).run(), "candle").message
    result = await trial(series=(), symbols=()).run()
    assert "offers no symbols" in step(result, "candle").message
    assert result.type == "error"


async def test_a_quiet_symbol_is_no_failure(trial) -> None:
    """A symbol that is known but was not traded lately passes, and the message says since when."""
    result = await trial(trades=False).run()
    assert result.type == "success"
    assert "nothing was traded since 2023-11-" in step(result, "candle").message


async def test_a_login_that_never_ends_is_ended(trial) -> None:
    """A step that does not end is given up after twice the request timeout, with a line on what to do."""
    made = trial(timeout=0.05, login_seconds=30.0)
    result = await made.run()
    assert "no end after 0.1 s" in step(result, "login").message
    assert isinstance(made.error, ProviderTimeoutError)
