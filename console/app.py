"""Makes the console out of a home: routes, guards, static files. `python -m console` serves it."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from console import errors
from console.api import choices, live, system, udf
from console.api import connections as api_connections
from console.api import data as api_data
from console.api import pipelines as api_pipelines
from console.guard import Guard
from console.pages import access, connections, factor, forms, more, oidc, pipelines, proof, work
from console.policy import SIGNED_IN, check_routes
from console.prefect_api import PrefectDesk
from console.rendering import HERE, page
from feed.context import Feed

TITLE = "Candlelake"


def make_app(feed: Feed, desk: PrefectDesk) -> FastAPI:
    """Return the console of a home.

    Raises:
        NotPermittedError: a route names no policy.
    """
    app = FastAPI(title=TITLE, docs_url=None, redoc_url=None, openapi_url=None, swagger_ui_oauth2_redirect_url=None)
    app.state.feed, app.state.desk = feed, desk
    for router in (system.router, api_connections.router, api_data.router, choices.router, udf.router, live.router,
                   api_pipelines.router, access.router, factor.router, oidc.router, forms.router, connections.router, work.router, proof.router,
                   pipelines.router, more.router):
        app.router.routes.extend(router.routes)  # not included: then their routes could not be looked at here
    app.add_api_route("/api/openapi.json", _openapi, methods=["GET"], dependencies=[Depends(SIGNED_IN)], include_in_schema=False)
    app.add_api_route("/api/docs", _docs, methods=["GET"], dependencies=[Depends(SIGNED_IN)], include_in_schema=False)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    check_routes(app)
    errors.install(app)
    app.add_middleware(Guard, hosts=_names(feed.settings.console_hosts), origins=_names(feed.settings.console_origins))
    return app


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document; every answer that the guards can give is in it."""
    found = get_openapi(title=TITLE, version="1", routes=app.routes)
    problem = {"description": "One line: what was received, what is allowed, what to do.",
               "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    found.setdefault("components", {}).setdefault("schemas", {})["Problem"] = {
        "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    for methods in found["paths"].values():
        for operation in methods.values():
            for status in ("400", "401", "403", "404", "405", "409", "413", "422", "429", "503"):
                operation["responses"][status] = problem
    return found


def _openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    return JSONResponse(document(request.app))


def _docs(request: Request) -> Response:
    """Show every call of the API as a page."""
    if not hasattr(request.app.state, "document"):
        request.app.state.document = document(request.app)
    calls = [{"method": method.upper(), "path": path, "summary": operation.get("description") or operation.get("summary"),
              "parameters": [item["name"] for item in operation.get("parameters", [])]}
             for path, methods in sorted(request.app.state.document["paths"].items()) for method, operation in methods.items()]
    return page(request, "docs.html", {"calls": calls})
