"""Commands around the keys that encrypt credentials."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import note, print_json, progress_bar
from cli.witness import witness

app = typer.Typer(no_args_is_help=True, help="Keys that encrypt the credentials of connections.")


@app.callback()
def _group() -> None:
    """Keys that encrypt the credentials of connections."""


@app.command()
def rotate(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")] = False,
) -> int:
    """Encrypt all credentials anew with the first key of CANDLELAKE_KEYS or of the key file; resumes after a kill."""
    from core.clock import SystemClock
    from core.settings import settings
    from storage import open_lake
    from storage.vault import KeyRing, Vault

    lake = open_lake()
    try:
        vault = Vault(lake.metadata, KeyRing.load(settings()), SystemClock())
        with progress_bar("rotate", quiet=as_json) as progress:
            count = vault.rotate(progress)
        with lake.metadata.write() as tx:
            witness("keys.rotate", "credentials", lake.clock.now_us(), fields=count)(tx)
    finally:
        lake.close()
    if as_json:
        print_json({"rotated": count})
    else:
        note(f"{count} credential fields encrypted with the first key; older keys can be removed when no backup needs them")
    return 0
