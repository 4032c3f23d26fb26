"""Each fault of an exchange becomes the right error, and nothing usable is returned."""

import pytest

from core import errors
from core.clock import HOUR_US, MINUTE_US, isoformat, to_datetime
from core.interval import Interval
from core.timeframe import Timeframe
from tests.providers.exchange.conftest import START_US, SYMBOLS

M1 = Timeframe.parse("1m")
HOUR = Interval(START_US, START_US + HOUR_US)
CANDLES = {"binance": "klines", "kraken": "OHLC", "coinbase": "/candles"}
HTML = "<!DOCTYPE html><html><body>We are down for maintenance</body></html>"
BROKEN = [
    ("html", {"body": HTML, "content_type": "text/html"}), ("html as json", {"body": HTML}), ("cut json", {"body": '[[17000'}),
    ("null", {"body": "null"}), ("nothing", {"body": ""}), ("a word", {"body": '"ok"'}), ("a number", {"body": "1"}),
    ("{}", {"body": "{}"}), ("another object", {"body": '{"foo": 1}'}), ("deep", {"body": "[" * 100_000 + "]" * 100_000}),
    ("rows of text", {"body": '["a", "b"]'}), ("rows of null", {"body": "[null, null]"}),
    ("short rows", {"body": '[[1700006400000, "1"]]'}), ("cut in the wire", {"body": "CUT"}),
    ("NaN", {"body": "[[1700006400000, NaN, 1, 1, 1, 1]]"}),
]


async def fails(provider, kind, exchange_id="binance"):
    """Fetch an hour and return the error, which must be exactly of `kind`."""
    with pytest.raises(errors.CandlelakeError) as caught:
        await provider.fetch_candles(SYMBOLS[exchange_id], M1, HOUR)
    assert type(caught.value) is kind, caught.value
    assert "?" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("name", "fault"), BROKEN, ids=[name for name, _ in BROKEN])
@pytest.mark.parametrize("exchange_id", SYMBOLS)
async def test_a_broken_answer_with_200_is_never_no_data(exchange_id, name, fault, opened, venue):
    """What ccxt reads as an empty list of candles is an error here: the watermark must not pass it."""
    provider = await opened(exchange_id)
    venue.fault(CANDLES[exchange_id], **fault)
    await fails(provider, errors.BadPayloadError, exchange_id)
    venue.script.clear()
    page = await provider.fetch_candles(SYMBOLS[exchange_id], M1, HOUR)  # and the provider goes on
    assert len(page.candles) >= 60


@pytest.mark.parametrize("body", ['{"error":[],"result":{}}', '{"error":[],"result":{"last":1}}', '{"error":[],"result":null}'])
async def test_krakens_empty_result_is_broken(body, opened, venue):
    """An answer that does not even name the pair is not an answer about it."""
    provider = await opened("kraken")
    venue.fault("OHLC", body=body)
    await fails(provider, errors.BadPayloadError, "kraken")


@pytest.mark.parametrize(("exchange_id", "body"), [
    ("kraken", '{"error":[],"result":{"XXBTZUSD":[],"last":0}}'), ("coinbase", '{"candles":[]}'), ("binance", "[]")])
async def test_an_honest_empty_answer_is_an_empty_page(exchange_id, body, opened, venue):
    """An empty list in the place of the candles means that there are none."""
    provider = await opened(exchange_id)
    venue.fault(CANDLES[exchange_id], body=body)
    assert (await provider.fetch_candles(SYMBOLS[exchange_id], M1, HOUR)).candles.is_empty()


@pytest.mark.parametrize(("status", "body", "kind"), [
    (500, "{}", errors.ProviderUnavailableError), (502, HTML, errors.ProviderUnavailableError),
    (503, '{"code":-1001,"msg":"Internal error"}', errors.ProviderUnavailableError),
    (520, HTML, errors.ProviderUnavailableError), (504, "", errors.ProviderTimeoutError),
    (403, HTML, errors.NotPermittedError), (451, "{}", errors.NotPermittedError), (404, HTML, errors.UnsupportedError),
    (401, '{"code":-2015,"msg":"Invalid API-key"}', errors.CredentialsRefusedError),
    (400, '{"code":-1121,"msg":"Invalid symbol."}', errors.UnknownSymbolError),
    (400, '{"code":-1100,"msg":"Illegal characters"}', errors.PermanentError),
    (200, '{"code":-1003,"msg":"Too many requests"}', errors.RateLimitedError),
    (302, "", errors.BadPayloadError), (301, HTML, errors.BadPayloadError),
])
async def test_status_codes(status, body, kind, opened, venue):
    """Each status of Binance is one of our errors: what can be tried again is told from what cannot."""
    provider = await opened("binance")
    venue.fault("klines", status=status, body=body, headers={"Location": "http://169.254.169.254/"} if status < 400 else None)
    asked = len(venue.requests)
    await fails(provider, kind)
    assert len(venue.requests) == asked + 1  # ccxt did not try again, and no redirect was followed


@pytest.mark.parametrize(("words", "kind"), [
    ("EAPI:Rate limit exceeded", errors.RateLimitedError), ("EGeneral:Too many requests", errors.RateLimitedError),
    ("EService:Unavailable", errors.ProviderUnavailableError), ("EGeneral:Internal error", errors.ProviderUnavailableError),
    ("EQuery:Unknown asset pair", errors.UnknownSymbolError), ("EAPI:Invalid key", errors.CredentialsRefusedError),
    ("EAPI:Invalid nonce", errors.ClockSkewError), ("EGeneral:Permission denied", errors.NotPermittedError),
])
async def test_krakens_errors_in_a_good_status(words, kind, opened, venue):
    """Kraken answers 200 and says the error in words."""
    provider = await opened("kraken")
    venue.fault("OHLC", body=f'{{"error":["{words}"]}}')
    await fails(provider, kind, "kraken")


@pytest.mark.parametrize(("header", "expected"), [
    ("17", 17.0), ("0", 0.0), ("999999999999", 3600.0), ("soon", None), ("", None), ("DATE", 90.0)])
@pytest.mark.parametrize("status", [429, 418])
async def test_retry_after_is_honoured(status, header, expected, opened, venue, budget, clock):  # noqa: PLR0917  fixtures
    """Seconds, a date and an absurd number are read and capped; the shared budget pauses for all."""
    provider = await opened("binance")
    if header == "DATE":
        header = to_datetime(clock.now_us() + 90_000_000).strftime("%a, %d %b %Y %H:%M:%S GMT")
    venue.fault("klines", status=status, headers={"Retry-After": header})
    error = await fails(provider, errors.RateLimitedError)
    assert error.retry_after == expected
    assert budget.penalties == [30.0 if expected is None else expected]


async def test_hang_is_a_timeout_and_drop_is_the_network(opened, venue):
    """No answer in time, an answer that never comes, a port where nobody listens: three faults, two errors."""
    provider = await opened("binance", timeout=2)
    venue.fault("klines", body="HANG")
    await fails(provider, errors.ProviderTimeoutError)
    venue.script.clear()
    venue.fault("klines", body="DROP")
    await fails(provider, errors.NetworkError)
    nobody = opened.build("binance", base_url="http://127.0.0.1:1")
    with pytest.raises(errors.NetworkError):
        await nobody.connect()
    assert not nobody.is_connected


@pytest.mark.parametrize("exchange_id", SYMBOLS)
@pytest.mark.parametrize("body", ["{}", HTML, "null"])
async def test_no_market_is_no_connection(exchange_id, body, opened, venue):
    """The library connects happily to `{}`; we do not."""
    venue.fault("", body=body)
    provider = opened.build(exchange_id)
    with pytest.raises(errors.BadPayloadError):
        await provider.connect()
    assert not provider.is_connected


async def test_a_refused_clock_is_measured_again(opened, venue, clock):
    """-1021 says that our time stamp is off: the exchange's time is read before anybody tries again."""
    provider = await opened("binance")
    venue.fault("klines", status=400, body='{"code":-1021,"msg":"Timestamp outside of recvWindow"}', times=1)
    asked = sum("/time" in path for path, *_ in venue.requests)
    await fails(provider, errors.ClockSkewError)
    assert sum("/time" in path for path, *_ in venue.requests) == asked + 1
    assert len((await provider.fetch_candles("BTC/USDT", M1, HOUR)).candles) == 60


async def test_a_clock_that_refuses_our_clock_is_asked_once(opened, venue):
    """Even the time endpoint may complain about our time: that ends, and is told."""
    provider = await opened("binance")
    venue.fault("/time", status=400, body='{"code":-1021}')
    await fails(provider, errors.ClockSkewError)
    assert sum("/time" in path for path, *_ in venue.requests) == 1


async def test_disconnecting_under_a_request_is_a_lost_session_or_network(opened, venue):
    """Whoever waits for an answer while another disconnects gets an error of ours."""
    import asyncio

    provider = await opened("binance")
    venue.fault("klines", body="HANG")
    venue.asked.clear()
    task = asyncio.create_task(provider.fetch_candles("BTC/USDT", M1, HOUR))
    await venue.asked.wait()
    await provider.disconnect()
    with pytest.raises(errors.TransientError):
        await task
    with pytest.raises(errors.SessionLostError):
        await provider.fetch_candles("BTC/USDT", M1, HOUR)


async def test_a_clock_that_is_no_time_is_refused(opened, venue):
    """A page is worth nothing when the exchange's time is not known."""
    provider = await opened("binance")
    venue.fault("/time", body='{"serverTime": null}')
    await fails(provider, errors.BadPayloadError)


@pytest.mark.parametrize("stamp", [1_700_006_400, -1, 4_200_000_000_000, 10**30])
async def test_times_of_another_century_are_refused(stamp, opened, venue):
    """Seconds where milliseconds were promised land in 1970, others beyond 2100: neither is returned as asked for."""
    provider = await opened("binance")
    venue.fault("klines", body=f'[[{stamp},"1","1","1","1","1",0,"0",0,"0","0","0"]]')
    if stamp == 1_700_006_400:
        page = await provider.fetch_candles("BTC/USDT", M1, HOUR)
        assert [isoformat(us) for us in page.candles["ts"].dt.epoch("us")] == ["1970-01-20T16:13:26.400000Z"]
        assert page.candles["ts"].dt.epoch("us")[0] not in page.asked
    else:
        await fails(provider, errors.BadPayloadError)


async def test_too_large_an_answer_is_cut_off(opened, venue, monkeypatch):
    """A body without end does not fill the memory."""
    provider = await opened("binance")
    monkeypatch.setattr("providers.exchange.transport.BODY_LIMIT", 100_000)
    venue.fault("klines", body="[" + "1," * 500_000 + "1]")
    assert "in one answer" in str(await fails(provider, errors.BadPayloadError))


async def test_one_failure_leaves_the_pages_under_way_alone(opened, venue):
    """Answers of calls that run at once are kept apart."""
    import asyncio

    provider = await opened("binance")
    venue.fault("klines", status=429, headers={"Retry-After": "5"}, times=1)
    spans = [Interval(START_US + hour * HOUR_US, START_US + hour * HOUR_US + 30 * MINUTE_US) for hour in range(4)]
    results = await asyncio.gather(
        *(provider.fetch_candles("BTC/USDT", M1, span) for span in spans), return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    assert [type(error) for error in failed] == [errors.RateLimitedError]
    for span, result in zip(spans, results, strict=True):
        if not isinstance(result, Exception):
            assert result.asked == span
            assert all(us in span for us in result.candles["ts"].dt.epoch("us"))
