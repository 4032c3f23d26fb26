"""Who may ask what. Every route names one policy; an app with a route that names none does not start.

No postponed annotations here: FastAPI cannot resolve them on an object that is called.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, Mount

from console.given import is_text
from console.identity import Identity, gate, identify
from core.errors import CredentialsRefusedError, InputError, NotPermittedError
from storage.access import same

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER, CSRF_FIELD = "x-csrf-token", "csrf"


class SignInError(CredentialsRefusedError):
    """Raised when nobody is signed in."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule as a dependency of a route; it leaves the identity in `request.state.identity`."""

    name: str
    allows: Callable[[Identity], bool] | None  # None: everybody, also nobody
    is_open_read_only: bool = False  # changes that a read-only console takes: to sign in and out
    changes_by_page: bool = False  # a token changes nothing about who gets in, and how: whoever stole one would stay
    needs_factor: bool = True  # not for the pages on which somebody who has to have a second factor gets one

    async def __call__(self, request: Request) -> None:
        """Let the request through or raise SignInError or NotPermittedError."""
        state = request.app.state
        identity = await run_in_threadpool(identify, request, state.feed.lake.metadata, state.feed.clock)
        request.state.identity = identity
        changes = request.method not in SAFE
        if changes and "form" in request.headers.get("content-type", "") and not is_text([*(await request.form()).values()]):
            raise InputError("form", "a NUL character or half of a surrogate pair", "text without them", "send it again")
        if changes and state.feed.settings.console_read_only and not self.is_open_read_only:
            raise NotPermittedError("this console shows a demonstration and changes nothing")
        if self.allows is None:
            if changes:
                await self._check_same_site(request)
            return
        if identity is None:
            raise SignInError("sign in first, or send a valid token as Authorization: Bearer")
        self._check(identity, request, changes=changes)
        if changes and identity.via == "page":
            await self._check_csrf(request, identity)

    def _check(self, identity: Identity, request: Request, *, changes: bool) -> None:
        barred = gate(identity.user, request.app.state.feed.settings)
        if barred is not None:
            raise NotPermittedError(barred)
        if identity.lacks_factor and self.needs_factor:
            raise NotPermittedError("your role has to have a second factor; set one up under /account/second-factor")
        needed = "manage" if changes else "read"
        if needed not in identity.scopes:
            raise NotPermittedError(f"the token lacks the scope {needed}; make one that has it")
        if changes and self.changes_by_page and identity.via != "page":
            raise NotPermittedError("a token cannot change who signs in, and how; sign in to the console")
        if self.allows is not None and not self.allows(identity):
            raise NotPermittedError(f"{identity.user.name} may not do this; it needs: {self.name}")

    @staticmethod
    async def _check_same_site(request: Request) -> None:
        """Refuse a form that another site sent, as far as the browser says so: nobody is signed in to hold a token for."""
        site = request.headers.get("sec-fetch-site", "same-origin")
        origin = request.headers.get("origin")
        if site not in {"same-origin", "none"} or (origin is not None and origin != str(request.base_url).rstrip("/")):
            raise NotPermittedError("the form came from another site; open the console itself and try again")

    async def _check_csrf(self, request: Request, identity: Identity) -> None:
        await self._check_same_site(request)
        given = request.headers.get(CSRF_HEADER)
        if given is None and "form" in request.headers.get("content-type", ""):
            value = (await request.form()).get(CSRF_FIELD)
            given = value if isinstance(value, str) else None
        if not same(given or "", identity.csrf or ""):
            raise NotPermittedError("the form is too old or came from another site; reload the page and try again")


PUBLIC = Policy("nothing", None)
ENTRANCE = Policy("nothing", None, is_open_read_only=True)
SIGNED_IN = Policy("to be signed in", lambda _: True)
LEAVE = Policy("to be signed in", lambda _: True, is_open_read_only=True, needs_factor=False)
ENROL = Policy("to be signed in", lambda _: True, changes_by_page=True, needs_factor=False)
ACCOUNT = Policy("to be signed in", lambda _: True, changes_by_page=True)
CONNECTIONS = Policy("the permission manage-data-connections", lambda identity: identity.sees_connections)
ADMINS = Policy("an admin with manage-data-connections", lambda identity: identity.user.is_admin)
SUPER_ADMINS = Policy("a super admin", lambda identity: identity.user.role == "super_admin", changes_by_page=True)


def policy_of(route: APIRoute) -> Policy | None:
    """Return the one policy that a route names, None when it names none or several."""
    found = [item.dependency for item in route.dependencies if isinstance(item.dependency, Policy)]
    return found[0] if len(found) == 1 else None


def routes_of(app: FastAPI) -> Iterator[BaseRoute]:
    """Yield every route of an app."""
    yield from app.routes


def check_routes(app: FastAPI) -> None:
    """Raise NotPermittedError when a route names no policy: what is not allowed explicitly does not exist."""
    for route in routes_of(app):
        if isinstance(route, Mount) and route.path == "/static":
            continue  # files of the package that everybody may have
        if not isinstance(route, APIRoute) or policy_of(route) is None:
            raise NotPermittedError(f"route {getattr(route, 'path', route)} names no policy")


def identity_of(request: Request) -> Identity:
    """Return who is let in by the route's policy.

    Raises:
        SignInError: nobody is.
    """
    found: Any = request.state.identity
    if not isinstance(found, Identity):
        raise SignInError("sign in first")
    return found
