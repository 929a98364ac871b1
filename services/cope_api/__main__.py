"""``python -m cope_api``: serve the API with the settings of the environment."""

import contextlib
import logging
import sys

import uvicorn

from cope.bootstrap import ApiParts, open_api
from cope.catalog import load_catalog, load_prices
from cope.core.errors import Misconfigured
from cope.settings import Settings
from cope_api.app import create_app


def main() -> None:
    """Check the settings and serve until a signal ends it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings()
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
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
        server_header=False,
    )


if __name__ == "__main__":
    main()
