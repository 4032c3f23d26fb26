"""Turns a parsed expression into a filter over frames: names by fixed tables, indicators by TA-Lib, the rest by Polars."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from addons.filter_strategy.parser import COMPARISONS, Binary, Call, Name, Node, Number, Unary, parse
from core.errors import InputError
from pipeline.talib_call import FUNCTIONS, call, checked, default_inputs, describe, output_names

Type = Literal["number", "truth"]
SHIFT_MAX: Final = 10_000
_DERIVED: Final[Mapping[str, pl.Expr]] = {
    "hour": pl.col("ts").dt.hour().cast(pl.Float64), "weekday": pl.col("ts").dt.weekday().cast(pl.Float64)}  # UTC; Monday is 1
COLUMNS: Final = ("open", "high", "low", "close", "volume", "spread", *_DERIVED)
_ARITHMETIC: Final[Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_COMPARE: Final[Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
_OWN: Final = ("prev", "abs", "min", "max")


@dataclass(frozen=True, slots=True)
class _Indicator:
    """A TA-Lib call whose inputs are columns of the frame (or of indicators and sums before it)."""

    column: str
    function: str
    output: int
    inputs: tuple[str, ...]
    options: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class _Derived:
    """A column made by Polars for an indicator to work on."""

    column: str
    expression: pl.Expr


class CompiledFilter:
    """An expression, ready to run on frames."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps: list[_Indicator | _Derived] = []
        node = parse(text)
        expression, kind = self._compile(node)
        if kind != "truth":
            raise InputError("expression", text, "a condition that is true or false", "compare it with something, e.g. > 0")
        self._condition = expression

    def run(self, frame: pl.DataFrame) -> pl.Series:
        """Return for each row whether the condition holds; one with a missing value does not."""
        work = frame.with_columns(pl.col("spread").cast(pl.Float64))
        for step in self._steps:
            if isinstance(step, _Derived):
                work = work.with_columns(step.expression.alias(step.column))
            else:
                outputs = call(step.function, work, step.inputs, dict(step.options))
                work = work.with_columns(outputs[step.output].alias(step.column))
        return work.select(passed=self._condition.fill_null(value=False))["passed"]

    def _compile(self, node: Node) -> tuple[pl.Expr, Type]:
        if isinstance(node, Number):
            return pl.lit(node.value), "number"
        if isinstance(node, Name):
            return self._column(node), "number"
        if isinstance(node, Call):
            return self._call(node), "number"
        if isinstance(node, Unary):
            inner = self._typed(node.operand, "truth" if node.operator == "not" else "number")
            return (~inner, "truth") if node.operator == "not" else (-inner, "number")
        return self._binary(node)

    def _binary(self, node: Binary) -> tuple[pl.Expr, Type]:
        if node.operator in {"and", "or"}:
            left, right = (self._typed(side, "truth") for side in (node.left, node.right))
            return (left & right if node.operator == "and" else left | right), "truth"
        left, right = self._typed(node.left, "number"), self._typed(node.right, "number")
        if node.operator in COMPARISONS:
            known = left.is_finite() & right.is_finite()  # Polars holds NaN for the greatest number
            # A missing value makes a comparison untrue, and its `not` untrue as well.
            return pl.when(known).then(_COMPARE[node.operator](left, right)).otherwise(None), "truth"
        return _ARITHMETIC[node.operator](left, right), "number"

    def _typed(self, node: Node, wanted: Type) -> pl.Expr:
        expression, kind = self._compile(node)
        if kind != wanted:
            raise InputError(
                "expression", self.text, f"a {'condition' if wanted == 'truth' else 'number'} where a "
                f"{'condition' if kind == 'truth' else 'number'} stands", "check the operators")
        return expression

    def _column(self, node: Name) -> pl.Expr:
        if node.name not in COLUMNS:
            hint = f"write {node.name}(...)" if node.name.upper() in FUNCTIONS or node.name in _OWN else "use one of those"
            raise InputError(f"expression, character {node.at + 1}", node.name, COLUMNS, hint)
        return _DERIVED.get(node.name, pl.col(node.name))

    def _call(self, node: Call) -> pl.Expr:
        if node.name in _OWN:
            return self._own(node)
        function, output = _function(node)
        return self._indicator(node, function, output)

    def _own(self, node: Call) -> pl.Expr:
        count = len(node.arguments)
        if node.name == "prev":
            steps = node.arguments[1] if count == 2 else Number(1.0)
            if count not in {1, 2} or not isinstance(steps, Number) or not steps.value.is_integer() or not 1 <= steps.value <= SHIFT_MAX:
                raise self._arguments(node, f"prev(value) or prev(value, n) with n from 1 to {SHIFT_MAX}: earlier candles only")
            return self._typed(node.arguments[0], "number").shift(int(steps.value))
        if node.name == "abs":
            if count != 1:
                raise self._arguments(node, "abs(value)")
            return self._typed(node.arguments[0], "number").abs()
        if count < 2:
            raise self._arguments(node, f"{node.name}(a, b, ...)")
        # By columns: the choice names both sides three times, and nested choices of whole expressions would grow without end.
        parts = [pl.lit(item.value) if isinstance(item, Number) else pl.col(self._input(item)) for item in node.arguments]
        # Not min_horizontal: it passes over a missing value, and here that must stay missing.
        less = node.name == "min"

        def chosen(a: pl.Expr, b: pl.Expr) -> pl.Expr:
            return pl.when(a.is_null() | b.is_null()).then(None).when((a < b) if less else (a > b)).then(a).otherwise(b)

        best = parts[0]
        for part in parts[1:]:
            best = pl.col(self._derived(chosen(best, part)))
        return best

    def _indicator(self, node: Call, function: str, output: int) -> pl.Expr:
        columns = [item for item in node.arguments if not isinstance(item, Number)]
        numbers = [item.value for item in node.arguments if isinstance(item, Number)]
        if list(node.arguments) != [*columns, *(item for item in node.arguments if isinstance(item, Number))]:
            raise self._arguments(node, "columns first, then numbers")
        expected = default_inputs(function)
        if columns and len(columns) != len(expected):
            raise self._arguments(node, f"{len(expected)} columns, or none for {', '.join(expected)}")
        if not columns and not all(expected):
            raise self._arguments(node, f"{len(expected)} columns")
        names = list(describe(function)["parameters"])
        if len(numbers) > len(names):
            raise self._arguments(node, f"at most {len(names)} numbers: {', '.join(names) or 'none'}")
        options = checked(function, dict(zip(names, numbers, strict=False)))
        inputs = tuple(self._input(item) for item in columns) or expected
        step = _Indicator(f"_{len(self._steps)}", function, output, inputs, tuple(options.items()))
        for made in self._steps:  # the same call twice is made once
            if isinstance(made, _Indicator) and (made.function, made.output, made.inputs, made.options) == (
                    step.function, step.output, step.inputs, step.options):
                return pl.col(made.column)
        self._steps.append(step)
        return pl.col(step.column)

    def _input(self, node: Node) -> str:
        if isinstance(node, Name) and node.name in COLUMNS and node.name not in _DERIVED:
            return node.name
        return self._derived(self._typed(node, "number"))

    def _derived(self, expression: pl.Expr) -> str:
        name = f"_{len(self._steps)}"
        self._steps.append(_Derived(name, expression))
        return name

    def _arguments(self, node: Call, allowed: str) -> InputError:
        return InputError(f"arguments of {node.name}, character {node.at + 1}", f"{len(node.arguments)} arguments", allowed, "correct the call")


def _function(node: Call) -> tuple[str, int]:
    """Return the TA-Lib function and the output that a name means: `bbands_upperband` is the first one of BBANDS."""
    name = node.name.upper()
    if name in FUNCTIONS:
        outputs = output_names(name)
        if len(outputs) > 1:
            allowed = [f"{node.name}_{item}" for item in outputs]
            raise InputError(f"expression, character {node.at + 1}", node.name, allowed, "say which of its outputs")
        return name, 0
    for split in range(1, name.count("_") + 1):
        head, tail = "_".join(node.name.split("_")[:-split]).upper(), "_".join(node.name.split("_")[-split:])
        if head in FUNCTIONS and tail in output_names(head):
            return head, output_names(head).index(tail)
    near = [item.lower() for item in FUNCTIONS if item.startswith(name[:2])]
    raise InputError(f"expression, character {node.at + 1}", node.name, [*_OWN, *near] or list(_OWN), "TA-Lib's functions go by their names")
