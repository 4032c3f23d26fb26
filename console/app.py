"""Makes the console out of a home: routes, guards, static files. `python -m console` serves it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from console import errors, problems
from console.api import choices, live, people, system, udf
from console.api import connections as api_connections
from console.api import data as api_data
from console.api import pipelines as api_pipelines
from console.api.models import Problem
from console.guard import Guard
from console.pages import access, account, connections, factor, forms, more, oidc, pipelines, proof, work
from console.pages import people as people_pages
from console.policy import PUBLIC, SAFE, SIGNED_IN, Policy, check_routes, policy_of
from console.prefect_api import PrefectDesk
from console.rendering import HERE, page
from console.turns import Turns
from feed.context import Feed

TITLE = "Candlelake"
LOGINS_AT_ONCE, LOGINS_IN_LINE = 2, 40  # each takes 19 MiB and a core while it lasts


def make_app(feed: Feed, desk: PrefectDesk) -> FastAPI:
    """Return the console of a home.

    Raises:
        NotPermittedError: a route names no policy.
    """
    app = FastAPI(title=TITLE, docs_url=None, redoc_url=None, openapi_url=None, swagger_ui_oauth2_redirect_url=None)
    app.state.feed, app.state.desk = feed, desk
    app.state.logins = Turns(LOGINS_AT_ONCE, LOGINS_IN_LINE)
    for router in (system.router, api_connections.router, api_data.router, choices.router, udf.router, live.router, people.router,
                   api_pipelines.router, access.router, people_pages.router, account.router, factor.router, oidc.router, forms.router, connections.router, work.router, proof.router,
                   pipelines.router, more.router):
        app.router.routes.extend(router.routes)  # not included: then their routes could not be looked at here
    app.add_api_route("/api/openapi.json", _openapi, methods=["GET"], dependencies=[Depends(SIGNED_IN)], include_in_schema=False)
    app.add_api_route("/api/docs", _docs, methods=["GET"], dependencies=[Depends(SIGNED_IN)], include_in_schema=False)
    app.add_api_route(problems.PAGE, _errors, methods=["GET"], dependencies=[Depends(PUBLIC)], include_in_schema=False)
    app.mount("/static", GZipMiddleware(_Files(directory=HERE / "static"), compresslevel=6), name="static")
    check_routes(app)
    errors.install(app)
    app.add_middleware(Guard, hosts=_names(feed.settings.console_hosts), origins=_names(feed.settings.console_origins))
    return app


class _Files(StaticFiles):
    """The package's own files: those whose name holds their version are kept for ever, the others asked for again each time."""

    def file_response(self, full_path: os.PathLike[str] | str, *rest: Any, **more: Any) -> Response:
        """Answer with a file, or that it has not changed."""
        found = super().file_response(full_path, *rest, **more)
        found.headers["cache-control"] = "public, max-age=31536000, immutable" if "vendor" in Path(full_path).parts else "no-cache"
        return found


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document; each call names every answer that it can give, those of the guards and policies too."""
    found = get_openapi(title=TITLE, version="1", routes=app.routes)
    problem = {"description": "One line: what was received, what is allowed, what to do.",
               "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    found.setdefault("components", {}).setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    rules = {(route.path, method.lower()): policy_of(route) for route in app.routes if isinstance(route, APIRoute) for method in route.methods or ()}
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            rule = rules[path, method]
            operation["responses"].pop("422", None)  # FastAPI's own, which repeats the input
            if rule is not None and rule.allows is not None:
                operation["security"] = [{"token": []}]
            for status in _problems(rule, method, operation):
                operation["responses"].setdefault(status, problem)
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
    return found


def _problems(rule: Policy | None, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    """Yield the statuses of the errors that a call can answer with."""
    yield from ("400", "413", "503")  # an unknown host, a body that is too large, a store that is busy
    if rule is not None and rule.allows is not None:
        yield from ("401", "403")
    if method.upper() not in SAFE:
        yield from ("403", "408", "409")  # too slow a body; what is stored forbids it
    if "parameters" in operation or "requestBody" in operation:
        yield "422"
    if any(item["in"] == "path" or item["name"] == "symbol" for item in operation.get("parameters", ())):
        yield "404"


def _document_of(app: FastAPI) -> dict[str, Any]:
    if not hasattr(app.state, "document"):  # made once: it takes as long as hundreds of other calls
        app.state.document = document(app)
    made: dict[str, Any] = app.state.document
    return made


def _openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    return JSONResponse(_document_of(request.app))


def _errors(request: Request) -> Response:
    """Explain the kinds of errors."""
    return page(request, "errors.html", {"kinds": list(problems.all_kinds())})


def _docs(request: Request) -> Response:
    """Show every call of the API as a page."""
    calls = [{"method": method.upper(), "path": path, "summary": operation.get("description") or operation.get("summary"),
              "parameters": [item["name"] for item in operation.get("parameters", [])]}
             for path, methods in sorted(_document_of(request.app)["paths"].items()) for method, operation in methods.items()]
    return page(request, "docs.html", {"calls": calls})
