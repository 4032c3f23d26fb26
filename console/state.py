"""What the app was made with, typed, for the routes."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from console.prefect_api import PrefectDesk
from feed.context import Feed


def feed_of(request: Request) -> Feed:
    """Return the home that the console shows."""
    return cast(Feed, request.app.state.feed)


def desk_of(request: Request) -> PrefectDesk:
    """Return Prefect's API."""
    return cast(PrefectDesk, request.app.state.desk)
