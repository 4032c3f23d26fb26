"""/api/providers and symbols: what a connection can be made of; /api/connections/{slug}/proof: what its data proves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from console import choosing, proof
from console.api.data_models import ProofOut
from console.api.models import BUSY, ProviderOut, SymbolOut
from console.policy import CONNECTIONS, identity_of
from console.state import feed_of

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]
Words = Annotated[str, Query(max_length=100, description="Words that the symbol or its description holds.", examples=["btc usd"])]
Limit = Annotated[int, Query(ge=1, le=1000)]
Moment = Annotated[str | None, Query(max_length=40, description="ISO 8601, UTC without offset.")]


@router.get("/providers", dependencies=SEES)
def list_providers() -> list[str]:
    """Return the names of all providers, brokers first."""
    return choosing.provider_rows()


@router.get("/providers/{provider}", dependencies=SEES)
def show_provider(provider: str) -> ProviderOut:
    """Return what a provider can do and which credentials it takes."""
    return ProviderOut(**choosing.provider_dict(provider))


@router.get("/providers/{provider}/symbols", dependencies=SEES, responses=BUSY)
async def list_provider_symbols(request: Request, provider: str, query: Words = "", limit: Limit = choosing.SHOWN) -> list[SymbolOut]:
    """Return the symbols of a provider's public endpoint that match."""
    rows = await choosing.provider_symbols(feed_of(request), identity_of(request), provider, None, query, limit)
    return [SymbolOut(**row) for row in rows]


@router.get("/connections/{slug}/symbols", dependencies=SEES, responses=BUSY)
async def list_symbols(request: Request, slug: str, query: Words = "", limit: Limit = choosing.SHOWN) -> list[SymbolOut]:
    """Return the symbols at a connection's provider that match, asked through the connection."""
    rows = await choosing.symbols_of(feed_of(request), identity_of(request), slug, query, limit)
    return [SymbolOut(**row) for row in rows]


@router.get("/connections/{slug}/proof", dependencies=SEES)
def show_proof(request: Request, slug: str, start: Moment = None, end: Moment = None) -> ProofOut:
    """Return the proof of a period's candles (the last 30 days without one): completeness, causes, revisions, repairs, clocks, digests."""
    return ProofOut(**proof.proof_of(feed_of(request), identity_of(request), slug, start, end))
