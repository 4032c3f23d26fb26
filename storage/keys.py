"""The keys that encrypt credentials. They lie outside the data folder, so that a copy of the data opens nothing.

One line is one key, `id:base64 of 32 bytes`; the first encrypts, all of them decrypt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from filelock import FileLock

from core.errors import InputError, KeyMissingError, PermanentError, StoreUnwritableError
from core.settings import Settings

KEY_BYTES: Final = 32
_ID = re.compile(r"[A-Za-z0-9_-]{1,63}")
_FORM: Final = "id:base64 of 32 bytes, separated by commas or on lines of their own"
_OTHERS: Final = 0o077


@dataclass(slots=True)
class KeyRing:
    """Keys by id, the first one encrypts. `path` is the file they come from, None when they come from CANDLELAKE_KEYS."""

    keys: Mapping[str, bytes] = field(repr=False)
    path: Path | None = None

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Return the keys of CANDLELAKE_KEYS, else of the key file; empty when there is no file yet.

        Raises:
            InputError: a key is not of its form.
            PermanentError: others than its owner may read the key file.
        """
        if settings.keys is not None:
            return cls(_parse(settings.keys.get_secret_value().split(","), "CANDLELAKE_KEYS"))
        path = settings.key_file or default_path(settings.home)
        return cls(_read(path), path)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a key file with one new key; whole or not at all, and never over one that is there.

        Raises:
            PermanentError: the file exists.
            StoreUnwritableError: the folder cannot be written.
        """
        keys = {_new_id(): secrets.token_bytes(KEY_BYTES)}
        try:
            _write(path, keys, replace=False)
        except FileExistsError:
            raise PermanentError(f"key file {path} exists and is not overwritten; use it, or name another one") from None
        return cls(keys, path)

    @property
    def first(self) -> str:
        """The id of the key that encrypts.

        Raises:
            KeyMissingError: there is no key at all.
        """
        for key_id in self.keys:
            return key_id
        raise KeyMissingError(f"no credential key: {self._where()}", key_id="")

    def key(self, key_id: str) -> bytes:
        """Return the key of an id, read again from the file when it is not known yet (another process may have rotated).

        Raises:
            KeyMissingError: no such key; names the id and where keys are looked for.
        """
        if key_id not in self.keys:
            self.reload()
        if key_id not in self.keys:
            raise KeyMissingError(
                f"credential key {key_id!r} is missing: {self._where()}; bring it back from your backup of the keys",
                key_id=key_id)
        return self.keys[key_id]

    def reload(self) -> None:
        """Read the key file again; keys from the environment stay as they are."""
        if self.path is not None:
            self.keys = _read(self.path)

    def add(self) -> str:
        """Put a new key first into the key file and return its id.

        Raises:
            InputError: the keys come from CANDLELAKE_KEYS, which only a person can change.
        """
        path = self._file("add a key")
        with _locked(path):
            key_id = _new_id()
            self.keys = {key_id: secrets.token_bytes(KEY_BYTES), **_read(path)}
            _write(path, self.keys, replace=True)
        return key_id

    def remove(self, key_id: str) -> None:
        """Take a key out of the key file; whether it is still needed is `Vault.retire`'s to know."""
        path = self._file("retire a key")
        with _locked(path):
            self.keys = {name: key for name, key in _read(path).items() if name != key_id}
            _write(path, self.keys, replace=True)

    def _file(self, what: str) -> Path:
        if self.path is None:
            raise InputError(what, "keys from CANDLELAKE_KEYS", "keys in a file", "change CANDLELAKE_KEYS yourself")
        return self.path

    def _where(self) -> str:
        if self.path is None:
            return "keys come from CANDLELAKE_KEYS"
        return f"keys are read from {self.path} (CANDLELAKE_KEY_FILE names another file; needed when the home was moved)"


def default_path(home: Path) -> Path:
    """Return where the keys of a home lie when nothing else is set: outside of it, in the person's configuration."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    home_id = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    return Path(base) / "candlelake" / f"{home_id}.keys"


def _new_id() -> str:
    return "k" + secrets.token_hex(5)


def _parse(lines: Iterable[str], where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate((text.strip() for text in lines), 1):
        if not line or line.startswith("#"):
            continue
        key_id, _, encoded = line.partition(":")
        try:
            key = base64.b64decode(encoded, altchars=b"-_", validate=True) if "-" in encoded or "_" in encoded \
                else base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not _ID.fullmatch(key_id) or len(key) != KEY_BYTES or key_id in keys:
            # Never the text itself: it may be a key.
            raise InputError(f"{where}, entry {number}", "a malformed or repeated key", _FORM, "see .env.example")
        keys[key_id] = key
    return keys


def _read(path: Path) -> dict[str, bytes]:
    try:
        with path.open(encoding="ascii") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if mode & _OTHERS:
                raise PermanentError(f"key file {path} can be read by others (mode {mode & 0o777:04o}); run: chmod 600 {path}")
            return _parse(stream.read().splitlines(), f"key file {path}")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise InputError(f"key file {path}", "not plain text", _FORM) from None
    except OSError as error:
        raise StoreUnwritableError(f"cannot read the key file {path}: {error.strerror}; check its owner and mode") from error


def _write(path: Path, keys: Mapping[str, bytes], *, replace: bool) -> None:
    """Write the file whole: a temporary one beside it, synced, then renamed (or linked, which never overwrites)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnwritableError(
            f"cannot make the folder {path.parent}: {error.strerror}; choose CANDLELAKE_KEY_FILE") from error
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                stream.writelines(f"{key_id}:{base64.b64encode(key).decode()}\n" for key_id, key in keys.items())
                stream.flush()
                os.fsync(stream.fileno())
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreUnwritableError(f"cannot write the key file {path}: {error.strerror}; choose CANDLELAKE_KEY_FILE") from error


def _locked(path: Path) -> FileLock:
    return FileLock(f"{path}.lock", timeout=30, mode=0o600)
