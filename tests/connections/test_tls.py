"""Whose certificates are trusted: the test of a connection, fetches and streams go by the same authorities, at a real TLS server with its own."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connections.trial import Trial
from core.clock import HOUR_US
from core.errors import InputError, NetworkError
from core.interval import Interval
from core.secrets import Secret
from core.timeframe import Timeframe
from providers.base import ConnectionSpec, Unlimited
from providers.registry import open_provider
from providers.tls import client_context
from sandbox.server import running

BROKER = {name: Secret(value) for name, value in {"user": "1001", "password": "practice", "server": "Candlelake-Demo"}.items()}
VENUES = {  # path, symbol, credentials, config
    "mtapi:mt5": ("/mt5", "EURUSD", BROKER, {"server_clock": {"offset_minutes": 120, "dst": "us"}}),
    "ccxt:coinbase": ("", "BTC/USD", {}, {}),
}


def _signed(name, key, issuer, issuer_key, *, is_authority):
    begin = datetime.now(UTC) - timedelta(days=2)
    return (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(begin + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False).sign(issuer_key, hashes.SHA256()))


@pytest.fixture
def authority(tmp_path):
    """An authority of our own, and the certificate with key that it gave to localhost: two PEM files."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    own, other = tmp_path / "authority.pem", tmp_path / "localhost.pem"
    pem = serialization.Encoding.PEM
    own.write_bytes(_signed("house", keys[0], "house", keys[0], is_authority=True).public_bytes(pem))
    other.write_bytes(_signed("localhost", keys[1], "house", keys[0], is_authority=False).public_bytes(pem) + keys[1].private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return own, other


@asynccontextmanager
async def in_front_of(port, certificate):
    """Listen with TLS on loopback and pass everything on to a plain port; yields our port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def carry(reader, writer):
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def pass_on(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def closing(provider):
    """Disconnect a provider at the end."""
    try:
        yield provider
    finally:
        await provider.disconnect()


@pytest.mark.parametrize("name", VENUES)
async def test_a_test_passes_where_fetch_and_stream_do(name, authority, monkeypatch) -> None:
    """An authority that nobody knows fails the test's TLS step and the login of a fetch; named by SSL_CERT_FILE it is good for both, and for the stream."""
    own, certificate = authority
    path, symbol, credentials, config = VENUES[name]
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with running(mode="replay") as box:
        async with in_front_of(int(box.url.rpartition(":")[2]), certificate) as port:
            spec = ConnectionSpec("mine", name, f"https://localhost:{port}{path}", credentials, config, 20.0, True, box.clock)

            def provider():
                return open_provider(spec, Unlimited())

            refused = await Trial(spec, provider(), [(symbol, "1m")]).run()
            assert [(step.name, step.ok) for step in refused.steps[:3]] == [("address", True), ("tls", False), ("login", False)]
            async with closing(provider()) as opened:
                with pytest.raises(NetworkError):
                    await opened.connect()
            monkeypatch.setenv("SSL_CERT_FILE", str(own))
            result = await Trial(spec, provider(), [(symbol, "1m")]).run()
            assert result.type == "success", result.message
            async with closing(provider()) as opened:
                await opened.connect()
                now = await opened.server_time_us()
                assert (await opened.fetch_candles(symbol, Timeframe.parse("1m"), Interval(now - HOUR_US, now))).candles.height
                stream = opened.stream_ticks([symbol])
                assert await anext(stream) == []
                await stream.aclose()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_named(content, tmp_path, monkeypatch) -> None:
    """SSL_CERT_FILE that is not there or holds no certificate is one line that names it, not a broker whose certificate is bad."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(InputError, match=r"SSL_CERT_FILE.*authorities\.pem"):
        client_context()
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "away"))
    with pytest.raises(InputError, match=r"SSL_CERT_DIR.*away"):
        client_context()
