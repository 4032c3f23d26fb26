"""The proof of a connection's data as a page."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from console import proof, readings
from console.policy import CONNECTIONS, identity_of
from console.rendering import page
from console.state import feed_of
from core.errors import InputError
from storage.gap_words import MEANINGS
from storage.proof_strip import LEGEND, boxes

router = APIRouter(include_in_schema=False)


@router.get("/connections/{slug}/proof", dependencies=[Depends(CONNECTIONS)])
def show_proof(request: Request, slug: str, start: str = "", end: str = "") -> Response:
    """Show completeness, causes, revisions, repairs, clocks and digests of a period."""
    feed, who = feed_of(request), identity_of(request)
    row = readings.seen_connection(feed, who, slug)
    found, error = None, None
    try:
        found = proof.proof_of(feed, who, slug, start[:40].strip() or None, end[:40].strip() or None)
    except InputError as refused:
        error = str(refused)
    return page(request, "connection_proof.html", {
        "row": row, "tab": "proof", "r": found, "start": start, "end": end, "error": error, "causes": MEANINGS, "legend": LEGEND, "boxes": boxes})
