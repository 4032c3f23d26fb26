"""Pages out of templates; everything in them is escaped, and times are shown by the reader's browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import Response

from console.identity import Identity
from core.clock import isoformat

HERE = Path(__file__).parent
_LOCKED = Markup(' disabled title="a demonstration changes nothing"')
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape(default=True), undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True)
_TEMPLATES = Jinja2Templates(env=_ENVIRONMENT)


def page(request: Request, template: str, values: Mapping[str, Any] | None = None, *, status: int = 200) -> Response:
    """Return a rendered page; `me` and `csrf` are there for every template."""
    identity = getattr(request.state, "identity", None)
    known = identity if isinstance(identity, Identity) else None
    settings = request.app.state.feed.settings
    return _TEMPLATES.TemplateResponse(request, template, {
        "me": None if known is None else known.user, "sees_connections": known is not None and known.sees_connections,
        "csrf": "" if known is None or known.csrf is None else known.csrf,
        "read_only": settings.console_read_only, "locked": _LOCKED if settings.console_read_only else "", "oidc": settings.oidc_label if settings.oidc_issuer else None, **(values or {})}, status_code=status)


def _time(value_us: int | None) -> Markup | str:
    """Return an instant as an element that the browser shows in the reader's zone, with UTC on hover."""
    if value_us is None:
        return "never"
    text = isoformat(value_us)
    return Markup('<time datetime="{0}" title="{0}">{0}</time>').format(text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _price(value: float | None, digits: int) -> str:
    """Return a price with the decimals of its neighbours, so that they stand below each other."""
    return "" if value is None else f"{value:.{digits}f}"


def digits_of(values: Iterable[float]) -> int:
    """Return how many decimals prices need, ten at most."""
    return max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values), default=2)


def _count(value: int | None) -> str:
    """Return a count with its thousands set apart."""
    return "" if value is None else f"{value:,}"


def _lag(seconds: float | None) -> str:
    """Return a duration in the unit that a person would use."""
    if seconds is None:
        return ""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _percent(share: float | None) -> str:
    """Return a share as percent that never rounds up to 100."""
    if share is None:
        return "n/a"
    return "100 %" if share >= 1 else f"{int(share * 100_000) / 1000:.3f} %"


def _iso_time(text: str | None, absent: str = "") -> Markup | str:
    """Return an ISO 8601 text as `_time` returns an instant."""
    return absent if text is None else Markup('<time datetime="{0}" title="{0}">{0}</time>').format(text)


def _words(text: str) -> Markup:
    """Return a text in which `what` stands between backticks is shown as code."""
    parts = [escape(part) if number % 2 == 0 else Markup("<code>{}</code>").format(part) for number, part in enumerate(text.split("`"))]
    return Markup("").join(parts) if len(parts) % 2 else escape(text)


_ENVIRONMENT.filters["price"] = _price
_ENVIRONMENT.filters["words"] = _words
_ENVIRONMENT.filters["count"] = _count
_ENVIRONMENT.filters["lag"] = _lag
_ENVIRONMENT.filters["percent"] = _percent
_ENVIRONMENT.filters["moment"] = _iso_time
_ENVIRONMENT.filters["time"] = _time
_ENVIRONMENT.filters["number"] = _number
