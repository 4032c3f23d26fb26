"""Sign-in through an OpenID Connect provider: authorization code flow with PKCE, state and nonce.

The browser keeps what a begun sign-in needs in a short-lived cookie that this process has signed; the provider's answer counts
only together with it. Tokens of the provider are looked at once and kept nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httpx

from core.errors import CredentialsRefusedError, InputError, ProviderUnavailableError, UnsupportedError
from core.settings import Settings

PENDING_SECONDS: Final = 600
_ANSWER_MAX: Final = 1_000_000  # bytes of a discovery document, key set or token answer
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_KEY: Final = secrets.token_bytes(32)  # a restart ends sign-ins that are under way: they begin again
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Pending:
    """What the browser keeps between leaving for the provider and coming back."""

    state: str
    nonce: str
    verifier: str
    begun_at: int  # seconds since the epoch

    def seal(self) -> str:
        """Return it as a cookie's value that nobody else can make."""
        body = base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()
        return f"{body}.{_signature(body)}"


@dataclass(frozen=True, slots=True)
class Known:
    """Who the provider says it is. `email` is set when the provider has verified it."""

    issuer: str
    subject: str
    email: str | None


def begin(settings: Settings, return_to: str, now: int) -> tuple[str, Pending]:
    """Return the address to send the browser to, and what it has to bring back.

    Raises:
        UnsupportedError: OIDC is not set up, or its extra is not installed. ProviderUnavailableError: no usable answer.
    """
    endpoints = _discover(settings)
    pending = Pending(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), now)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).rstrip(b"=").decode()
    query = urlencode({
        "response_type": "code", "client_id": settings.oidc_client_id, "redirect_uri": return_to, "scope": "openid email",
        "state": pending.state, "nonce": pending.nonce, "code_challenge": challenge, "code_challenge_method": "S256"})
    joint = "&" if "?" in endpoints["authorization_endpoint"] else "?"
    return f"{endpoints['authorization_endpoint']}{joint}{query}", pending


def unseal(value: str, state: str, now: int) -> Pending:
    """Return what a browser brought back for `state`.

    Raises:
        CredentialsRefusedError: not ours, too old, or of another sign-in.
    """
    body, _, signature = value.rpartition(".")
    if hmac.compare_digest(signature.encode(), _signature(body).encode()):
        pending = Pending(**json.loads(base64.urlsafe_b64decode(body)))
        if hmac.compare_digest(pending.state.encode(), state.encode()) and 0 <= now - pending.begun_at <= PENDING_SECONDS:
            return pending
    raise CredentialsRefusedError("this sign-in was not begun here, or more than ten minutes ago; sign in again")


def finish(settings: Settings, return_to: str, code: str, pending: Pending, now: int) -> Known:
    """Trade the code for an identity token, check every claim of it, and return who it is.

    Raises:
        CredentialsRefusedError: the provider refuses the code, or the token is not one for this sign-in.
        UnsupportedError, ProviderUnavailableError: as `begin`.
    """
    endpoints = _discover(settings)
    secret = settings.oidc_client_secret
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": return_to, "code_verifier": pending.verifier,
            "client_id": str(settings.oidc_client_id)}
    auth = None if secret is None else (str(settings.oidc_client_id), secret.get_secret_value())
    answer = _ask("POST", endpoints["token_endpoint"], settings, data=form, auth=auth)
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise CredentialsRefusedError("the OIDC provider gave no identity token; sign in again")
    return _known(settings, token, _ask("GET", endpoints["jwks_uri"], settings), pending.nonce, now)


def _known(settings: Settings, token: str, keys: Mapping[str, Any], nonce: str, now: int) -> Known:
    jose = _jose()
    try:
        claims = jose.jwt.decode(token, jose.jwk.KeySet.import_key_set(keys), algorithms=_ALGORITHMS).claims
        jose.jwt.JWTClaimsRegistry(
            now=now, leeway=60, iss={"essential": True, "value": settings.oidc_issuer}, sub={"essential": True},
            aud={"essential": True, "value": settings.oidc_client_id}, exp={"essential": True}, iat={"essential": True},
            nonce={"essential": True, "value": nonce}).validate(claims)
    except (jose.errors.JoseError, ValueError, KeyError, TypeError) as error:
        raise CredentialsRefusedError(f"the OIDC provider's token is refused ({type(error).__name__}); sign in again") from None
    authorized = claims.get("azp", settings.oidc_client_id)
    subject, email = claims["sub"], claims.get("email")
    if authorized != settings.oidc_client_id or not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise CredentialsRefusedError("the OIDC provider's token is for somebody else; sign in again")
    is_verified = claims.get("email_verified") is True and isinstance(email, str)
    return Known(str(settings.oidc_issuer), subject, email if is_verified else None)


def _discover(settings: Settings) -> Mapping[str, str]:
    """Return the provider's endpoints from its own document, each one checked."""
    issuer = settings.oidc_issuer
    if issuer is None or settings.oidc_client_id is None:
        raise UnsupportedError("sign-in by OIDC is not set up; set CANDLELAKE_OIDC_ISSUER and CANDLELAKE_OIDC_CLIENT_ID")
    _jose()
    _check_address(issuer, "CANDLELAKE_OIDC_ISSUER", issuer)
    found = _ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration", settings)
    if found.get("issuer") != issuer:
        raise ProviderUnavailableError("the OIDC provider calls itself by another name than CANDLELAKE_OIDC_ISSUER; compare the two")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    for name in names:
        _check_address(str(found.get(name, "")), name, issuer)
    return {name: str(found[name]) for name in names}


def _check_address(address: str, what: str, issuer: str) -> None:
    parts = urlsplit(address)
    is_local = parts.hostname in _LOOPBACK and urlsplit(issuer).hostname in _LOOPBACK
    if parts.hostname is None or not (parts.scheme == "https" or (parts.scheme == "http" and is_local)):
        raise InputError(what, address[:200], "an https address", "correct it at the provider or in the settings")


def _ask(method: str, address: str, settings: Settings, **rest: Any) -> dict[str, Any]:
    """Return a JSON object from the provider; bounded in time and size, no redirects, no proxies of the environment."""
    try:
        with (httpx.Client(timeout=min(settings.request_timeout, 15.0), follow_redirects=False, trust_env=False) as client,
              client.stream(method, address, headers={"accept": "application/json"}, **rest) as response):
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _ANSWER_MAX:
                    raise ProviderUnavailableError("the OIDC provider's answer is too long")
            status = response.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ProviderUnavailableError(f"the OIDC provider does not answer ({type(error).__name__}); try again") from None
    if status in {400, 401, 403}:
        raise CredentialsRefusedError(f"the OIDC provider refuses this sign-in (HTTP {status}); sign in again")
    if status != 200:
        raise ProviderUnavailableError(f"the OIDC provider answers with HTTP {status}; try again")
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderUnavailableError("the OIDC provider's answer is no JSON object; is CANDLELAKE_OIDC_ISSUER right?")
    return found


def _signature(body: str) -> str:
    return hmac.new(_KEY, body.encode(), hashlib.sha256).hexdigest()


def _jose() -> Any:
    try:
        import joserfc.errors  # noqa: PLC0415  an extra: only who uses it needs it
        import joserfc.jwk  # noqa: PLC0415
        import joserfc.jwt  # noqa: PLC0415
    except ImportError:
        raise UnsupportedError("sign-in by OIDC needs the extra `oidc`: pip install 'candlelake[oidc]'") from None
    return joserfc
