"""Every error of ccxt finds its place among ours."""

import aiohttp
import pytest
from ccxt.base import errors as foreign

from core import errors
from core.secrets import Secret
from providers.exchange.errors import translate


def tree(names, found=None):
    """Return every class name in ccxt's published hierarchy."""
    found = [] if found is None else found
    for name, below in names.items():
        found.append(name)
        tree(below, found)
    return found


NAMES = [name for name in tree(foreign.error_hierarchy) if name != "BaseError"]


@pytest.mark.parametrize("name", NAMES)
def test_every_class_is_transient_or_permanent_as_ccxt_means_it(name):
    """What ccxt calls an operation that failed can be tried again, what it calls an exchange's refusal cannot."""
    error = getattr(foreign, name)("binance said no")
    ours = translate(error, "binance")
    assert type(ours) not in {errors.CandlelakeError, errors.TransientError}
    is_transient = isinstance(ours, errors.TransientError)
    exceptions = {"MarketClosed", "ExchangeClosedByUser", "UnsubscribeError"}  # these pass by themselves
    assert is_transient == (isinstance(error, foreign.OperationFailed) or name in exceptions)
    assert "binance" in str(ours)


def test_the_walk_saw_the_whole_tree():
    """The hierarchy walked above holds every exception class that ccxt exports."""
    exported = {name for name in foreign.__all__ if name not in {"error_hierarchy", "BaseError"}}
    assert exported == set(NAMES)


@pytest.mark.parametrize(("name", "status", "text", "kind"), [
    ("DDoSProtection", 429, "", errors.RateLimitedError),
    ("DDoSProtection", 418, "", errors.RateLimitedError),
    ("ExchangeNotAvailable", 429, "", errors.RateLimitedError),  # okx
    ("RateLimitExceeded", 403, "", errors.RateLimitedError),  # bybit
    ("RateLimitExceeded", 200, '{"code":-1003}', errors.RateLimitedError),
    ("OperationFailed", 503, '{"code":-1001}', errors.ProviderUnavailableError),
    ("ExchangeNotAvailable", 500, "", errors.ProviderUnavailableError),
    ("ExchangeNotAvailable", 520, "", errors.ProviderUnavailableError),
    ("ExchangeNotAvailable", 403, "", errors.NotPermittedError),
    ("ExchangeNotAvailable", 451, "", errors.NotPermittedError),
    ("ExchangeNotAvailable", 404, "", errors.UnsupportedError),
    ("ExchangeError", 404, "", errors.UnsupportedError),
    ("ExchangeError", 503, '{"message":"upstream connect error"}', errors.ProviderUnavailableError),  # bybit
    ("InsufficientFunds", 500, '{"msg":"not enough"}', errors.PermanentError),
    ("RequestTimeout", 504, "", errors.ProviderTimeoutError),
    ("DDoSProtection", 401, '{"code":-2015}', errors.CredentialsRefusedError),
    ("DDoSProtection", 200, '{"code":-2015,"msg":"Invalid API-key"}', errors.CredentialsRefusedError),
    ("AuthenticationError", 200, "", errors.CredentialsRefusedError),
    ("PermissionDenied", 403, "", errors.NotPermittedError),
    ("BadSymbol", 400, '{"code":-1121}', errors.UnknownSymbolError),
    ("BadRequest", 400, "", errors.PermanentError),
    ("ExchangeError", 200, "EQuery:Unknown asset pair", errors.UnknownSymbolError),
    ("InvalidNonce", 400, "", errors.ClockSkewError),
    ("OnMaintenance", 200, "", errors.ProviderUnavailableError),
    ("BadResponse", 200, "", errors.BadPayloadError),
])
def test_status_and_words_decide_where_the_class_says_too_little(name, status, text, kind):
    """A geo block, a wrong path and a refused key are permanent though ccxt calls them unavailable; a ban is a rate limit."""
    assert type(translate(getattr(foreign, name)(text), "okx", status=status)) is kind


@pytest.mark.parametrize(("name", "cause", "kind"), [
    ("ExchangeNotAvailable", aiohttp.ClientConnectionError(), errors.NetworkError),
    ("ExchangeNotAvailable", OSError(), errors.NetworkError),
    ("ExchangeError", aiohttp.ClientPayloadError(), errors.BadPayloadError),
    ("ExchangeError", aiohttp.ClientError(), errors.NetworkError),
])
def test_the_cause_tells_no_answer_from_a_bad_one(name, cause, kind):
    """Without an answer it is the network; a body cut short is a bad payload, not a refusal."""
    error = getattr(foreign, name)("x")
    error.__cause__ = cause
    assert type(translate(error, "okx")) is kind


def test_messages_hold_no_url_no_markup_no_secret():
    """What the exchange says is shown without addresses, tags and keys, on one line, cut short."""
    text = ("binance GET https://api.binance.com/api/v3/account?timestamp=1&signature=abcdef 400 <b>no</b>\n"
            '{"apiKey":"c4n4ry/key","msg":"c4n4ry%2Fkey c4n4ry/key"} ' + "x" * 999)
    message = str(translate(foreign.ExchangeError(text), "binance", status=400, secrets=[Secret("c4n4ry/key")]))
    assert not any(part in message for part in ("signature", "abcdef", "c4n4ry", "<b>", "\n", "api.binance.com"))
    assert len(message) < 300
    assert "HTTP 400" in message


def test_retry_after_is_kept_on_transient_errors():
    """The pause an exchange asks for reaches those who retry."""
    error = translate(foreign.DDoSProtection("x"), "okx", status=429, retry_after=17.0)
    assert isinstance(error, errors.RateLimitedError)
    assert error.retry_after == 17.0


def test_ccxt_stumbling_is_a_bad_payload_that_says_where():
    """A KeyError inside ccxt means an answer it did not expect; the values in it are not shown."""
    try:
        {}["c4n4ry"]
    except KeyError as error:
        ours = translate(error, "okx")
    assert type(ours) is errors.BadPayloadError
    assert "KeyError at test_errors.py" in str(ours)
    assert "c4n4ry" not in str(ours)
