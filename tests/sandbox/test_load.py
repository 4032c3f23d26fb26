"""Generated load: what is written fast is what is written slowly."""

import orjson
import pytest

from core.clock import ManualClock, parse_instant
from sandbox.box import Ask
from sandbox.dialects import CoinbaseStream, KrakenStream
from sandbox.server import build
from sandbox.tape import load

NOW = parse_instant("2021-06-16T10:07:59.999Z")


@pytest.mark.parametrize("dialect", [KrakenStream, CoinbaseStream])
def test_a_load_in_bytes_is_the_load_in_messages(dialect):
    """The dialects' short cut for load gives the messages that they write otherwise, over a turn of the second too."""
    box = build(None, "replay", ManualClock(NOW), None, None)
    stream = dialect(box, Ask(box, "/", (), {}, NOW))
    prints = load(20_000.0, NOW, NOW + 10_000)
    assert len(prints) == 200
    messages = [orjson.loads(text) for text in stream.encode("BTC/USD", prints, 500)]
    assert messages == stream.write("BTC/USD", prints, 500)
    assert len(messages) == 4
