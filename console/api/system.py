"""Whether the console lives and can work, and its figures for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from sqlalchemy import text

from console import readings
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
    """Return the figures of every connection in Prometheus' format."""
    registry = CollectorRegistry()
    lag = Gauge("candlelake_connection_lag_seconds", "Open-market seconds since the last candle", ["connection"], registry=registry)
    gaps = Gauge("candlelake_connection_gaps", "Entries of the gap ledger", ["connection"], registry=registry)
    good = Gauge("candlelake_connection_ok", "1 when the connection delivers", ["connection"], registry=registry)
    for row in readings.health_of_all(feed_of(request)):
        good.labels(row["connection"]).set(1 if row["status"] == "ok" else 0)
        gaps.labels(row["connection"]).set(row["gaps"])
        if row["lag_seconds"] is not None:
            lag.labels(row["connection"]).set(row["lag_seconds"])
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
