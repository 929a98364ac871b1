"""Results while a batch runs, waiting for its end, and what a batch says it waits for, over a real loopback server."""

import asyncio
import http.client
import http.server
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import typer
from openai import OpenAI

from cope.adapters.memory import MemoryStore
from cope.core.ids import BatchId
from cope.ports.store import ClaimedTask
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from cope_cli.address import Address
from cope_cli.follow import follow, wait_for
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
        """Write its files, and those of others that ended before it."""
        while store_of(self._served)._db.batches[BatchId(self.id)].batch.completed_at is None:
            assert act(finalise_next(self._served.parts, lease_s=60))  # type: ignore[arg-type]


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


def test_the_command_line_follows_a_batch_to_its_last_line(served: Served, client: OpenAI, tmp_path: Path):
    running = Running(served, client, 3)
    running.end(2)
    command = [sys.executable, "-m", "cope_cli.main", "--base-url", served.url, "--api-key", KEY]
    follower = subprocess.Popen(
        [*command, "results", running.id, "--follow", "--order", "input"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    address = Address(served.url, KEY, None)
    now = io.BytesIO()
    follow(address, running.id, after=0, order=None, until_over=False, out=now)
    assert [json.loads(line)["custom_id"] for line in now.getvalue().splitlines()] == ["line-2"]
    assert wait_for(client, running.id, 0)["status"] == "in_progress"

    running.end(3, failed=[1])
    running.close()

    assert wait_for(client, running.id, 60)["status"] == "completed"
    out, error = follower.communicate(timeout=60)
    assert (follower.returncode, error) == (0, b"")
    assert [json.loads(line)["custom_id"] for line in out.splitlines()] == ["line-1", "line-2", "line-3"]


def test_an_offset_of_another_batch_is_one_line_on_standard_error(
    served: Served, client: OpenAI, capsys: pytest.CaptureFixture[str]
):
    running = Running(served, client, 1)
    with pytest.raises(typer.Exit) as refused:
        follow(Address(served.url, KEY, None), running.id, after=9, order=None, until_over=True, out=io.BytesIO())
    assert refused.value.exit_code == 2
    assert "only 0 lines of this batch have ended" in capsys.readouterr().err


class Breaking(http.server.BaseHTTPRequestHandler):
    """Results of five lines, of which the first answer breaks off within the third."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        text = b"".join(b'{"n":%d}\n' % number for number in range(5))
        self.send_response(200)
        for name, value in (("x-last-line", "5"), ("x-incomplete", "false"), ("transfer-encoding", "chunked")):
            self.send_header(name, value)
        self.end_headers()
        whole = len(self.asked) > 1
        piece = text if whole else text[:20]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) + (b"0\r\n\r\n" if whole else b""))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def test_an_answer_that_breaks_off_is_asked_for_again_and_no_line_comes_twice():
    with http.server.HTTPServer(("127.0.0.1", 0), Breaking) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        out = io.BytesIO()
        address = Address(f"http://127.0.0.1:{server.server_address[1]}/v1", KEY, None)
        follow(address, "batch_1", after=0, order=None, until_over=True, out=out)
        server.shutdown()
        thread.join()
    assert [json.loads(line)["n"] for line in out.getvalue().splitlines()] == [0, 1, 2, 3, 4]
    assert Breaking.asked == ["/v1/batches/batch_1/results?after=0&limit=20000"] * 2
