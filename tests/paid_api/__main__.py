"""`python -m tests.paid_api --log books.sqlite …`: prints one line of JSON with its port when it takes calls."""

import asyncio
import json
import os
import signal
import sys

from aiohttp import web

from tests.paid_api.desk import Desk
from tests.paid_api.journal import Journal
from tests.paid_api.options import Options, parse
from tests.paid_api.server import Provider


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, told.set)
    journal = Journal(options.log)
    try:
        provider = Provider(Desk(options, journal))
        runner = web.ServerRunner(web.Server(provider.handle, access_log=None, debug=False))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", options.port, shutdown_timeout=0.2, backlog=4096)
        await site.start()
        ((_, port, *_),) = runner.addresses
        print(json.dumps({"port": port, "pid": os.getpid(), "log": str(options.log)}), flush=True)
        await told.wait()
        await runner.cleanup()
        await provider.aclose()
    finally:
        journal.close()


if __name__ == "__main__":
    asyncio.run(serve(parse(sys.argv[1:])))
