"""The API over given parts on a real loopback port, for as long as a `with` lasts."""

import contextlib
import threading
import time
from collections.abc import Iterator

import uvicorn

from cope.bootstrap import ApiParts
from cope_api.app import create_app
from cope_local.children import free_port


@contextlib.contextmanager
def serving(parts: ApiParts) -> Iterator[str]:
    """The base URL, ending in /v1."""

    async def opened(_: contextlib.AsyncExitStack) -> ApiParts:
        return parts

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(opened), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()
