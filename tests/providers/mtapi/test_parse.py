"""Answers of the bridge, and what its error codes mean."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import (
    BadPayloadError,
    CandlelakeError,
    CredentialsRefusedError,
    NetworkError,
    NotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    SessionLostError,
    UnknownSymbolError,
)
from core.secrets import Secret
from providers.mtapi import parse
from providers.mtapi.errors import CODES, failure, is_failure

BAR = {"time": "2021-06-01T00:00:00", "openPrice": 1.1, "highPrice": 1, "lowPrice": 1.0, "closePrice": 1.05, "tickVolume": 7, "spread": 8}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["time", "symbol", "code", "message", *BAR]), inner, max_size=6),
    max_leaves=20)


@given(ANY)
def test_no_payload_gets_past_the_parsers_wrong(payload):
    """Whatever JSON arrives, a parser gives its frame or value, or raises BadPayloadError; nothing else."""
    for read in (lambda: parse.mt5_bars(payload, "X", 1e-5), lambda: parse.mt4_bars(payload, "X"), lambda: parse.symbols(payload),
                 lambda: parse.point(payload, "X"), lambda: parse.account_info(parse.account_details(payload), payload, "1"),
                 lambda: parse.timezone_us(payload), lambda: parse.order_offsets_us(payload)):
        with contextlib.suppress(BadPayloadError):
            read()


@pytest.mark.parametrize("change", [
    {"time": "yesterday"}, {"time": 1700000000}, {"time": "2021-06-01T00:00:00Z"}, {"time": "2021-06-01T00:00:00+02:00"}, {"time": None},
    {"openPrice": "1.1"}, {"closePrice": True}, {"highPrice": [1]}, {"symbol": "OTHER"}, {"tickVolume": {}},
])
def test_one_wrong_typed_row_breaks_the_answer(change):
    """A row of wrong types, of another symbol, or with a time we cannot read means that nothing of the answer is used."""
    with pytest.raises(BadPayloadError):
        parse.mt5_bars([BAR, {**BAR, **change}], "EURUSD", 1e-5)
    with pytest.raises(BadPayloadError):
        parse.mt5_bars([BAR, {key: value for key, value in BAR.items() if key != "lowPrice"}], "EURUSD", 1e-5)


def test_impossible_values_pass_on_to_the_quarantine():
    """Nulls, absurd and far-off values are rows all the same: feed rejects them with a reason."""
    rows = orjson.loads(b'[{"time":"0001-01-01T00:00:00","openPrice":1e308,"highPrice":null,"lowPrice":-5,"closePrice":0,"tickVolume":-1,"spread":-3}]')
    frame = parse.mt5_bars(rows, "X", 0.5)
    assert frame["high"].to_list() == [None]
    assert frame["spread"].to_list() == [-1.5]


def test_both_spellings_of_bars_are_read():
    """MT4 bars in the REST or the gRPC spelling give the same frame; MT5 spreads become prices."""
    low = [{"time": "2021-06-01T00:00:00.1234567", "open": 1, "high": 2, "low": 1, "close": 2, "volume": 5}]
    high = [{key.capitalize(): value for key, value in low[0].items()}]
    assert parse.mt4_bars(low, "X").equals(parse.mt4_bars(high, "X"))
    assert parse.mt5_bars([BAR], "X", 1e-5)["spread"][0] == pytest.approx(8e-5)
    assert parse.mt5_bars([BAR], "X", None)["spread"][0] is None
    assert parse.mt5_bars([], "X", 1e-5).is_empty()


def test_a_spread_is_the_price_that_its_points_say():
    """Points times the size of one are told without the noise of the product, which a stream's ask less bid would contradict."""
    spreads = parse.mt5_bars([{**BAR, "spread": points} for points in range(1, 200)], "X", 1e-5)["spread"]
    assert spreads.to_list() == [float(f"{points}e-5") for points in range(1, 200)]


def test_account_details_drop_the_password():
    """The password that the bridge sends back ends at the parser."""
    details = parse.account_details({"user": 7, "password": "canary", "serverName": "S", "serverTime": None})
    assert "canary" not in repr(details)
    info = parse.account_info(details, {"synced": False, "balance": 5, "type": "Real"}, "9")
    assert (info.login, info.server, info.balance, info.is_demo, info.can_trade) == ("7", "S", None, False, None)


@pytest.mark.parametrize(("value", "hours"), [(2, 2), (2.5, 2.5), (120, 2), (-300, -5), (840, 14), (5000, None), ("2", None), (True, None), (0, 0)])
def test_time_zones_count_hours_or_minutes(value, hours):
    """Up to 14 the zone counts hours, beyond minutes; nonsense is no witness."""
    assert parse.timezone_us(value) == (None if hours is None else hours * 3_600_000_000)


@pytest.mark.parametrize("text", ["OK", ' "OK" ', '"OK"\n', "OK\r\n"])
def test_strings_come_with_and_without_quotes(text):
    """OK is OK however it is wrapped."""
    assert parse.unquote(text) == "OK"


@pytest.mark.parametrize(("code", "kind"), [
    ("INVALID_TOKEN", SessionLostError), (0x10000, SessionLostError), ("INVALID_ACCOUNT", CredentialsRefusedError),
    ("TOO_FREQUENT_REQUEST", RateLimitedError), ("TOO_FREQUENT_FAIL_CONNECT", RateLimitedError), ("TOO_FREQUENT_NEW_ONE", RateLimitedError),
    ("INVALID_SYMBOL", UnknownSymbolError), ("TIMEOUT", ProviderTimeoutError), (0x10004, NetworkError), ("NO_CONNECTION", NetworkError),
    ("SERVER_NOT_FOUND", NotFoundError), ("SERVICE_NOT_AVAILABLE", ProviderUnavailableError), ("NEVER_SEEN", ProviderUnavailableError),
    ("DONE", ProviderUnavailableError), ("", BadPayloadError), (12345, ProviderUnavailableError),
])
def test_codes_mean_one_error_each(code, kind):
    """Each code has its class; unlisted ones are transient."""
    assert type(failure({"code": code, "message": "x"}, "h", [])) is kind


def test_done_in_a_failure_is_a_failure():
    """A wrong server name comes with code DONE: the message decides."""
    value = {"code": "DONE", "message": "Server 'X' not found: neither /Search nor /SearchMQ has it", "stackTrace": "at"}
    assert is_failure(value)
    assert type(failure(value, "h", [])) is NotFoundError
    assert not is_failure({"code": 1})
    assert not is_failure([{"code": 1, "message": ""}])


@pytest.mark.parametrize("code", sorted(CODES))
def test_messages_hold_no_secret(code):
    """Tokens, passwords and stack traces that the bridge puts in its errors stay out of ours."""
    token = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    value = {"code": code, "message": f"client {token} pw canary!1\n\x1b[31m", "stackTrace": "at Secret.Method()"}
    error = failure(value, "h", [Secret("canary!1"), Secret("")])
    assert isinstance(error, CandlelakeError)
    for hidden in (token, "canary", "Secret.Method", "\n", "\x1b"):
        assert hidden not in str(error)
