"""`./run up` and `./run down` as a person types them: what they write, print and leave behind.

The models are addresses where nobody listens: the stack starts without them, and no task is submitted.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cope_local.children import free_port

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(300)]

NOBODY = "http://127.0.0.1:9/v1"
MODELS = {
    "COPE_SMALL_BASE_URL": NOBODY,
    "COPE_SMALL_MODEL": "small",
    "COPE_LARGE_BASE_URL": NOBODY,
    "COPE_LARGE_MODEL": "large",
    "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
}


def environment(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("COPE_") and name != "DATABASE_URL"}
    return {**own, "COPE_EMBEDDED_ONLY": "1", **more}


def run(*arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cope_local", *map(str, arguments)],
        env=environment(**more), capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


def description(data_dir: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((data_dir / "stack.json").read_text())
    return told


def answers(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def folder(scratch: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A place for data directories; whatever runs there at the end is stopped."""
    place = scratch / request.node.name
    place.mkdir()
    yield place
    for data_dir in place.iterdir():
        run("down", "--data-dir", data_dir)


def test_two_stacks_run_side_by_side_say_where_and_are_gone_after_down(folder: Path) -> None:
    one, two = folder / "one", folder / "two"
    with ThreadPoolExecutor() as both:
        started = list(
            both.map(lambda d: run("up", "--data-dir", d, "--port", free_port(), "--detach", **MODELS), (one, two))
        )
    for ended, data_dir in zip(started, (one, two), strict=True):
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("\n") == 1
        assert str(data_dir / "stack.json") in ended.stdout
    first, second = description(one), description(two)
    wanted = {"base_url", "api_key", "admin_key", "webhook_secret", "flower_url", "postgres_url"}
    assert wanted <= first.keys()
    assert first["base_url"].endswith("/v1")
    assert first["base_url"] != second["base_url"]
    assert first["api_key"] != second["api_key"]
    assert (one / "stack.json").stat().st_mode & 0o077 == 0

    again = run("up", "--data-dir", one, **MODELS)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "already" in again.stderr

    down = run("down", "--data-dir", one)
    assert down.returncode == 0
    assert not any(alive(pid) for pid in first["pids"].values())
    assert not (one / "stack.json").exists()
    assert answers(second["base_url"]), "down stops its own stack and nothing else"


def test_of_two_that_start_at_once_on_one_directory_one_does_and_a_stale_description_fools_neither(
    folder: Path,
) -> None:
    data_dir, port = folder / "contested", free_port()
    data_dir.mkdir()
    (data_dir / "stack.json").write_text('{"pid": 1, "base_url": "left by a kill -9"}')
    with ThreadPoolExecutor() as both:
        ended = list(
            both.map(lambda _: run("up", "--data-dir", data_dir, "--port", port, "--detach", **MODELS), range(2))
        )
    assert sorted(one.returncode for one in ended) == [0, 2], [one.stderr for one in ended]
    assert answers(description(data_dir)["base_url"])


def test_a_dead_child_comes_back_on_its_port_and_data_outlives_a_restart(folder: Path) -> None:
    data_dir, port = folder / "kept", free_port()
    assert run("up", "--data-dir", data_dir, "--port", port, "--detach", **MODELS).returncode == 0
    before = description(data_dir)
    assert add_project(before) == 200
    os.killpg(before["pids"]["api"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not (description(data_dir)["pids"]["api"] != before["pids"]["api"] and answers(before["base_url"])):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert run("down", "--data-dir", data_dir).returncode == 0

    assert run("up", "--data-dir", data_dir, "--detach", **MODELS).returncode == 0
    after = description(data_dir)
    assert (after["base_url"], after["api_key"]) == (before["base_url"], before["api_key"])
    assert "kept across a restart" in projects(after)


def test_control_c_stops_everything_it_started(folder: Path) -> None:
    data_dir = folder / "mine"
    process = subprocess.Popen(
        [sys.executable, "-m", "cope_local", "up", "--data-dir", str(data_dir), "--port", str(free_port())],
        env=environment(**MODELS), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "COPE is ready at" in process.stdout.readline()
    pids = description(data_dir)["pids"].values()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()
    assert not any(alive(pid) for pid in pids)


def test_what_is_in_the_way_is_one_clear_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = run("up", "--data-dir", folder / "a", "--port", port, **MODELS)
    (folder / "file").mkdir()
    (folder / "file" / "stack").write_text("")
    unwritable = run("up", "--data-dir", folder / "file" / "stack", **MODELS)
    half = {name: value for name, value in MODELS.items() if "LARGE" not in name}
    unset = run("up", "--data-dir", folder / "b", "--port", free_port(), **half)
    nothing = run("down", "--data-dir", folder / "c")

    assert (refused.returncode, refused.stderr) == (
        2,
        f"run: Port {port} (api) is taken: choose another with --port.\n",
    )
    assert (unwritable.returncode, unwritable.stderr.count("\n")) == (2, 1)
    assert "can't be written" in unwritable.stderr
    assert (unset.returncode, unset.stderr.count("\n")) == (2, 1)
    assert "COPE_LARGE_BASE_URL is not set" in unset.stderr
    assert nothing.returncode == 0
    assert "No stack runs" in nothing.stdout


def add_project(stack: dict[str, Any]) -> int:
    body = json.dumps({"name": "kept across a restart"}).encode()
    return call(stack, "POST", body)[0]


def projects(stack: dict[str, Any]) -> str:
    return call(stack, "GET", None)[1]


def call(stack: dict[str, Any], method: str, body: bytes | None) -> tuple[int, str]:
    request = urllib.request.Request(
        stack["base_url"] + "/organization/projects", data=body, method=method,
        headers={"Authorization": f"Bearer {stack['admin_key']}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status, answer.read().decode()
