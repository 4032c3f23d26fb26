"""The border to S3-compatible storage: puts that never overwrite, reads, lists, deletes; every error translated here, once.

An object's key is the file's path below the lake's root, below the bucket's prefix. Files have names that nothing had
before, so no object is ever overwritten and nobody needs a lock. An empty object `.old/<path>` says that the candles of
`<path>` were removed on purpose: `rebuild` leaves them alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from core.clock import to_us
from core.errors import (
    CandlelakeError,
    CredentialsRefusedError,
    InputError,
    NetworkError,
    NotFoundError,
    NotPermittedError,
    StoreCorruptError,
    StoreUnwritableError,
    UnsupportedError,
)
from core.settings import Settings
from storage.lake import layout

SCHEME = "s3://"
_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_TIMEOUTS = {"connect_timeout": "10s", "timeout": "300s"}  # the second is for a whole file over a slow line
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")  # obstore reads them by itself
_KEYS = "CANDLELAKE_OBJECT_STORE_ACCESS_KEY and _SECRET_KEY, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
# What the object store's answer, or the kind of obstore's error, says; the first that fits.
_SAID: Final[tuple[tuple[tuple[str, ...], type[CandlelakeError], str], ...]] = (
    (("NoSuchBucket",), NotFoundError, "no such bucket; make it, or correct CANDLELAKE_LAKE"),
    (("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "UnauthenticatedError"), CredentialsRefusedError,
     f"the object store refuses the credentials; check {_KEYS}"),
    (("169.254.",), CredentialsRefusedError, f"no credentials for the object store; set {_KEYS}"),  # it asked the machine's role
    (("AccessDenied", "PermissionDeniedError", "403 Forbidden"), NotPermittedError,
     "the object store denies this; allow the key to list, get, put and delete below the lake's prefix"),
    (("NotImplemented", "NotSupportedError"), UnsupportedError, "this object store cannot put only what is absent (If-None-Match); use one that can"),
    (("builder error",), StoreUnwritableError, "the endpoint is no address; correct CANDLELAKE_OBJECT_STORE_ENDPOINT or AWS_ENDPOINT_URL"),
    (("error sending request", "timed out", "timeout", "connection", "error decoding", "response body", "status code: 5", "SlowDown"), NetworkError,
     "the object store does not answer or is down; nothing that was stored is lost, try again"),
)


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """An object as the store lists it: its path below the lake's root, bytes, and when it was put."""

    path: str
    size_bytes: int
    put_at_us: int


class Objects:
    """One bucket's prefix that holds a lake. Safe to use from several threads."""

    def __init__(self, store: Any, url: str) -> None:
        self._store = store
        self.url = url

    def put(self, path: str, content: bytes | memoryview) -> None:
        """Put a new object; when this returns it is durable. The same bytes once more change nothing.

        Raises:
            StoreCorruptError: another object lies at that key already.
            TransientError, PermanentError: as `_error` says; whether the object is there is unknown.
        """
        plain = bytes(content)
        try:
            with self._translated(path):
                self._store.put(path, plain, mode="create", use_multipart=False)
        except FileExistsError:  # our own first try, whose answer was lost, or somebody else's object
            if self.digest(path) != hashlib.sha256(plain).hexdigest():
                raise StoreCorruptError(f"{self.url}/{path} holds other bytes than were to be put; run `candlelake verify`") from None

    def get(self, path: str) -> bytes:
        """Return an object's bytes; FileNotFoundError when there is none."""
        with self._translated(path):
            return bytes(self._store.get(path).bytes())

    def digest(self, path: str) -> str:
        """Return the SHA-256 of an object's bytes, read as a stream; FileNotFoundError when there is none."""
        whole = hashlib.sha256()
        with self._translated(path):
            for part in self._store.get(path).stream():
                whole.update(part)
        return whole.hexdigest()

    def list(self, *datasets: str) -> Iterator[ObjectRow]:
        """Yield the objects of these datasets."""
        with self._translated(""):
            for dataset in datasets:
                for part in self._store.list(dataset):
                    for item in part:
                        yield ObjectRow(str(item["path"]), int(item["size"]), to_us(item["last_modified"]))

    def mark_removed(self, path: str) -> None:
        """Note that the candles of `path` were removed on purpose."""
        self.put(f"{layout.OLD}/{path}", b"")

    def removed(self) -> set[str]:
        """Return the paths that were marked as removed and still lie here."""
        return {row.path.removeprefix(f"{layout.OLD}/") for row in self.list(layout.OLD)}

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; those that are gone already are no error."""
        for path in paths:
            try:
                with self._translated(path):
                    self._store.delete(path)
            except FileNotFoundError:
                continue

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        from obstore.exceptions import AlreadyExistsError, BaseError  # noqa: PLC0415  an extra

        place = f"{self.url}/{path}".rstrip("/")
        try:
            yield
        except AlreadyExistsError as error:
            raise FileExistsError(path) from error
        except FileNotFoundError as error:  # obstore's own kind for a missing object, and for a missing bucket
            if "NoSuchBucket" in str(error):
                raise self._error(place, error) from None
            raise
        except (BaseError, OSError) as error:
            raise self._error(place, error) from None

    def _error(self, place: str, error: Exception) -> Exception:
        """Return our error for what the object store said; its text may hold signed addresses and is not repeated."""
        text, kind = str(error), type(error).__name__
        for words, made, what in _SAID:
            if any(word in text or word == kind for word in words):
                return made(f"{place}: {what}")
        return StoreUnwritableError(f"{place}: the object store refuses this ({kind}); check bucket, region and endpoint")


def open_objects(url: str, chosen: Settings) -> Objects:
    """Return the object store at s3://bucket/prefix; nothing is asked of it yet.

    Raises:
        InputError: not such an address. UnsupportedError: the extra `s3` is not installed.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    prefix = prefix.strip("/")
    if not url.startswith(SCHEME) or not bucket or any(mark in url for mark in "?#@"):
        raise InputError("CANDLELAKE_LAKE", url if "@" not in url else "an address with credentials in it", "a folder or s3://bucket/prefix",
                         "name a bucket and, if you like, a prefix; credentials have settings of their own")
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415  an extra: only who uses it needs it
        from obstore.store import S3Store  # noqa: PLC0415
    except ImportError:
        raise UnsupportedError("a lake on S3 needs the extra `s3`: pip install 'candlelake[s3]'") from None
    endpoint = chosen.object_store_endpoint or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
    options: dict[str, Any] = {"endpoint": chosen.object_store_endpoint, "region": chosen.object_store_region}
    for name, secret in (("access_key_id", chosen.object_store_access_key), ("secret_access_key", chosen.object_store_secret_key)):
        options[name] = None if secret is None else secret.get_secret_value()
    given = {name: value for name, value in options.items() if value is not None}
    client: Any = {"allow_http": endpoint.startswith("http://"), **_TIMEOUTS}
    try:
        store = S3Store(bucket, prefix=prefix or None, client_options=client,
                        retry_config=_RETRIES, **given)
    except BaseError as error:
        raise InputError("CANDLELAKE_LAKE", url, "s3://bucket/prefix", f"the object store cannot be opened ({type(error).__name__})") from None
    return Objects(store, f"{SCHEME}{bucket}/{prefix}".rstrip("/"))
