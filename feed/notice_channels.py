"""The ways a notification leaves the house: e-mail by SMTP, and a signed webhook. Each says in one line why it failed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import httpx
import orjson

from core.clock import SECOND_US, Clock, isoformat
from core.errors import CandlelakeError, InputError, NetworkError
from core.secrets import redact
from core.settings import Settings
from providers.addresses import check_url
from providers.http import PinnedTransport, status_error, translated

_SMTP_PORTS: Final = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Notice:
    """A notification as it is sent. `to` are the verified e-mail addresses of the people behind its connection."""

    id: int
    kind: str
    severity: str
    connection: str
    title: str
    message: str
    created_at_us: int
    to: tuple[str, ...] = ()


class Channel(Protocol):
    """One way out. The same notice may be sent twice after a crash: it carries the same key then."""

    name: str

    async def send(self, notice: Notice) -> None:
        """Send one notice; a CandlelakeError says why it did not go out."""


def channels_of(settings: Settings, clock: Clock) -> list[Channel]:
    """Return the channels that the settings name.

    Raises:
        InputError: an address that is none.
    """
    out: list[Channel] = []
    if settings.smtp_url is not None:
        out.append(Email(settings, clock))
    if settings.notify_webhook_url is not None:
        out.append(Webhook(settings, clock))
    return out


class Email:
    """Plain text to the operators of CANDLELAKE_NOTIFY_EMAIL and to the connection's owner; receivers do not see each other."""

    name = "email"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        parts = urlsplit(settings.smtp_url.get_secret_value() if settings.smtp_url else "")
        if parts.scheme not in _SMTP_PORTS or not parts.hostname:
            raise InputError("CANDLELAKE_SMTP_URL", f"scheme {parts.scheme[:20]!r}", "smtp://[USER:PASSWORD@]HOST[:PORT] or smtps://...",
                             "correct it")
        self._parts, self._clock, self._timeout = parts, clock, settings.request_timeout
        self._from = settings.notify_from or f"candlelake@{parts.hostname}"
        self._operators = tuple(item.strip() for item in settings.notify_email.split(",") if item.strip())
        self._link = settings.console_url

    async def send(self, notice: Notice) -> None:
        """Hand the notice to the mail server; nobody to send it to counts as sent."""
        receivers = tuple(dict.fromkeys((*self._operators, *notice.to)))
        if receivers:
            await asyncio.to_thread(self._hand_over, self._message(notice), receivers)

    def _message(self, notice: Notice) -> EmailMessage:
        out = EmailMessage()
        out["Subject"] = f"[Candlelake] {notice.severity}: {_one_line(notice.title)}"
        out["From"] = self._from
        out["To"] = "undisclosed-recipients:;"
        out["Date"] = formatdate(self._clock.now_us() / SECOND_US)
        out["Message-ID"] = f"<notice-{notice.id}-{notice.created_at_us}@{self._from.rpartition('@')[2]}>"
        out["Auto-Submitted"] = "auto-generated"
        lines = [notice.title, "", notice.message, "", f"connection: {notice.connection}", f"at: {isoformat(notice.created_at_us)}"]
        if self._link:
            lines.append(f"console: {self._link.rstrip('/')}/connections/{notice.connection}")
        out.set_content("\n".join(lines) + "\n")
        return out

    def _hand_over(self, message: EmailMessage, receivers: Sequence[str]) -> None:
        parts, host = self._parts, str(self._parts.hostname)
        port, context = parts.port or _SMTP_PORTS[parts.scheme], ssl.create_default_context()
        try:
            server = (smtplib.SMTP_SSL(host, port, timeout=self._timeout, context=context) if parts.scheme == "smtps"
                      else smtplib.SMTP(host, port, timeout=self._timeout))
            with server:
                if parts.scheme == "smtp" and server.has_extn("starttls"):
                    server.starttls(context=context)
                if parts.username:
                    if not isinstance(server.sock, ssl.SSLSocket):
                        raise NetworkError(f"the mail server {host} offers no TLS; a password is not sent in the clear")
                    server.login(unquote(parts.username), unquote(parts.password or ""))
                server.send_message(message, self._from, list(receivers))
        except (OSError, smtplib.SMTPException) as error:  # SMTPException is an OSError; named for the reader
            code = getattr(error, "smtp_code", "")
            raise NetworkError(f"the mail server {host} did not take it ({type(error).__name__} {code})".replace(" )", ")")) from None


class Webhook:
    """A JSON body, signed: `X-Candlelake-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 over `SECONDS.BODY`."""

    name = "webhook"

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._url = settings.notify_webhook_url.get_secret_value() if settings.notify_webhook_url else ""
        self._target = check_url(self._url.partition("?")[0])
        self._secret = settings.notify_webhook_secret
        self._clock, self._timeout, self._allow_private = clock, settings.request_timeout, settings.allow_private_hosts

    async def send(self, notice: Notice) -> None:
        """Post the notice; any status outside 200 to 299 is a failure."""
        values = asdict(notice) | {"at": isoformat(notice.created_at_us)}
        body = orjson.dumps({name: value for name, value in values.items() if name not in {"to", "created_at_us"}})
        second = str(self._clock.now_us() // SECOND_US)
        headers = {"content-type": "application/json", "user-agent": "candlelake", "idempotency-key": f"notice-{notice.id}-{notice.created_at_us}"}
        if self._secret is not None:
            mark = hmac.new(self._secret.get_secret_value().encode(), f"{second}.".encode() + body, hashlib.sha256).hexdigest()
            headers["x-candlelake-signature"] = f"t={second},v1={mark}"
        host = self._target.host
        async with (
            translated(host), asyncio.timeout(self._timeout),
            httpx.AsyncClient(transport=PinnedTransport(allow_private=self._allow_private), follow_redirects=False, trust_env=False) as client,
            client.stream("POST", self._url, content=body, headers=headers) as answer,
        ):
            error = status_error(answer.status_code, answer.headers, host, self._clock.now_us())
        if error is not None:
            raise error


def said(error: CandlelakeError) -> str:
    """Return an error as one line for the table and the log, without secrets."""
    return _one_line(redact(str(error)))[:300]


def _one_line(text: str) -> str:
    return " ".join(text.split())
