"""Reads an expression into a tree of its own; knows nothing of frames.

expression  = conjunction { "or" conjunction }
conjunction = negation { "and" negation }
negation    = "not" negation | comparison
comparison  = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]
sum         = product { ("+" | "-") product }
product     = factor { ("*" | "/") factor }
factor      = "-" factor | NUMBER | NAME [ "(" [ expression { "," expression } ] ")" ] | "(" expression ")"
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from core.errors import InputError

LENGTH_MAX: Final = 2_000
DEPTH_MAX: Final = 40
NODES_MAX: Final = 500
_TOKEN: Final = re.compile(r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign><=|>=|==|!=|[-+*/<>(),]))", re.ASCII)
_WORDS: Final = ("and", "or", "not")
_HINTS: Final = {"=": "write ==", "&": "write and", "|": "write or", "!": "write not, or != between numbers", ".": "write a number as 0.5"}
COMPARISONS: Final = ("<", "<=", ">", ">=", "==", "!=")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written."""

    value: float


@dataclass(frozen=True, slots=True)
class Name:
    """A column."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    name: str
    arguments: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Unary:
    """`-` or `not`."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, a comparison, `and` or `or`."""

    operator: str
    left: Node
    right: Node


Node = Number | Name | Call | Unary | Binary


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number | name | sign | end
    text: str
    at: int


def parse(text: str) -> Node:
    """Return the tree of an expression.

    Raises:
        InputError: says at which character what was found and what is allowed there.
    """
    if not text.strip():
        raise InputError("expression", text, "a condition, e.g. rsi(14) < 30", "write one")
    if len(text) > LENGTH_MAX:
        raise InputError("expression", f"{len(text)} characters", f"at most {LENGTH_MAX}", "split it into several filters")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._place = 0
        self._depth = 0
        self._nodes = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._now.kind != "end":
            raise self._wrong("an operator, or the end")
        return node

    @property
    def _now(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, *texts: str) -> str | None:
        if self._now.kind != "number" and self._now.text in texts:
            self._place += 1
            return self._tokens[self._place - 1].text
        return None

    def _need(self, text: str) -> None:
        if self._take(text) is None:
            raise self._wrong(repr(text))

    def _made(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise InputError("expression", f"more than {NODES_MAX} parts", f"at most {NODES_MAX}", "split it into several filters")
        return node

    def _wrong(self, allowed: str) -> InputError:
        found = self._now.text or "the end"
        return InputError(f"expression, character {self._now.at + 1}", found, allowed, f"in {self._text[:200]!r}")

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise InputError("expression", f"nested deeper than {DEPTH_MAX}", f"at most {DEPTH_MAX}", "write it flatter")
        node = self._conjunction()
        while self._take("or"):
            node = self._made(Binary("or", node, self._conjunction()))
        self._depth -= 1
        return node

    def _conjunction(self) -> Node:
        node = self._negation()
        while self._take("and"):
            node = self._made(Binary("and", node, self._negation()))
        return node

    def _negation(self) -> Node:
        count = 0
        while self._take("not"):
            count += 1
        node = self._comparison()
        return self._made(Unary("not", node)) if count % 2 else (self._made(Unary("not", Unary("not", node))) if count else node)

    def _comparison(self) -> Node:
        node = self._sum()
        operator = self._take(*COMPARISONS)
        if operator is None:
            return node
        node = self._made(Binary(operator, node, self._sum()))
        if self._now.text in COMPARISONS:
            raise self._wrong("'and' between two comparisons")
        return node

    def _sum(self) -> Node:
        node = self._product()
        while operator := self._take("+", "-"):
            node = self._made(Binary(operator, node, self._product()))
        return node

    def _product(self) -> Node:
        node = self._factor()
        while operator := self._take("*", "/"):
            node = self._made(Binary(operator, node, self._factor()))
        return node

    def _factor(self) -> Node:
        negative = False
        while self._take("-"):
            negative = not negative
        node = self._atom()
        return self._made(Unary("-", node)) if negative else node

    def _atom(self) -> Node:
        token = self._now
        if token.kind == "number":
            self._place += 1
            value = float(token.text)
            if not math.isfinite(value):
                raise InputError(f"expression, character {token.at + 1}", token.text, "a number below 1e308", "correct it")
            return self._made(Number(value))
        if token.kind == "name" and token.text not in _WORDS:
            self._place += 1
            return self._made(self._call(token) if self._take("(") else Name(token.text.lower(), token.at))
        if self._take("("):
            node = self._expression()
            self._need(")")
            return node
        raise self._wrong("a number, a column, a function or '('")

    def _call(self, token: _Token) -> Node:
        arguments: list[Node] = []
        if self._take(")") is None:
            arguments.append(self._expression())
            while self._take(","):
                arguments.append(self._expression())
            self._need(")")
        return Call(token.text.lower(), tuple(arguments), token.at)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise InputError(
                f"expression, character {place + 1}", text[place], "letters, digits, + - * / < <= > >= == != ( ) ,", _HINTS.get(text[place], "remove it"))
        kind = str(found.lastgroup)
        value = found[kind].lower() if kind == "name" else found[kind]
        yield _Token(kind, value, found.start(kind))
        at = found.end()
    yield _Token("end", "", len(text))
