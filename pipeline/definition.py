"""A pipeline's definition: a named, versioned list of plug-ins with parameters, checked before anything runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from core.candles import CANDLE_SCHEMA
from core.errors import InputError
from core.series import Series
from pipeline.stages import KINDS, Kind

NAME: Final = r"^[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*$"
NAME_MAX: Final = 63
DEPTH_MAX: Final = 20  # levels of a YAML text
PLUGINS_MAX: Final = 64  # for each stage
_FIELDS: Final[dict[Kind, str]] = {
    "cleaner": "cleaners", "filter": "filters", "indicator": "indicators", "signal": "signals", "confidence": "confidence",
    "executor": "executors",
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Use(_Part):
    """One plug-in in a stage."""

    plugin: str = Field(min_length=1, max_length=100, description="The plug-in's name; `candlelake pipelines plugins` lists them.")
    name: str | None = Field(
        None, pattern=r"^[a-z][a-z0-9_]*$", max_length=NAME_MAX,
        description="Name of its column (indicators) or of itself in statistics; the plug-in's name when empty.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="What the plug-in takes.")

    @property
    def label(self) -> str:
        """The name it goes by."""
        return self.name or self.plugin


class SeriesRef(_Part):
    """A series that the pipeline runs on."""

    connection: str = Field(description="Slug of the connection.")
    symbol: str = Field(description="In the provider's spelling.")
    timeframe: str = Field(description="e.g. 1m, 1h.")

    @model_validator(mode="after")
    def _names_a_series(self) -> SeriesRef:
        self.key  # noqa: B018  raises with what is allowed
        return self

    @property
    def key(self) -> Series:
        """The series."""
        try:
            return Series.parse(self.connection, self.symbol, self.timeframe)
        except InputError as error:
            raise ValueError(str(error)) from None


class PipelineDefinition(_Part):
    """What a pipeline does, on which series, and from which confidence on it acts."""

    name: str = Field(pattern=NAME, max_length=NAME_MAX, description="a-z first, then a-z, 0-9, single - or _.")
    version: int = Field(1, ge=1, le=1_000_000, description="Counts up with each change; set by the store.")
    description: str = Field("", max_length=1000)
    series: tuple[SeriesRef, ...] = Field(default=(), max_length=5000, description="The series it runs on.")
    threshold: float = Field(70.0, ge=0, le=100, description="Executors act at or above this confidence.")
    lookback: int = Field(500, ge=1, le=100_000, description="Candles before the first one that is judged, for indicators to settle.")
    chapter: int = Field(
        8192, ge=64, le=1_000_000,
        description="Slots that share the start of their window: indicators with a memory then give the same bits live and replayed.")
    catch_up: int = Field(500, ge=1, le=100_000, description="How many missed candles a run makes up for; older ones are skipped.")
    cleaners: tuple[Use, ...] = Field(default=(), max_length=PLUGINS_MAX)
    filters: tuple[Use, ...] = Field(default=(), max_length=PLUGINS_MAX)
    indicators: tuple[Use, ...] = Field(default=(), max_length=PLUGINS_MAX)
    signals: tuple[Use, ...] = Field(min_length=1, max_length=PLUGINS_MAX)
    confidence: tuple[Use, ...] = Field(default=(), max_length=PLUGINS_MAX)
    executors: tuple[Use, ...] = Field(default=(), max_length=PLUGINS_MAX)

    @field_validator("indicators")
    @classmethod
    def _no_candle_columns(cls, value: tuple[Use, ...]) -> tuple[Use, ...]:
        for use in value:
            if use.label in CANDLE_SCHEMA:
                raise ValueError(f"an indicator cannot be called {use.label!r}: that is a column of the candles")
        return value

    @model_validator(mode="after")
    def _labels_once(self) -> PipelineDefinition:
        for kind in KINDS:
            labels = [use.label for use in self.uses(kind)]
            doubled = sorted({label for label in labels if labels.count(label) > 1})
            if doubled:
                raise ValueError(f"{_FIELDS[kind]}: {doubled[0]!r} stands there twice; give one of them a name of its own")
        return self

    def uses(self, kind: Kind) -> tuple[Use, ...]:
        """Return the plug-ins of a stage, in order."""
        found: tuple[Use, ...] = getattr(self, _FIELDS[kind])
        return found

    def all_uses(self) -> Iterator[tuple[Kind, int, Use]]:
        """Return every plug-in with its stage and place."""
        for kind in KINDS:
            for place, use in enumerate(self.uses(kind)):
                yield kind, place, use

    @property
    def keys(self) -> list[Series]:
        """The series it runs on."""
        return [ref.key for ref in self.series]

    @property
    def digest(self) -> str:
        """SHA-256 of what it does: name and version left out, so that two equal definitions are seen to be equal."""
        content = self.model_dump(mode="json", exclude={"name", "version", "description"})
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def as_yaml(self) -> str:
        """Return it as YAML that `read_yaml` takes."""
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_defaults=True) | {"version": self.version}, sort_keys=False)


def field_of(kind: Kind) -> str:
    """Return the name of a stage's field in a definition."""
    return _FIELDS[kind]


def read_definition(values: Mapping[str, Any]) -> PipelineDefinition:
    """Return a checked definition; its plug-ins are checked by `pipeline.registry.build`.

    Raises:
        InputError: names the field, the value and what is allowed.
    """
    try:
        return PipelineDefinition.model_validate(dict(values))
    except ValidationError as error:
        raise explain("pipeline", error, PipelineDefinition) from None


def read_yaml(text: str) -> PipelineDefinition:
    """Return the definition that a YAML text holds.

    Raises:
        InputError: no YAML, no mapping, too deep, with aliases, or a wrong field.
    """
    _check_shape(text)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # a date or a number that is none is no YAMLError
        raise InputError("pipeline", text[:60], "YAML", " ".join(str(error).split())[:300]) from None
    if not isinstance(values, dict):
        raise InputError("pipeline", text[:60], "a YAML mapping with name, series and stages", "see docs/INTEGRATION_GUIDE.md")
    return read_definition(values)


def _check_shape(text: str) -> None:
    """Refuse what costs more to read than it says: deep nesting, and aliases, by which a few bytes become gigabytes."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError("definition", f"*{event.anchor}", "YAML without aliases", "write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise InputError("definition", f"{depth} levels", f"at most {DEPTH_MAX}", "see an existing pipeline's definition")
    except (yaml.YAMLError, ValueError) as error:
        raise InputError("definition", text[:60], "YAML", " ".join(str(error).split())[:300]) from None


def explain(what: str, error: ValidationError, model: type[BaseModel]) -> InputError:
    """Return a finding of pydantic as an InputError that names field, value and allowed values: a name misspelt, else the first one."""
    findings = error.errors(include_url=False)
    first = next((item for item in findings if item["type"] == "extra_forbidden"), findings[0])  # what lacks was called something else
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        owner = _model_at(model, [str(part) for part in first["loc"][:-1]])
        received: object = first["loc"][-1]
        allowed: object = sorted(owner.model_fields) if owner is not None else "known names"
        return InputError(f"{what} {where}", received, allowed if isinstance(allowed, list) else str(allowed), "rename or remove it")
    text = re.sub(r"^Value error, ", "", first["msg"])
    received = first["input"] if not isinstance(first["input"], (dict, BaseModel)) else "what stands there"
    if first["type"] == "missing":
        return InputError(f"{what} {where}", "nothing", "a value", "the field is required")
    return InputError(f"{what} {where}".rstrip(), received, text, "correct the field")


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """Follow field names (places in lists left out) down to the model that refused a name."""
    found: type[BaseModel] | None = model
    for part in path:
        if part.isdigit() or found is None:
            continue
        info = found.model_fields.get(part)
        found = _model_in(info.annotation) if info is not None else None
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


Version = Annotated[int, Field(ge=1)]
