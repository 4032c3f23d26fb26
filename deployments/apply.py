"""`python -m deployments.apply`: bring a Prefect server in line with prefect.yaml. Twice changes nothing the second time."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from core.errors import CandlelakeError, InputError

EXIT_FAILED, EXIT_USAGE = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply prefect.yaml to a server; return the exit code: 0 done, 1 failed, 2 bad usage."""
    options = _options(arguments)
    try:
        lines = run(options.api_url, dry_run=options.dry_run, wait=options.wait)
    except CandlelakeError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE if isinstance(error, InputError) else EXIT_FAILED
    if options.json:
        sys.stdout.write(json.dumps(lines) + "\n")
    else:
        verb = "would " if options.dry_run else ""
        for line in lines:
            fields = f" ({', '.join(line['fields'])})" if line["fields"] else ""
            sys.stdout.write(f"{verb}{line['action']} {line['kind']} {line['name']}{fields}\n")
        sys.stdout.write(f"{len(lines)} changes\n" if lines else "nothing to change\n")
    return 0


def run(api_url: str, *, dry_run: bool = False, wait: float = 0.0) -> list[dict[str, list[str] | str]]:
    """Apply (or only plan) prefect.yaml; return the changes as JSON-ready values.

    Raises:
        CandlelakeError: prefect.yaml is not right, or the server does not answer or refuses.
    """
    from deployments.declaration import read_declaration  # noqa: PLC0415  imports Prefect: --help need not wait for it
    from deployments.plan import apply, plan  # noqa: PLC0415
    from deployments.prefect_api import PrefectApi  # noqa: PLC0415

    declared = read_declaration()
    with PrefectApi(api_url, os.environ.get("PREFECT_API_AUTH_STRING")) as api:
        if wait:
            api.wait_until_healthy(wait)
        changes = list(plan(api, declared)) if dry_run else apply(api, declared)
    return [change.as_dict() for change in changes]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.apply", description=__doc__)
    parser.add_argument(
        "--api-url", default=os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api"),
        help="Prefect's API; default PREFECT_API_URL, else http://127.0.0.1:4200/api")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    parser.add_argument("--json", action="store_true", help="print the changes as one JSON array")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for the server to come up")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
