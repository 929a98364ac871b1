"""How soon a cancel reaches the model server: ``python ops/bench/cancel.py [--rounds 10]``.

The whole local stack with its usual settings (lease 30 s) beside a model server that answers nothing and notes when
each call is dropped. Each round fills the small model's 64 places with a batch of 40 lines and cancels it; then a live
call (plain, streamed) whose caller closes the connection. Times are from the request, or from the close, to the moment
at which the *last* call was dropped at the model server, and to the batch's end with its files.
"""

import argparse
import asyncio
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from aiohttp import web
from openai import OpenAI

from cope_local.children import free_port
from cope_local.stack import Stack

PLACES, CHAINS = 64, 8


class Holding:
    """A model server that answers no call. `open` are those under way; `dropped_at` is when the last one was lost."""

    def __init__(self) -> None:
        self.port = free_port()
        self.open = 0
        self.dropped_at = 0.0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._hold)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        self._ready.set()
        await asyncio.Event().wait()

    async def _hold(self, request: web.Request) -> web.Response:
        self.open += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.open -= 1
            self.dropped_at = time.monotonic()
        return web.Response()

    def wait(self, count: int, *, at_most_s: float = 60) -> None:
        """Until this many calls are under way."""
        until = time.monotonic() + at_most_s
        while self.open != count:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.open} calls under way, not {count}")
            time.sleep(0.002)


def lines(round_: int) -> list[dict[str, object]]:
    """40 problems: eight chains each, so that more wait than fit."""
    body = {"model": "small-majority", "messages": [{"role": "user", "content": "2 + 3?"}]}
    url = "/v1/chat/completions"
    return [{"custom_id": f"{round_}-{i}", "method": "POST", "url": url, "body": body} for i in range(40)]


def cancelled_batch(client: OpenAI, model: Holding, round_: int) -> tuple[float, float]:
    """Seconds from the cancel to the last dropped call, and to the batch's end."""
    body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines(round_)}
    batch: dict[str, object] = client.post("/batches", body=body, cast_to=dict[str, object])
    model.wait(PLACES)
    began = time.monotonic()
    client.batches.cancel(str(batch["id"]))
    model.wait(0)
    dropped = model.dropped_at - began
    while client.batches.retrieve(str(batch["id"])).status != "cancelled":
        time.sleep(0.02)
    return dropped, time.monotonic() - began


def left_call(url: str, key: str, model: Holding, *, stream: bool) -> float:
    """Seconds from the caller's close to the last dropped call."""
    body = {"model": "small-majority", "stream": stream, "messages": [{"role": "user", "content": f"{time.time()}?"}]}
    host, _, path = url.removeprefix("http://").partition("/")
    caller = http.client.HTTPConnection(host)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    caller.request("POST", f"/{path}/chat/completions", json.dumps(body), headers)
    model.wait(CHAINS)
    caller.close()
    began = time.monotonic()
    model.wait(0)
    return model.dropped_at - began


def tell(what: str, times: list[float]) -> None:
    """Median and range."""
    print(f"{what}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}), {len(times)} times")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    model = Holding()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
    environment.pop("DATABASE_URL", None)
    environment |= {
        "COPE_EMBEDDED_ONLY": "1",
        "COPE_SMALL_BASE_URL": f"http://127.0.0.1:{model.port}/v1",
        "COPE_SMALL_MODEL": "held",
        "COPE_SMALL_API_KEY": "none",
        "COPE_LARGE_BASE_URL": f"http://127.0.0.1:{model.port}/v1",
        "COPE_LARGE_MODEL": "held-large",
        "COPE_LARGE_API_KEY": "none",
        "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
    }
    with tempfile.TemporaryDirectory(prefix="cope-cancel-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder) / "stack", port=free_port(), environment=environment)
        stack.start()
        try:
            with OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key) as client:
                ended = [cancelled_batch(client, model, n) for n in range(rounds)]
            tell("cancel of a batch -> last small call dropped", [dropped for dropped, _ in ended])
            tell("cancel of a batch -> cancelled, files written", [over for _, over in ended])
            for stream in (False, True):
                times = [left_call(stack.base_url, stack.secrets.api_key, model, stream=stream) for _ in range(rounds)]
                kind = "streamed" if stream else "plain"
                tell(f"caller of a {kind} live call gone -> last small call dropped", times)
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
