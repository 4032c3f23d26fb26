"""`python -m console.documentation`: API_DOCUMENTATION.md out of the app's own OpenAPI document, docs/errors.md out of the kinds of errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from console.app import document, make_app
from console.prefect_api import PrefectDesk
from console.problems import all_kinds
from core.settings import Settings
from feed import open_feed

_HEAD = """# The HTTP API

Written by `python -m console.documentation` out of the app's OpenAPI document (`/api/openapi.json` of a running console); a test
holds both together.

Programs send a token as `Authorization: Bearer clk_…`; make one on the account page or with `candlelake tokens create`. The scope
`read` is for reading, `manage` for changes. Instants are ISO 8601, UTC without an offset; ranges are half-open. Every error is
`{"error": "one line", "id": "E-…", "cause": …, "fix": …, "docs": …}` with 400, 401, 403, 404, 405, 408, 409, 413, 422, 429 or 503; the ids are in
[docs/errors.md](docs/errors.md). What is somebody else's is answered like what is not
there: 404. OpenBB Workspace takes the console's address with `/api` as its backend; TradingView's charting library takes `/api/udf`.
"""


_ERRORS_HEAD = """# Errors of the console and its API

Written by `python -m console.documentation` out of `console/problems.py`; the console shows the same at `/errors`. The `id` of an answer is
one of these, whatever its line says.
"""


def markdown(found: Mapping[str, Any]) -> str:
    """Return an OpenAPI document as Markdown, calls by path."""
    return _HEAD + "".join(line + "\n" for line in _lines(found)).rstrip("\n") + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in sorted(found["paths"].items()):
        for method, operation in methods.items():
            yield f"\n## {method.upper()} {path}\n"
            yield " ".join((operation.get("description") or operation["summary"]).split())
            rows = [_parameter(item) for item in operation.get("parameters", [])]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body is not None:
                rows += _fields(found, body)
            if rows:
                yield "\n| name | where | type | required | meaning |\n|---|---|---|---|---|"
                yield from rows
            good = [status for status in operation["responses"] if status.startswith("2")]
            answer = operation["responses"][good[0]].get("content", {}) if good else {}
            schema = answer.get("application/json", {}).get("schema")
            yield f"\nAnswers {', '.join(good)}: {_type(schema) if schema else ', '.join(answer) or 'nothing'}."
    for name, schema in sorted(found["components"]["schemas"].items()):
        if name.endswith(("Out", "Alive")):
            yield f"\n## {name}\n\n{schema.get('description', '')}\n\n| field | type |\n|---|---|"
            yield from (f"| {field} | {_type(kind)} |" for field, kind in schema["properties"].items())


def _parameter(item: Mapping[str, Any]) -> str:
    text = item.get("description") or item["schema"].get("description") or ""
    return f"| {item['name']} | {item['in']} | {_type(item['schema'])} | {'yes' if item.get('required') else 'no'} | {text} |"


def _fields(found: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    named = found["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    needed = named.get("required", [])
    return [f"| {name} | body | {_type(kind)} | {'yes' if name in needed else 'no'} | {kind.get('description', '')} |"
            for name, kind in named.get("properties", {}).items()]


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(_type(item) for item in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{item}`" for item in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def errors_markdown() -> str:
    """Return docs/errors.md: every kind of error that pages and API answer with."""
    rows = "".join(f"| <a id=\"{kind.id}\"></a>`{kind.id}` | {kind.status} | {kind.meaning} | {kind.fix} |\n" for kind in all_kinds())
    return f"{_ERRORS_HEAD}\n| id | status | what it means | what to do |\n|---|---|---|---|\n{rows}"


def main() -> int:
    """Write the files; return the exit code."""
    with TemporaryDirectory() as folder, open_feed(Settings(home=Path(folder), key_file=Path(folder) / "keys")) as feed:
        text = markdown(document(make_app(feed, PrefectDesk("http://127.0.0.1:9/api"))))
    here = Path(__file__).parent.parent
    (here / "API_DOCUMENTATION.md").write_text(text, encoding="utf-8")
    (here / "docs" / "errors.md").write_text(errors_markdown(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
