"""``python -m cope_api``: serve the API with the settings of the environment."""

import contextlib
import sys

import uvicorn

from cope.bootstrap import ApiParts, open_api
from cope.catalog import load_catalog, load_prices
from cope.core.errors import Misconfigured
from cope.logs import set_up_logs
from cope.settings import Settings
from cope_api.app import create_app
from cope_api.guard import MAX_HEADER_BYTES


def main() -> None:
    """Check the settings and serve until a signal ends it."""
    try:
        settings = Settings()
        set_up_logs(settings)
        settings.need("api_database_url")
        settings.need("secret_key")
        load_catalog(settings)
        load_prices(settings)
    except (Misconfigured, ValueError) as wrong:
        sys.stderr.write(f"cope_api: {wrong}\n")
        raise SystemExit(2) from None

    async def parts(resources: contextlib.AsyncExitStack) -> ApiParts:
        return await open_api(settings, resources)

    uvicorn.run(
        create_app(parts),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,  # its records too go through our formatter
        log_level="warning",
        access_log=False,
        h11_max_incomplete_event_size=2 * MAX_HEADER_BYTES,
        timeout_graceful_shutdown=10,
        server_header=False,
    )


if __name__ == "__main__":
    main()
