"""core.series and core.errors: keys that a person types, and errors that carry the decision."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import core.errors as module
from core.errors import CandlelakeError, InputError, PermanentError, TransientError
from core.series import Series, check_slug, check_symbol


@pytest.mark.parametrize("slug", ["", "A", "9a", "a b", "a/b", "../x", "a--b", "-a", "a" * 64, "ä"])
def test_bad_slugs_are_refused(slug: str) -> None:
    """A slug is a safe file name on every system."""
    with pytest.raises(InputError, match="connection: received"):
        check_slug(slug)


@pytest.mark.parametrize("symbol", ["", " EURUSD", "a\x00b", "x" * 101, "..", "a\nb"])
def test_bad_symbols_are_refused(symbol: str) -> None:
    """A symbol is one printable line."""
    with pytest.raises(InputError, match="symbol: received"):
        check_symbol(symbol)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=50))
def test_providers_spelling_is_kept(symbol: str) -> None:
    """Any printable spelling without spaces is a symbol, unchanged."""
    if symbol not in {".", ".."}:
        assert Series.parse("kraken", symbol, "1m").symbol == symbol


def test_series_reads_as_a_person_writes_it() -> None:
    """A series prints as connection, symbol, timeframe."""
    assert str(Series.parse("kraken-spot", "BTC/USDT", "1M")) == "kraken-spot BTC/USDT 1mo"


def test_every_error_is_transient_or_permanent() -> None:
    """Each concrete class carries the retry decision, exactly one of the two."""
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, CandlelakeError)]
    for cls in classes:
        if cls is not CandlelakeError:
            assert issubclass(cls, TransientError) != issubclass(cls, PermanentError), cls
        assert cls.__name__ in (module.__doc__ or ""), f"{cls.__name__} is missing in the drawing"


@pytest.mark.parametrize("error", [
    InputError("timeframe", "7x", ("1m", "1h"), "choose one"),
    module.KeyMissingError("no key k1", key_id="k1"),
    module.RateLimitedError("slow down", retry_after=3.0),
])
def test_errors_travel_between_processes(error: CandlelakeError) -> None:
    """An error that a worker of a cluster sends back is the same error: class, line and facts."""
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)
