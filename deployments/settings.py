"""prefect.toml as environment variables: processes that start elsewhere than in the project's folder need them too."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

PREFECT_TOML: Final = Path(__file__).parent.parent / "prefect.toml"


def prefect_environment(path: Path = PREFECT_TOML) -> dict[str, str]:
    """Return the settings of prefect.toml as `PREFECT_*` variables."""
    with path.open("rb") as file:
        return dict(_flat("PREFECT", tomllib.load(file)))


def _flat(prefix: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, Mapping):
            yield from _flat(name, value)
        else:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)


HEARTBEAT_SECONDS: Final = int(prefect_environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
