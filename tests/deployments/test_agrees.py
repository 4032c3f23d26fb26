"""Comparing what is declared with what a server holds."""

from hypothesis import given
from hypothesis import strategies as st

from deployments.plan import agrees

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12)


@given(values)
def test_a_thing_agrees_with_itself(value):
    """What was sent and came back unchanged needs no change: applying twice is quiet."""
    assert agrees(value, value)


@given(st.dictionaries(st.text(max_size=5), values, min_size=1, max_size=4), st.text(min_size=6, max_size=8), values)
def test_a_server_may_say_more(value, key, more):
    """Defaults and ids that the server adds are no difference."""
    assert agrees(value, {**value, key: more})


def test_differences_are_seen():
    """Another value, a missing key, a longer list, and parameters that should be gone are differences."""
    assert not agrees({"a": 1}, {"a": 2})
    assert not agrees({"a": 1}, {})
    assert not agrees(["a"], ["a", "b"])
    assert not agrees({}, {"left": 1})
    assert agrees(["b", "a"], ["a", "b"])
