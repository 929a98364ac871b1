"""Results while a batch runs, waiting for its end, and what a batch says it waits for, over a real loopback server."""

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import OpenAI

from cope.adapters.memory import MemoryStore
from cope.core.ids import BatchId
from cope.ports.store import ClaimedTask
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from tests.api import test_api
from tests.api.test_api import KEY, Served, upload
from tests.contracts.world import done, fails

served = test_api.served
client = test_api.client
BODY = '{"id":"chatcmpl-1","object":"chat.completion","choices":[]}'


def act(work: Awaitable[Any]) -> Any:
    async def run() -> Any:
        return await work

    return asyncio.run(run())


def store_of(served: Served) -> MemoryStore:
    assert isinstance(served.parts.store, MemoryStore)
    return served.parts.store


def lines_text(count: int) -> str:
    body = {"model": "cope", "messages": [{"role": "user", "content": "2 + 3?"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return "".join(json.dumps({"custom_id": f"line-{number}", **line}) + "\n" for number in range(1, count + 1))


class Running:
    """A batch in progress whose tasks a test ends."""

    def __init__(self, served: Served, client: OpenAI, lines: int, **cope: object) -> None:
        self._served = served
        batch = client.batches.create(
            input_file_id=upload(client, lines_text(lines)),
            endpoint="/v1/chat/completions",
            completion_window="none",  # type: ignore[arg-type]
            extra_body={"cope": cope} if cope else None,
        )
        self.id = batch.id
        assert act(ingest_next(served.parts, lease_s=60))  # type: ignore[arg-type]
        claimed: list[ClaimedTask] = act(store_of(served).claim("small", worker="w", limit=lines, lease_s=3600))
        self.tasks = {f"line-{place}": task for place, task in enumerate(claimed, 1)}
        assert {task.batch_id for task in claimed} == {self.id}

    def end(self, *numbers: int, failed: Sequence[int] = ()) -> None:
        commits = [done(self.tasks[f"line-{number}"], body=BODY) for number in numbers]
        act(
            store_of(self._served).commit(
                [*commits, *(fails(self.tasks[f"line-{n}"], code="too_long") for n in failed)]
            )
        )

    def close(self) -> None:
        # Those that other tests left at their end come first.
        while act(finalise_next(self._served.parts, lease_s=60)):  # type: ignore[arg-type]
            pass


def get(served: Served, path: str, key: str = KEY) -> tuple[int, list[dict[str, Any]], Mapping[str, str]]:
    address = urlsplit(served.url)
    conn = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    try:
        conn.request("GET", f"/v1{path}", headers={"authorization": f"Bearer {key}"})
        answer = conn.getresponse()
        rows = [json.loads(line) for line in answer.read().splitlines()]
        return answer.status, rows, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        conn.close()


def test_results_are_streamed_while_the_batch_runs_and_are_the_files_bytes_in_the_end(served: Served, client: OpenAI):
    batch = Running(served, client, 4)
    batch.end(3, failed=[1])

    status, rows, headers = get(served, f"/batches/{batch.id}/results")
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert (headers["x-incomplete"], headers["x-last-line"]) == ("true", "2")
    assert [row["custom_id"] for row in rows] == ["line-3", "line-1"]
    assert rows[0]["response"]["body"] == json.loads(BODY)
    assert (rows[1]["response"]["status_code"], rows[1]["error"]) == (400, None)

    assert get(served, f"/batches/{batch.id}/results?after=2")[1] == []
    batch.end(4, 2)
    more, headers = get(served, f"/batches/{batch.id}/results?after=2")[1:]
    assert [row["custom_id"] for row in more] == ["line-4", "line-2"]
    assert (headers["x-incomplete"], headers["x-last-line"]) == ("false", "4")

    batch.close()
    ended = client.batches.retrieve(batch.id)
    assert ended.output_file_id
    assert ended.error_file_id
    output = [json.loads(line) for line in client.files.content(ended.output_file_id).text.splitlines()]
    error = [json.loads(line) for line in client.files.content(ended.error_file_id).text.splitlines()]
    assert output + error == [rows[0], *more, rows[1]]
    assert get(served, f"/batches/{batch.id}/results?limit=1&after=3")[1] == [more[1]]


def test_a_limit_says_where_to_go_on_and_that_there_is_more(served: Served, client: OpenAI):
    batch = Running(served, client, 3)
    batch.end(1, 2, 3)
    batch.close()
    rows, headers = get(served, f"/batches/{batch.id}/results?limit=2")[1:]
    assert (len(rows), headers["x-incomplete"], headers["x-last-line"]) == (2, "true", "2")
    rows, headers = get(served, f"/batches/{batch.id}/results?limit=2&after=2")[1:]
    assert (len(rows), headers["x-incomplete"], headers["x-last-line"]) == (1, "false", "3")


def test_a_batch_that_asked_for_the_input_s_order_gets_it_unless_another_is_said(served: Served, client: OpenAI):
    batch = Running(served, client, 3, order="input")
    batch.end(2)
    assert get(served, f"/batches/{batch.id}/results")[1] == []
    assert [row["custom_id"] for row in get(served, f"/batches/{batch.id}/results?order=completion")[1]] == ["line-2"]
    batch.end(1)
    rows, headers = get(served, f"/batches/{batch.id}/results")[1:]
    assert [row["custom_id"] for row in rows] == ["line-1", "line-2"]
    assert (headers["x-incomplete"], headers["x-last-line"]) == ("true", "2")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=99999999999999", "after"),
        ("after=7", "after"),
        ("order=size", "order"),
        ("limit=0", "limit"),
        ("limit=2000000", "limit"),
    ],
)
def test_what_can_t_be_asked_of_results_is_refused_by_name(served: Served, client: OpenAI, query: str, param: str):
    batch = Running(served, client, 1)
    status, (error,), _ = get(served, f"/batches/{batch.id}/results?{query}")
    assert (status, error["error"]["param"]) == (400, param)


def test_an_answer_that_is_not_kept_is_not_told_as_an_empty_one(served: Served, client: OpenAI):
    batch = Running(served, client, 1)
    batch.end(1)
    row = store_of(served)._db.batch_tasks[BatchId(batch.id)][0]
    row.body = None
    (line,) = get(served, f"/batches/{batch.id}/results")[1]
    assert (line["response"], line["error"]["code"]) == (None, "result_not_kept")


def test_waiting_is_over_as_soon_as_the_batch_is_for_all_that_wait(served: Served, client: OpenAI):
    batch = Running(served, client, 1)
    answers: list[dict[str, Any]] = []

    def wait() -> None:
        answers.append(get(served, f"/batches/{batch.id}/wait?timeout=60")[1][0])

    threads = [threading.Thread(target=wait) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    batch.end(1)
    batch.close()
    for thread in threads:
        thread.join()
    assert [answer["status"] for answer in answers] == ["completed"] * 12
    assert answers[0]["cope"]["outcome"] == "all_succeeded"


def test_waiting_ends_with_its_time_and_says_how_the_batch_stands(served: Served, client: OpenAI):
    batch = Running(served, client, 1)
    assert get(served, f"/batches/{batch.id}/wait?timeout=1")[1][0]["status"] == "in_progress"
    assert get(served, f"/batches/{batch.id}/wait?timeout=0")[1][0]["status"] == "in_progress"
    for wrong in ("301", "-1", "1.5", "soon"):
        status, (error,), _ = get(served, f"/batches/{batch.id}/wait?timeout={wrong}")
        assert (status, error["error"]["param"]) == (400, "timeout")
    assert get(served, "/batches/batch_none/wait")[0] == 404


def test_a_batch_says_why_it_waits_when_it_may_be_done_and_what_went_wrong(served: Served, client: OpenAI):
    batch = Running(served, client, 4)
    assert get(served, f"/batches/{batch.id}")[1][0]["cope"]["eta"] is None
    batch.end(1, failed=[2, 3])
    served.parts.clock.advance(30)  # type: ignore[attr-defined]

    cope = get(served, f"/batches/{batch.id}")[1][0]["cope"]
    assert cope["eta"]["limited_by"] == "small_model"
    assert 30 <= cope["eta"]["p50"] <= cope["eta"]["p90"]
    assert cope["errors"] == [{"code": "too_long", "message": "It does not fit.", "count": 2}]

    client.post(f"/batches/{batch.id}/hold", cast_to=object)
    assert get(served, f"/batches/{batch.id}")[1][0]["cope"]["eta"] == {
        "p50": None,
        "p90": None,
        "limited_by": "paused",
    }
    client.post(f"/batches/{batch.id}/resume", cast_to=object)
    batch.end(failed=[4])
    batch.close()
    cope = get(served, f"/batches/{batch.id}")[1][0]["cope"]
    assert (cope["eta"], cope["outcome"], cope["errors"][0]["count"]) == (None, "partly_failed", 3)


def test_a_batch_of_which_everything_failed_says_so_and_has_an_empty_output_file(served: Served, client: OpenAI):
    batch = Running(served, client, 2)
    batch.end(failed=[1, 2])
    batch.close()
    ended = client.batches.retrieve(batch.id)
    assert (ended.status, ended.to_dict()["cope"]["outcome"]) == ("completed", "all_failed")  # type: ignore[index]
    assert ended.output_file_id
    assert client.files.content(ended.output_file_id).content == b""


def test_a_file_that_was_refused_leaves_an_empty_output_file_and_its_errors_by_code(served: Served, client: OpenAI):
    batch = client.batches.create(
        input_file_id=upload(client, "not json\n{}\n[]\n"), endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert act(ingest_next(served.parts, lease_s=60))  # type: ignore[arg-type]
    failed = client.batches.retrieve(batch.id)
    assert failed.status == "failed"
    assert failed.output_file_id
    assert client.files.content(failed.output_file_id).content == b""
    cope: Any = failed.to_dict()["cope"]
    assert [(error["code"], error["count"]) for error in cope["errors"]] == [
        ("invalid_json_line", 2),
        ("missing_required_parameter", 1),
    ]
    rows, headers = get(served, f"/batches/{batch.id}/results")[1:]
    assert (rows, headers["x-incomplete"]) == ([], "false")


@pytest.mark.parametrize("window", ["none", "1h", "7d"])
def test_windows_go_from_an_hour_to_a_week_or_have_no_end(served: Served, client: OpenAI, window: str):
    batch = client.batches.create(
        input_file_id=upload(client, lines_text(1)),
        endpoint="/v1/chat/completions",
        completion_window=window,  # type: ignore[arg-type]
    )
    assert act(ingest_next(served.parts, lease_s=60))  # type: ignore[arg-type]
    seen = client.batches.retrieve(batch.id)
    assert (seen.expires_at is None) == (window == "none")
    client.batches.cancel(batch.id)
    assert act(finalise_next(served.parts, lease_s=60))  # type: ignore[arg-type]


def cope(served: Served, folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cope_cli.main", "--base-url", served.url, "--api-key", KEY, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder)


@pytest.fixture
def running(served: Served, client: OpenAI) -> Running:
    return Running(served, client, 3)


def test_the_command_line_follows_a_batch_to_its_last_line_and_waits_for_its_end(
    served: Served, running: Running, tmp_path: Path
):
    running.end(2)
    now = cope(served, tmp_path, "results", running.id, "--now")
    follower = cope(served, tmp_path, "results", running.id, "--follow", "--order", "input")
    waiter = cope(served, tmp_path, "wait", running.id)
    assert [json.loads(line)["custom_id"] for line in now.communicate()[0].splitlines()] == ["line-2"]
    running.end(3, failed=[1])
    running.close()
    out, error = follower.communicate(timeout=30)
    assert (follower.returncode, error) == (0, b"")
    assert [json.loads(line)["custom_id"] for line in out.splitlines()] == ["line-1", "line-2", "line-3"]
    assert b"completed 3/3" in waiter.communicate(timeout=30)[0]
    assert waiter.returncode == 1, "one line failed"
    late = cope(served, tmp_path, "results", running.id, "--follow", "--after", "9")
    assert b"only 3 lines" in late.communicate()[1]
    assert late.returncode == 2
