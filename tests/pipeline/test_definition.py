"""Definitions: what is wrong is told with field, value and allowed values; YAML keeps everything."""

from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from pipeline.definition import read_definition, read_yaml
from pipeline.engine import Engine
from pipeline.registry import GROUP, SHIPPED, Registry
from tests.pipeline.cheats import CHEATS
from tests.pipeline.conftest import context, definition, market
from tests.pipeline.plugins import PLUGINS


@pytest.mark.parametrize(("change", "told"), [
    ({"naem": 1}, r"pipeline naem: received 'naem'; allowed: .*name.*rename or remove it"),
    ({"name": "No Spaces"}, r"pipeline name: received 'No Spaces'; allowed: .*pattern"),
    ({"threshold": 101}, r"pipeline threshold: received 101; allowed: .*less than or equal to 100"),
    ({"lookback": "many"}, r"pipeline lookback: received 'many'; allowed: .*integer"),
    ({"signals": []}, r"pipeline signals.*allowed: .*at least 1"),
    ({"series": [{"connection": "k", "symbol": "B", "timeframe": "7m"}]}, r"series.0.*received '7m'; allowed: 1s, 1m"),
    ({"filters": [{"plugin": "session", "paramters": {}}]}, r"filters.0.paramters.*allowed: name, parameters, plugin"),
    ({"indicators": [{"plugin": "talib"}, {"plugin": "talib"}]}, r"indicators: 'talib' stands there twice"),
    ({"indicators": [{"plugin": "talib", "name": "close"}]}, r"column of the candles"),
])
def test_a_wrong_field_is_told(change, told):
    """One line: the field, what was received, what is allowed."""
    with pytest.raises(InputError, match=told) as caught:
        read_definition({**definition(), **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "told"), [
    ({"filters": [{"plugin": "sesion"}]}, r"filters.0 plugin: received 'sesion'; allowed: .*session, .*did you mean session\?"),
    ({"filters": [{"plugin": "moonphase"}]}, r"filters.0 plugin: received 'moonphase'; allowed: .*session.*install the package"),
    ({"signals": [{"plugin": "crossover", "parameters": {"fats": "fast", "slow": "slow"}}]}, r"received 'fats'; allowed: buy, fast, sell, slow"),
    ({"filters": [{"plugin": "talib"}]}, r"filters.0 plugin: received 'talib'; allowed: .*volatility.*move it to indicators"),
    ({"filters": [{"plugin": "session", "parameters": {"start": "25:00"}}]}, r"filters.0 \(session\) start: received '25:00'"),
    ({"filters": [{"plugin": "session", "parameters": {"timezone": "Mars/Base"}}]}, r"timezone: received 'Mars/Base'; allowed: a time zone"),
    ({"filters": [{"plugin": "session", "parameters": {"begin": "08:00"}}]}, r"begin: received 'begin'; allowed: days, end, start, timezone"),
    ({"filters": [{"plugin": "spread"}]}, r"max or max_share"),
    ({"filters": [{"plugin": "timeframe", "parameters": {"allowed": ["9m"]}}]}, r"received '9m'; allowed: 1s, 1m"),
    ({"indicators": [{"plugin": "talib", "parameters": {"function": "EMMA"}}]}, r"received 'EMMA'; allowed: EMA"),
    ({"indicators": [{"plugin": "talib", "parameters": {"function": "EMA", "options": {"period": 3}}}]},
     r"received 'period'; allowed: timeperiod"),
    ({"indicators": [{"plugin": "talib", "parameters": {"function": "EMA", "options": {"timeperiod": -3}}}]},
     r"timeperiod=-3.*defaults: .*timeperiod.*30"),
    ({"indicators": [{"plugin": "talib", "parameters": {"function": "MAVP"}}]}, r"MAVP takes 2 inputs"),
    ({"filters": [{"plugin": "gone"}]}, r"a plug-in that imports; nowhere:Nothing of candlelake fails: ModuleNotFoundError"),
    ({"filters": [{"plugin": "number"}]}, r"a class with kind"),
])
def test_a_wrong_plugin_or_parameter_is_told(change, told):
    """One line: the place in the definition, what was received, what is allowed."""
    registry = Registry({**SHIPPED, **PLUGINS, "gone": "nowhere:Nothing", "number": "math:pi"}, extra=[])
    with pytest.raises(InputError, match=told) as caught:
        Engine(read_definition({**definition(), **change}), registry)
    assert "\n" not in str(caught.value)


def test_a_plugin_that_does_not_import_harms_only_who_names_it():
    """The list of plug-ins says what is wrong with it, and all others can be used."""
    registry = Registry({**SHIPPED, "gone": "nowhere:Nothing"}, extra=[])
    problems = {info.name: info.problem for info in registry.describe()}
    assert "ModuleNotFoundError" in problems.pop("gone")
    assert set(problems.values()) == {None}
    assert Engine(read_definition(definition()), registry).is_causal


def test_every_plugin_of_the_house_tells_what_it_takes():
    """Each parameter has words for a person and what is allowed; defaults are the ones it is made with, and parts of a list are told, too."""
    registry = Registry(extra=[])
    for name in SHIPPED:
        rows = registry.parameters(name)
        assert all(row["description"] and row["allowed"] for row in rows), name
        assert {row["parameter"] for row in rows if "." not in row["parameter"]} == set(registry.load(name).Parameters.model_fields)
    assert {row["parameter"]: row for row in registry.parameters("session")}["start"]["default"] == '"00:00"'
    told = {row["parameter"]: row for row in registry.parameters("weighted")}
    assert (told["components"]["default"], told["components.weight"]["allowed"]) == ("needed", "number > 0 <= 1000")


def test_a_package_takes_no_name_of_the_house():
    """A package that calls its plug-in `crossover` is told of; pipelines that use ours go on. Two packages with one name are both refused."""
    points = [EntryPoint(name, "nowhere:Nothing", GROUP) for name in ("crossover", "twice", "twice")]
    registry = Registry(extra=points)
    assert Engine(read_definition(definition()), registry).is_causal
    told = {(info.name, info.target): info.problem for info in registry.describe()}
    assert told["crossover", "pipeline.signals:Crossover"] is None
    assert "the name is Candlelake's own" in told["crossover", "nowhere:Nothing"]
    with pytest.raises(InputError, match="one package for each name"):
        registry.load("twice")


def test_a_foreign_indicator_goes_by_the_name_that_it_is_given():
    """The same class twice under two names: two columns of those names, made with their own parameters; unnamed it keeps its own."""
    made = definition(
        indicators=[{"plugin": "Centred", "name": "one"}, {"plugin": "Centred", "name": "two"}, {"plugin": "Centred"}],
        signals=[{"plugin": "breakout"}], confidence=[])
    frame, _ = Engine(read_definition(made), Registry({**SHIPPED, **CHEATS}, extra=[])).columns(market(60), context(), "indicator")
    assert frame.columns[-3:] == ["one", "two", "x"]


@given(threshold=st.floats(0, 100), lookback=st.integers(1, 100_000), description=st.text(max_size=50), share=st.floats(0.001, 1))
def test_yaml_keeps_everything(threshold, lookback, description, share):
    """What is exported and imported again is the same definition, with the same digest."""
    made = read_definition(definition(
        threshold=threshold, lookback=lookback, description=description,
        filters=[{"plugin": "spread", "name": "narrow", "parameters": {"max_share": share}}]))
    again = read_yaml(made.as_yaml())
    assert again == made
    assert again.digest == made.digest


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nname: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"


@pytest.mark.parametrize("text", [
    "a: [", "- 1", "", "name: 3", "[" * 5_000, "a: " * 5_000, "parameters: &p {v: *p}", BOMB, f"name: {'x' * 1_000_000}", "a: 2026-99-99",
    "\0", "!!python/object:os.system {}"])
def test_what_is_no_definition_is_told(text):
    """No YAML, no mapping, no fields, too deep, an alias that grows without end: one line, of a length that people read."""
    with pytest.raises(InputError) as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1_000
