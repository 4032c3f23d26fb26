"""Whether the console lives and can work, and its figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text

from console import figures
from console.api.models import Alive
from console.policy import ADMINS, PUBLIC
from console.state import feed_of

router = APIRouter()


@router.get("/livez", dependencies=[Depends(PUBLIC)])
def livez() -> Alive:
    """Return that the process answers."""
    return Alive(status="ok")


@router.get("/readyz", dependencies=[Depends(PUBLIC)], response_model=Alive)
def readyz(request: Request) -> JSONResponse:
    """Return whether the metadata store answers; 503 when it does not."""
    with feed_of(request).lake.metadata.read() as tx:  # a StoreBusyError becomes 503
        tx.execute(text("SELECT 1"))
    return JSONResponse({"status": "ok"})


@router.get("/metrics", dependencies=[Depends(ADMINS)], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Return the figures of every connection and its stream in Prometheus' format."""
    return Response(figures.exposition(feed_of(request)), media_type=CONTENT_TYPE_LATEST)
