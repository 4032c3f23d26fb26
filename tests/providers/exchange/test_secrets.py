"""A canary for a key: nowhere but in the signed request."""

import io
import logging
import traceback

import pytest

from core import errors
from core.interval import Interval
from core.timeframe import Timeframe
from tests.providers.exchange.conftest import START_US

KEY, SECRET = "c4n4ry-key-0123456789", "c4n4ry-secret-0123456789"
CREDENTIALS = {"api_key": KEY, "secret": SECRET}
FAULTS = [
    {"status": 401, "body": f'{{"code":-2015,"msg":"Invalid API-key {KEY}"}}'},
    {"status": 403, "body": f"{{\"echo\":\"{KEY} {SECRET}\"}}"}, {"status": 429}, {"status": 500, "body": SECRET},
    {"body": "<html>" + KEY}, {"body": "{}"}, {"body": "DROP"}, {"body": "CUT"}, {"body": "[1]"}, {"status": 302},
    {"status": 400, "body": '{"code":-1021}'}, {"body": "null"},
]


def everything(error):
    """Return all that a log or a crash report could show of an error, with every local of every frame but the test's own."""
    error = error.with_traceback(error.__traceback__.tb_next)
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    while error is not None:
        text += repr(error) + str(error) + repr(getattr(error, "__notes__", ""))
        error = error.__cause__ or error.__context__
    return text


@pytest.fixture
def log():
    """All that any logger says at DEBUG."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    before = root.level
    names = [name for name in logging.root.manager.loggerDict if name.startswith(("ccxt", "aiohttp", "asyncio", "providers"))]
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)


async def test_account_info_signs_and_shows_no_key(opened, venue, log):
    """The balance is asked for with key and signature; what comes back names the account by four letters at most."""
    provider = await opened("binance", credentials=CREDENTIALS)
    info = await provider.account_info()
    (query, headers), = [(query, headers) for path, query, headers in venue.requests if path.endswith("/account")]
    assert headers["X-MBX-APIKEY"] == KEY
    assert len(query["signature"]) == 64
    assert info.can_trade is True
    assert info.server == "binance"
    assert info.is_demo is None  # at an address of our own nobody knows
    assert "c4n4ry" not in repr(info) + log.getvalue() + repr(provider) + repr(provider._exchange.__dict__)


async def test_public_data_is_never_signed(opened, venue):
    """With credentials at hand, candles and markets are still asked for as anybody would."""
    provider = await opened("binance", credentials=CREDENTIALS)
    await provider.fetch_candles("BTC/USDT", Timeframe.parse("1m"), Interval(START_US, START_US + 60_000_000))
    assert all("c4n4ry" not in repr(request) and "signature" not in repr(request) for request in venue.requests)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.get('status', 200)} {fault.get('body', '')[:6]}")
async def test_no_failure_shows_a_key(fault, opened, venue, log, capsys):
    """Whatever goes wrong in a signed request: no key, no secret, no signature in errors, traces, locals, logs or output."""
    provider = await opened("binance", credentials=CREDENTIALS)
    venue.fault("/account", **fault)
    with pytest.raises(errors.CandlelakeError) as caught:
        await provider.account_info()
    out, err = capsys.readouterr()
    seen = everything(caught.value) + log.getvalue() + out + err
    signatures = [query["signature"] for path, query, _ in venue.requests if path.endswith("/account")]
    assert signatures
    for canary in (KEY, SECRET, *signatures):
        assert canary not in seen
    assert provider._exchange.apiKey == provider._exchange.secret == ""


async def test_a_key_that_worked_and_is_refused_is_refused(opened, venue):
    """The library calls a revoked key a flood once it has worked; it is a refused key, and nobody waits and tries again."""
    provider = await opened("binance", credentials=CREDENTIALS)
    await provider.account_info()
    venue.fault("/account", status=401, body='{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}')
    with pytest.raises(errors.CredentialsRefusedError):
        await provider.account_info()


async def test_without_credentials_there_is_no_account(opened):
    """Public data has no account, and that is said; half a key is named for what it lacks."""
    provider = await opened("binance")
    with pytest.raises(errors.UnsupportedError, match="no credentials"):
        await provider.account_info()
    half = await opened("binance", credentials={"api_key": KEY})
    with pytest.raises(errors.InputError, match="add secret") as caught:
        await half.account_info()
    assert "c4n4ry" not in everything(caught.value)


async def test_a_balance_that_is_none_is_refused(opened, venue):
    """An account answer without an account is broken."""
    provider = await opened("kraken", credentials=CREDENTIALS | {"secret": "YzRuNHJ5"})
    venue.fault("/private/", body='{"error":["EAPI:Invalid key"]}')
    with pytest.raises(errors.CredentialsRefusedError):
        await provider.account_info()
