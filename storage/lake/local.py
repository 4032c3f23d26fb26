"""Where a file of the manifest lies on this machine; from an object store it is fetched, checked and kept.

Files never change, so a local copy is never stale. Copies of what other machines wrote lie in `.cache/`, apart from the
tree that this machine's writers exchange; they go when their file is superseded and the grace is over.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.errors import StoreCorruptError
from storage.lake import layout
from storage.lake.copy_limit import used
from storage.lake.place import Place, make_durable_folder, retire, sync_folder, translated
from storage.statements import fetch

_FETCHES = 8  # objects that are fetched at once


def find(root: Path, path: str) -> Path | None:
    """Return where a file lies in this folder: in the tree, in staging on its way in or out, in .old/ or in .cache/.

    It moves three times in its life, always in that order; so a fourth round that meets it nowhere proves that it is gone.
    """
    place, old = root / path, layout.old_path(root, path)
    for _ in range(4):
        if place.exists():
            return place
        for folder in (root / layout.STAGING).iterdir():
            if (folder / place.name).exists():
                return folder / place.name
        if old.exists():
            return old
    cached = layout.cached_path(root, path)
    return cached if cached.exists() else None


def present(place: Place, path: str) -> Path:
    """Return where a file lies now, fetched when only the object store has it; its place in the tree when it is nowhere.

    Raises:
        StoreCorruptError: the object store lacks it, or holds other bytes than the manifest says.
        TransientError, PermanentError: the object store does not answer, or refuses.
    """
    found = find(place.root, path)
    if found is not None:
        if place.copies is not None and found == layout.cached_path(place.root, path):
            used(found)
        return found
    return place.root / path if place.objects is None else _fetched(place, path)


def present_all(place: Place, paths: Sequence[str]) -> list[Path]:
    """Do `present` for several files, fetching several at once."""
    if place.objects is None or len(paths) == 1:
        return [present(place, path) for path in paths]
    lacking = [path for path in paths if find(place.root, path) is None]
    if len(lacking) > 1:
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="candlelake-fetch") as pool:
            list(pool.map(lambda path: present(place, path), lacking))
    return [present(place, path) for path in paths]


def stored_bytes(place: Place, path: str) -> bytes:
    """Return the bytes of a file from where it is kept for good: the object store, or else the folder.

    Raises:
        FileNotFoundError: it is not there. OSError: it cannot be read.
    """
    if place.objects is not None:
        return place.objects.get(path)
    return (find(place.root, path) or place.root / path).read_bytes()


def keep(place: Place, path: str, content: memoryview) -> None:
    """Put a staged file's bytes into the object store, if there is one: before the manifest names it."""
    if place.objects is not None:
        place.objects.put(path, content)


def remove(place: Place, path: str) -> None:
    """Move a file whose rows were removed on purpose to .old/, and tell the object store's readers of files alone."""
    retire(place.root, path)
    if place.objects is not None:
        place.objects.mark_removed(path)


def stored_files(place: Place, dataset: str) -> Iterator[str]:
    """Yield every file of a dataset, as a path below the lake's root; of an object store all but those removed on purpose."""
    if place.objects is not None:
        gone = place.objects.removed()
        yield from (row.path for row in place.objects.list(dataset) if row.path not in gone)
        return
    for folder, _, names in os.walk(place.root / dataset):
        for name in names:
            yield (Path(folder) / name).relative_to(place.root).as_posix()


def _fetched(place: Place, path: str) -> Path:
    assert place.objects is not None  # noqa: S101  for the type checker: its only caller has looked
    with place.metadata.read() as tx:
        known = fetch(tx, "SELECT digest FROM lake_files WHERE path = ? UNION ALL SELECT digest FROM tick_files WHERE path = ?", (path, path))
    try:
        content = place.objects.get(path)
    except FileNotFoundError:
        raise StoreCorruptError(f"{place.objects.url}/{path} is missing; run `candlelake verify`") from None
    if known and hashlib.sha256(content).hexdigest() != known[0][0]:
        raise StoreCorruptError(f"{place.objects.url}/{path}: its bytes are not those that were written; run `candlelake verify`")
    target = layout.cached_path(place.root, path)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")  # readers of one file at once: the same bytes, whoever is last
    with translated(target):
        make_durable_folder(place.root, target.parent)
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    if place.copies is not None:
        place.copies.note(place.root, len(content))
    return target
