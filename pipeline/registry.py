"""Where plug-ins come from: those shipped with the house, and those of other packages by entry points.

Other packages declare them in the group `candlelake.pipeline`; the entry point's name is the plug-in's name:

    [project.entry-points."candlelake.pipeline"]
    quiet_hours = "my_package:QuietHours"

Nothing is imported before a definition asks for it, and a package that does not import harms only who names it.
"""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import polars as pl
from pydantic import BaseModel, ValidationError

from core.errors import CandlelakeError, InputError, PluginError, PluginOverdueError
from pipeline.deadline import OverdueError, within
from pipeline.definition import PipelineDefinition, Use, explain, field_of
from pipeline.parameters import told_of
from pipeline.stages import KINDS, METHODS, Kind, Resources

GROUP: Final = "candlelake.pipeline"
SHIPPED: Final[Mapping[str, str]] = {
    "ohlc_sanity": "pipeline.cleaners:OhlcSanity",
    "outliers": "pipeline.cleaners:Outliers",
    "session": "pipeline.filters:Session",
    "spread": "pipeline.filters:Spread",
    "volatility": "pipeline.filters:Volatility",
    "timeframe": "pipeline.filters:TimeframeFilter",
    "volume": "pipeline.filters:Volume",
    "talib": "pipeline.indicators:TaLib",
    "crossover": "pipeline.signals:Crossover",
    "breakout": "pipeline.signals:Breakout",
    "weighted": "pipeline.confidence:Weighted",
    "filter_strategy": "addons.filter_strategy.plugin:FilterStrategy",
    "execution": "addons.execution.plugin:Execution",
    "ai_confidence": "addons.ai_signals.plugin:AiConfidence",
    "ai_signal": "addons.ai_signals.plugin:AiSignal",
}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plug-in that can be named in a definition."""

    name: str
    target: str  # module:Class
    package: str  # the distribution it comes from
    kind: Kind | None = None  # None: it does not import
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A plug-in of a definition, made."""

    kind: Kind
    place: int
    use: Use
    plugin: Any
    is_causal: bool

    @property
    def is_ours(self) -> bool:
        """Whether it ships with Candlelake."""
        return type(self.plugin).__module__.partition(".")[0] in {"pipeline", "addons"}

    def named(self, columns: pl.DataFrame) -> pl.DataFrame:
        """Return an indicator's columns under the name that the definition gives: one column takes it, several are NAME_COLUMN."""
        name = self.use.name
        if name is None or hasattr(self.plugin, "bind"):  # it has been told
            return columns
        return columns.rename({old: name if columns.width == 1 else f"{name}_{old}" for old in columns.columns})


class Registry:
    """The plug-ins by name. Names of the house stay its own; one that two other packages give is refused when it is asked for."""

    def __init__(self, shipped: Mapping[str, str] = SHIPPED, extra: Iterable[EntryPoint] | None = None) -> None:
        self._targets: dict[str, list[tuple[str, str, EntryPoint | None]]] = {}
        self._refused: list[PluginInfo] = []
        for name, target in shipped.items():
            self._targets.setdefault(name, []).append(("candlelake", target, None))
        for point in entry_points(group=GROUP) if extra is None else extra:
            package = point.dist.name if point.dist is not None else "unknown"
            if point.name in shipped:  # pipelines that use it go on as they did
                self._refused.append(PluginInfo(
                    point.name, point.value, package, problem="the name is Candlelake's own; give the entry point another one"))
                continue
            self._targets.setdefault(point.name, []).append((package, point.value, point))

    def names(self) -> list[str]:
        """Return all names."""
        return sorted(self._targets)

    def load(self, name: str, where: str = "plugin", kind: Kind | None = None) -> type[Any]:
        """Return the plug-in's class; of an unknown one those of `kind` are named that there are.

        Raises:
            InputError: nobody or more than one has that name, it does not import, or is no plug-in.
        """
        found = self._targets.get(name)
        if not found:
            known = self.names() if kind is None else self._names_of(kind)
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(where, name, known, f"did you mean {near[0]}?" if near else "install the package that brings it, or name another")
        if len(found) > 1:
            packages = ", ".join(sorted(package for package, _, _ in found))
            raise InputError(where, name, "one package for each name", f"{packages} all give it; remove all but one")
        package, target, point = found[0]
        try:
            loaded = point.load() if point is not None else _import(target)
        except (Exception, SystemExit) as error:  # whatever a foreign package's import does
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(where, name, "a plug-in that imports", f"{target} of {package} fails: {text}") from error
        return _checked(loaded, name, target, where)

    def describe(self) -> list[PluginInfo]:
        """Return every plug-in, also those that do not import or whose name is taken."""
        out = []
        for name in self.names():
            package, target, _ = self._targets[name][0]
            try:
                out.append(PluginInfo(name, target, package, self.load(name).kind))
            except InputError as error:
                out.append(PluginInfo(name, target, package, problem=str(error)))
        return out + self._refused

    def parameters(self, name: str) -> list[dict[str, str]]:
        """Return what a plug-in takes: for each parameter its default, what is allowed, and what it is for.

        Raises:
            InputError: as `load`.
        """
        return told_of(self.load(name).Parameters)

    def make(self, use: Use, kind: Kind, where: str) -> Any:
        """Return the plug-in of `use` with its checked parameters.

        Raises:
            InputError: unknown, of another stage, or a parameter that it does not take; names field, value, allowed.
        """
        found = self.load(use.plugin, f"{where} plugin", kind)
        if found.kind != kind:
            raise InputError(f"{where} plugin", use.plugin, self._names_of(kind), f"{use.plugin} is a {found.kind}; move it to {field_of(found.kind)}")
        return found(checked_parameters(found, use.parameters, f"{where} ({use.plugin})"))

    def build(self, definition: PipelineDefinition, *, seconds: float | None = None) -> list[Built]:
        """Return the plug-ins of a definition in running order.

        Args:
            definition: what they are to do.
            seconds: how long to wait for one that is foreign or loads files: its import, its constructor; None waits for ever.

        Raises:
            InputError: as `make`. PluginError: a constructor raised. PluginOverdueError: one did not come back in time.
        """
        return [self._built_within(seconds, definition.name, kind, place, use) for kind, place, use in definition.all_uses()]

    def _built_within(self, seconds: float | None, name: str, kind: Kind, place: int, use: Use) -> Built:
        if seconds is None or _is_at_once(self._targets.get(use.plugin, ())):
            return self._built(name, kind, place, use)
        made: list[Built] = []
        try:
            within(seconds, lambda: made.append(self._built(name, kind, place, use)))
        except OverdueError:
            raise PluginOverdueError(
                f"{kind} {use.label} ({use.plugin}) was not made within {seconds:g} s; correct the plug-in, or raise"
                " CANDLELAKE_STAGE_TIMEOUT when it needs more") from None
        return made[0]

    def _built(self, name: str, kind: Kind, place: int, use: Use) -> Built:
        try:
            plugin = self.make(use, kind, f"pipeline {name} {field_of(kind)}.{place}")
            bind = getattr(plugin, "bind", None)  # an indicator learns the name of its column
            return Built(kind, place, use, plugin if bind is None else bind(use.label), bool(plugin.is_causal))
        except CandlelakeError:
            raise
        except BaseException as failure:
            if isinstance(failure, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # a person's Ctrl-C comes to the main thread and to no other
            text = " ".join(str(failure).split())[:500]
            raise PluginError(
                f"{kind} {use.label} ({use.plugin}) raised {type(failure).__name__} when it was made: {text}; correct the plug-in or its"
                " parameters") from failure

    def freeze(self, definition: PipelineDefinition, owner: str, resources: Resources) -> PipelineDefinition:
        """Return the definition with what its plug-ins name elsewhere copied into their parameters."""
        changed: dict[str, list[Use]] = {}
        for kind in KINDS:
            uses = []
            for place, use in enumerate(definition.uses(kind)):
                where = f"pipeline {definition.name} {field_of(kind)}.{place} plugin"
                freeze = getattr(self.load(use.plugin, where, kind), "freeze", None)
                frozen = use.parameters if freeze is None else freeze(dict(use.parameters), owner, resources)
                uses.append(use.model_copy(update={"parameters": frozen}))
            changed[field_of(kind)] = uses
        return PipelineDefinition.model_validate(definition.model_dump() | {
            name: [use.model_dump() for use in uses] for name, uses in changed.items()})

    def _names_of(self, kind: Kind) -> list[str]:
        return [info.name for info in self.describe() if info.kind == kind]


def _is_at_once(targets: Sequence[tuple[str, str, EntryPoint | None]]) -> bool:
    """Whether making a plug-in is a matter of its parameters alone: those of this package load nothing."""
    return all(point is None and target.startswith("pipeline.") for _, target, point in targets)


def checked_parameters(plugin: type[Any], values: Mapping[str, Any], where: str) -> BaseModel:
    """Return a plug-in's parameters, checked by its own model.

    Raises:
        InputError: names the parameter, its value and what is allowed.
    """
    model: type[BaseModel] = plugin.Parameters
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise explain(where, error, model) from None


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _checked(loaded: Any, name: str, target: str, where: str) -> type[Any]:
    kind = getattr(loaded, "kind", None)
    if not isinstance(loaded, type) or kind not in KINDS:
        raise InputError(where, name, f"a class with kind = one of {', '.join(KINDS)}", f"{target} has kind {kind!r}")
    parameters = getattr(loaded, "Parameters", None)
    if not (isinstance(parameters, type) and issubclass(parameters, BaseModel)):
        raise InputError(where, name, "a class with Parameters, a pydantic model", f"add it to {target}")
    if not callable(getattr(loaded, METHODS[kind], None)):
        raise InputError(where, name, f"a {kind} with the method {METHODS[kind]}", f"add it to {target}")
    if not isinstance(getattr(loaded, "is_causal", None), bool):
        raise InputError(where, name, "a class with is_causal = True or False", f"add it to {target}; False is always safe")
    return loaded
