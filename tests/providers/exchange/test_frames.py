"""Trades read from whole messages are what ccxt makes of them, and what is not the venue's protocol is left to ccxt."""

import ccxt.async_support as library
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_US, MINUTE_US, SECOND_US, ManualClock, isoformat, parse_instant
from core.errors import BadPayloadError
from providers.exchange.frames import frame_reader
from providers.exchange.stream import Buffer, read_trade

NOW = parse_instant("2024-03-01T10:00Z")
MARKETS = {"kraken": ("BTC/USD", "XXBTZUSD"), "coinbase": ("BTC/USD", "BTC-USD"), "binance": ("BTC/USDT", "BTCUSDT")}
NAMES = {"kraken": "BTC/USD", "coinbase": "BTC-USD", "binance": "BTCUSDT"}


def made(venue, kind="spot"):
    """An instance of ccxt's class that knows one market."""
    symbol, named = MARKETS[venue]
    base, quote = symbol.split("/")
    exchange = getattr(library, venue)()
    exchange.set_markets([exchange.safe_market_structure({
        "id": named, "symbol": symbol, "base": base, "quote": quote, "baseId": base, "quoteId": quote, "type": kind, "spot": kind == "spot",
        "active": True})])
    return exchange


EXCHANGES = {venue: made(venue) for venue in MARKETS}
READERS = {venue: frame_reader(exchange, [MARKETS[venue][0]], ManualClock(NOW)) for venue, exchange in EXCHANGES.items()}


def item(venue, us, price, size, *, is_sell, number):
    """One trade as the venue writes it."""
    if venue == "kraken":
        return {"symbol": "BTC/USD", "side": "sell" if is_sell else "buy", "price": price, "qty": size, "ord_type": "limit",
                "trade_id": number, "timestamp": isoformat(us)}
    if venue == "coinbase":
        return {"trade_id": str(number), "product_id": "BTC-USD", "price": f"{price:.8f}", "size": f"{size:.8f}",
                "side": "SELL" if is_sell else "BUY", "time": isoformat(us)}
    return {"e": "trade", "E": us // 1000, "s": "BTCUSDT", "t": number, "p": f"{price:.8f}", "q": f"{size:.8f}", "T": us // 1000,
            "m": is_sell, "M": True}


def messages(venue, items):
    """The messages that bring them."""
    if venue == "kraken":
        return [{"channel": "trade", "type": "update", "data": items}]
    if venue == "coinbase":
        return [{"channel": "market_trades", "client_id": "", "timestamp": "", "sequence_num": 1,
                 "events": [{"type": "update", "trades": items[::-1]}]}]
    return items


def read(venue, message):
    return READERS[venue](orjson.dumps(message).decode())


TRADES = st.lists(st.tuples(
    st.integers(-DAY_US, DAY_US), st.integers(1, 10**12), st.integers(1, 10**10), st.booleans(), st.integers(1, 10**12)), max_size=20)


@pytest.mark.parametrize("venue", MARKETS)
@given(trades=TRADES)
@settings(max_examples=30, deadline=None)
def test_a_message_is_read_as_ccxt_reads_it(venue, trades):
    """Time, price, size, side and id of every trade are those of ccxt's own reading; they come by time."""
    items = [item(venue, NOW + us, price / 1e6, size / 1e6, is_sell=is_sell, number=number) for us, price, size, is_sell, number in trades]
    symbol = MARKETS[venue][0]
    exchange = EXCHANGES[venue]
    true = [read_trade(exchange.parse_trade(each, exchange.market(symbol)), symbol, NOW) for each in items]
    ticks = [tick for message in messages(venue, items) for tick in read(venue, message)]
    assert sorted(ticks) == sorted(true)
    if venue != "binance":  # which sends one trade in a message
        assert [tick.ts_us for tick in ticks] == sorted(tick.ts_us for tick in true)


def paths(value, at=()):
    """The places of all values inside a message."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from paths(each, (*at, key))


@pytest.mark.parametrize("venue", MARKETS)
@given(data=st.data(), junk=st.sampled_from([None, True, -1, "", "nan", "x", [], {}, 1e400, "1e999", 2**70, "2024-03-01"]))
@settings(max_examples=60, deadline=None)
def test_no_message_breaks_the_reader(venue, data, junk):
    """Whatever stands in whatever place: the message is left to ccxt, or its ticks are sound."""
    broken = messages(venue, [item(venue, NOW, 100.5, 0.25, is_sell=True, number=7)])[0]
    *way, last = data.draw(st.sampled_from(list(paths(broken))))
    place = broken
    for key in way:
        place = place[key]
    place[last] = junk
    for tick in READERS[venue](orjson.dumps(broken).decode() if junk != 2**70 else str(broken).replace("'", '"')) or []:
        assert 0 <= tick.price < float("inf")
        assert 0 <= tick.size < float("inf")
        assert tick.trade_id
        assert tick.side in {"buy", "sell"}
        assert tick.ts_us >= 0


WRONG = {"price": [None, True, -1, "nan", "x", "inf", [], {}], "id": [None, True, "", 1.5, [], "9" * 5000], "side": [None, 1, "", "UNKNOWN", []],
         "time": [None, 5.5, "", "2024-03-01", "2024-03-01T10:00:00+01:00", "2024-03-01T10:00:00.x1Z", "2300-01-01T00:00:00Z", []],
         "symbol": [None, 1, "ETH/USD", []]}
FIELDS = {"kraken": {"price": "price", "qty": "price", "trade_id": "id", "side": "side", "timestamp": "time", "symbol": "symbol"},
          "coinbase": {"price": "price", "size": "price", "trade_id": "id", "side": "side", "time": "time", "product_id": "symbol"},
          "binance": {"p": "price", "q": "price", "t": "id", "m": "side", "T": "time", "s": "symbol"}}


@pytest.mark.parametrize(("venue", "field"), [(venue, field) for venue, fields in FIELDS.items() for field in fields])
def test_what_is_not_the_protocol_is_left_to_ccxt(venue, field):
    """A field that lacks or is of another kind than the protocol's: ccxt gets the whole message, whatever else is in it."""
    good = item(venue, NOW, 100.5, 0.25, is_sell=True, number=7)
    assert len(read(venue, messages(venue, [good])[0])) == 1
    lacking = {key: value for key, value in good.items() if key != field}
    for bad in (lacking, *({**good, field: wrong} for wrong in WRONG[FIELDS[venue][field]])):
        assert read(venue, messages(venue, [good, bad])[-1]) is None


def test_an_id_of_thousands_of_digits_ends_the_session():
    """What ccxt makes of such an id is refused in one line: as a number it would end the process."""
    trade = {"timestamp": NOW // 1000, "price": 1.0, "amount": 1.0, "id": "9" * 5000, "side": "buy"}
    with pytest.raises(BadPayloadError, match="5000 characters"):
        read_trade(trade, "BTC/USD", NOW)
    assert read_trade({**trade, "id": 7}, "BTC/USD", NOW).trade_id == "7"


def test_other_messages_and_markets_are_left_to_ccxt():
    """Candles, answers, bytes and text that is no JSON are not trades; derivatives and other venues have no reader."""
    for text in ('{"channel":"ohlc","type":"update","data":[]}', '{"method":"subscribe","result":{"channel":"trade"}}', b"x", "",
                 '{"channel":"trade","data":[{"symbol": nonsense'):
        assert READERS["kraken"](text) is None
    assert frame_reader(made("binance", "swap"), ["BTC/USDT"], ManualClock(NOW)) is None
    exchange = made("binance")
    exchange.id = "another"
    assert frame_reader(exchange, ["BTC/USDT"], ManualClock(NOW)) is None


def test_a_buffer_takes_what_it_has_room_for():
    """Past its limit items are lost, those before stay, and the reader is told once they are read."""
    from core.errors import OverrunError

    buffer = Buffer(5)
    buffer.put_all([1, 2, 3])
    buffer.put_all([4, 5, 6])
    assert buffer.take() == [1, 2, 3, 4, 5]
    with pytest.raises(OverrunError):
        buffer.take()


@pytest.mark.parametrize("text", ["2024-03-01T10:00:00Z", "2024-03-01T10:00:00.1Z", "2024-03-01T10:00:00.123999Z"])
def test_times_of_every_length_are_cut_as_ccxt_cuts_them(text):
    """No fraction, one digit or nine: milliseconds, never rounded up."""
    trade = {**item("kraken", NOW, 1.0, 1.0, is_sell=False, number=1), "timestamp": text}
    (tick,) = read("kraken", {"channel": "trade", "data": [trade]})
    assert tick.ts_us == EXCHANGES["kraken"].parse8601(text) * 1000
    assert NOW <= tick.ts_us < NOW + SECOND_US < NOW + MINUTE_US
