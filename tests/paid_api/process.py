"""Start and stop simulators from a test, as many as it wants.

with PaidApi(folder, rpm=600, script={"seed": 1, "rules": [{"fault": "cut", "calls": [3]}]}) as provider:
    client = OpenAI(base_url=provider.base_url, api_key="sk-a", max_retries=0)
    …
    assert provider.books.total_nano() <= cap
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from cope_local.children import free_port, kill, spawn, stop
from tests.paid_api.books import Books

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 60.0


class PaidApi:
    """One simulator process. `folder` is made if need be and keeps books, log and inputs; a second start in it goes on
    with the same books on the same port. Further options are those of the command line, by their names:
    `rpm=60, tpm_rule="correct", key=["sk-a", "sk-b"]`.

    The process dies with the thread that started it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        script: dict[str, Any] | None = None,
        answers: dict[str, Any] | None = None,
        port: int | None = None,
        **options: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port() if port is None else port
        self.books = Books(folder / "books.sqlite")
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments = ["--port", str(self.port), "--log", str(self.books.path)]
        for name, source in (("script", script), ("answers", answers)):
            if source is not None:
                path = folder / f"{name}.json"
                path.write_text(json.dumps(source))
                self._arguments += [f"--{name}", str(path)]
        for name, value in options.items():
            for one in value if isinstance(value, list | tuple) else [value]:
                if one is not None:
                    self._arguments += [f"--{name.replace('_', '-')}", str(one)]

    @property
    def base_url(self) -> str:
        """Its address, as the openai client wants it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def pid(self) -> int:
        """The process's id. Raises `RuntimeError` when it is not running."""
        if self._process is None:
            raise RuntimeError("the simulator is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it takes calls. Raises `RuntimeError` with its output if it ends or does not come up."""
        log = self.folder / "paid_api.log"
        before = log.stat().st_size if log.exists() else 0
        command = [sys.executable, "-m", "tests.paid_api", *self._arguments]
        self._process = spawn(command, log=log, env=dict(os.environ), cwd=_ROOT)
        deadline = time.monotonic() + _START_S
        while b'{"port": ' not in (said := log.read_bytes()[before:]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                kill(self._process)
                self._process = None
                raise RuntimeError(f"the simulator did not start: {said.decode(errors='replace')}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order. Nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            stop(process, signal.SIGTERM, 10)

    def kill9(self) -> None:
        """End it as a power cut would; `start` goes on with its books."""
        process, self._process = self._process, None
        if process is not None:
            kill(process)

    def control(self, **order: Any) -> dict[str, Any]:
        """Give an order (`script`, `answers`, `outage`, `quota_exhausted`, `limits`, `latency_s`) or none; the
        counters since the process started come back. Raises `urllib.error.HTTPError` for an order it refuses."""
        address = f"http://127.0.0.1:{self.port}/_control"
        request = urllib.request.Request(address, data=json.dumps(order).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            snapshot: dict[str, Any] = json.load(answer)
            return snapshot
