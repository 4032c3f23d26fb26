"""`python -m console`: serves the console of CANDLELAKE_HOME until it is stopped."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from console.app import make_app
from console.prefect_api import PrefectDesk
from console.protocol import PromptProtocol
from core.errors import CandlelakeError
from core.secrets import RedactingFilter, quiet_library_logs
from core.settings import settings
from feed import open_feed


def main() -> int:
    """Serve; return the exit code."""
    handler = logging.StreamHandler()
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(name)s %(message)s")
    quiet_library_logs()
    try:
        current = settings()
        with open_feed(current) as feed:
            url = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{current.prefect_port}/api")
            desk = PrefectDesk(url, os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_UI_URL"))
            uvicorn.run(make_app(feed, desk), host=current.console_bind, port=current.console_port, log_config=None, access_log=False,
                        server_header=False, proxy_headers=bool(current.console_proxies), forwarded_allow_ips=current.console_proxies or None,
                        timeout_keep_alive=15, limit_concurrency=500, http=PromptProtocol)
    except CandlelakeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:  # raised again by uvicorn when it has ended what was open
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
