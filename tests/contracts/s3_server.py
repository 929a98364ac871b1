"""A server of the S3 protocol in a process of its own: moto, over a real port."""

import itertools
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from cope_local.children import free_port

_START_S = 60.0


@dataclass
class S3Server:
    """Where it listens."""

    url: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the SDK reads."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def new_bucket(self) -> str:
        """An empty one."""
        name = f"bucket-{next(self._numbers)}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")) as answer:
            assert answer.status == 200
        return name


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Started, and ended with its process."""
    port = free_port()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            server = S3Server(f"http://127.0.0.1:{port}")
            _wait(server.url)
            yield server
        finally:
            process.kill()


def _wait(url: str) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError("moto did not start")
