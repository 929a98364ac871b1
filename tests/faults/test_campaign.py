"""The short form of the fault campaign, and its parts that need no stack.

``python -m ops.bench.faults --seeds 100`` is the long one (ops/guide/faults.md).
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ops.bench.faults.place import Place
from ops.bench.faults.plan import ALL, Planned, batch_lines, broker_of, plan
from ops.bench.faults.proxy import Proxies
from ops.bench.faults.run import Run
from ops.bench.faults.table import table

TASKS = 120


@pytest.fixture(scope="module")
def place(scratch: Path) -> Iterator[Place]:
    running = Place(scratch / "faults", "redis", large_s="0.1:0.4", small_s="0.02:0.1")
    yield running
    running.close()


@pytest.mark.integration
@pytest.mark.e2e
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("seed", "names"),
    [
        (1, ("point inside_ingest", "kill child large", "postgres kill", "redis flush", "point after_answer")),
        (2, ("zombie sweeper", "reset postgres", "provider 503", "month end", "disk full", "wakeups x50")),
    ],
)
def test_nothing_is_lost_doubled_or_overspent_whatever_fails(
    place: Place, tmp_path: Path, seed: int, names: tuple[str, ...]
) -> None:
    faults = plan(seed, "redis", only=names)
    log = tmp_path / "events.jsonl"
    # Tests do not judge by a busy machine's clock; the campaign itself does.
    result = Run(place, seed, TASKS, faults, name=f"seed {seed}", log=log, allowance_s=30.0).go()

    assert result["violations"] == []
    assert (result["lost"], result["duplicate_commits"], result["ledger_difference"]) == (0, 0, 0)
    assert result["done"] == TASKS
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {event["name"] for event in events if event["what"] in {"fault", "too late"}} == set(names)


def test_a_seed_is_a_plan_and_every_plan_has_five_faults_or_more() -> None:
    assert plan(7, "redis") == plan(7, "redis") != plan(8, "redis")
    for seed in range(1, 101):
        planned = plan(seed, broker_of(seed, "redis"))
        assert len({one.name for one in planned}) >= 5
        assert list(planned) == sorted(planned, key=lambda one: one.at)


def test_a_hundred_seeds_meet_every_fault_there_is() -> None:
    met = {one.name for seed in range(1, 101) for one in plan(seed, broker_of(seed, "redis"))}
    assert met == set(ALL)


def test_without_a_broker_no_fault_is_of_the_broker() -> None:
    for seed in range(1, 60):
        assert not [one for one in plan(seed, "none") if "redis" in one.name or "wakeups" in one.name]


def test_named_faults_are_all_that_is_planned() -> None:
    assert [one.name for one in plan(3, "redis", only=["poison", "kill api"])] == ["poison", "kill api"]
    assert plan(3, "redis", only=["poison"]) == (Planned(0.0, "poison"),)


def test_a_poisoned_batch_has_two_lines_that_kill_and_the_others_are_as_without() -> None:
    sound, poisoned = batch_lines(5, 50, poison=False), batch_lines(5, 50, poison=True)
    assert [line["custom_id"] for line in sound] == [line["custom_id"] for line in poisoned]
    assert sum("COPE_POISON" in json.dumps(line) for line in poisoned) == 2


@pytest.fixture
def echo() -> Iterator[tuple[Proxies, int]]:
    """A server that says everything back, behind a link; and the link's port."""
    proxies = Proxies()

    server = socket.create_server(("127.0.0.1", 0))

    def say_back(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(1000):
                client.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=say_back, args=[server.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield proxies, proxies.add("echo", server.getsockname()[1])
    proxies.close()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


async def test_a_link_is_late_or_slow_and_then_gives_what_waited(echo: tuple[Proxies, int]) -> None:
    proxies, port = echo
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    proxies.late("echo", 0.2)
    began = time.monotonic()
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    assert time.monotonic() - began >= 0.4, "each way is late"

    proxies.heal("echo")
    proxies.trickle("echo", on=True)
    writer.write(b"world")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(3), 0.3)
    proxies.heal("echo")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"world"
    writer.close()
    await writer.wait_closed()


async def test_a_frozen_connection_stays_silent_and_a_reset_one_ends(echo: tuple[Proxies, int]) -> None:
    proxies, port = echo
    frozen_in, frozen_out = await asyncio.open_connection("127.0.0.1", port)
    frozen_out.write(b"one")
    assert await frozen_in.readexactly(3) == b"one"
    proxies.freeze("echo")
    frozen_out.write(b"two")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(frozen_in.readexactly(3), 0.3)

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"new")
    assert await reader.readexactly(3) == b"new"
    proxies.reset("echo")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    for one in (writer, frozen_out):
        one.close()


def test_the_table_adds_up_the_runs_and_names_what_was_violated(tmp_path: Path) -> None:
    clean = {"seed": 1, "run": "clean before 1", "broker": "redis", "tasks": 500, "faults": [], "violations": []}
    run = {**clean, "run": "seed 1", "faults": ["kill api", "poison"], "lost": 0, "duplicate_commits": 0}
    run |= {"ledger_difference": 0, "paid_calls": 200, "extra_calls": 1, "recovery_s": [3.25, 3.5], "outage_s": 2.0}
    bad = {**run, "seed": 2, "run": "seed 2", "violations": ["a line is in the files more than once"]}
    lines = [{**clean, "seconds": 10.0, "seconds_95": 9.0}] + [
        {**r, "seconds": 20.0, "seconds_95": 12.0} for r in (run, bad)
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))

    said = table(results)

    assert (
        "| redis | 2 | 1000 | 4 | 0 | 0 | 0 nano-dollars | 2 of 400 (0.50 %) | 3.38 s, 3.50 s | 0.90 | 0.50 | 1 |"
        in said
    )
    assert "kill api 2, poison 2" in said
    assert "- seed 2 (redis): a line is in the files more than once" in said
