"""``python -m ops.bench.faults.small_model --port 0``: a fast stand-in for the small model, a process of its own.

It answers 5 after a latency drawn from the request, and something else for each seed where the problem says SPLIT, so
that such a vote never gets anywhere. The first line printed is ``{"port": …}``.
"""

import argparse
import asyncio
import json
import random

import orjson
from aiohttp import web


class Small:
    """The server's one handler."""

    def __init__(self, low_s: float, high_s: float) -> None:
        self._latency = (low_s, high_s)
        self._random = random.Random(1)
        self._count = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request is a chat completion."""
        raw = await request.read()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return web.Response(status=404)
        self._count += 1
        await asyncio.sleep(self._random.uniform(*self._latency))
        number = body.get("seed", self._count) % 100_000 if b"SPLIT" in raw else 5
        reply = {
            "id": f"small-{self._count}",
            "object": "chat.completion",
            "created": 0,
            "model": body.get("model"),
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": f"It is \\boxed{{{number}}}."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
        }
        return web.Response(body=orjson.dumps(reply), content_type="application/json")


async def _serve(port: int, low_s: float, high_s: float) -> None:
    runner = web.ServerRunner(web.Server(Small(low_s, high_s).handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    (address,) = runner.addresses
    print(json.dumps({"port": address[1]}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-s", default="0.02:0.1", help="seconds, LOW:HIGH")
    given = parser.parse_args()
    low, _, high = given.latency_s.partition(":")
    asyncio.run(_serve(given.port, float(low), float(high or low)))


if __name__ == "__main__":
    main()
