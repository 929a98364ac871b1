"""Retries, open batches, inline requests and pauses through the unmodified client, and the command line for them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from cope.adapters.memory import MemoryStore
from cope.core.ids import FILE, BatchId, FileId, ProjectId
from cope.core.lifecycle import TaskState
from cope.core.records import StoredFile
from cope.ports.store import ClaimedTask
from cope.usecases.ingest import ingest_next
from cope_cli.main import app
from tests.api import test_api, test_spend
from tests.api.test_api import Served, send
from tests.contracts.world import LEASE_S, done, fails
from tests.support import make_file

served = test_api.served
project = test_spend.project
key = test_spend.key

Json = dict[str, Any]


def line(custom_id: str, text: str = "2 + 3?", **cope: object) -> Json:
    body: Json = {"model": "cope", "messages": [{"role": "user", "content": text}]}
    if cope:
        body["cope"] = cope
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


@pytest.fixture
def client(served: Served, key: tuple[str, str]) -> Iterator[OpenAI]:
    """With a key of a project of its own."""
    with OpenAI(base_url=served.url, api_key=key[1], max_retries=0) as made:
        yield made


def store_of(served: Served) -> MemoryStore:
    assert isinstance(served.parts.store, MemoryStore)
    return served.parts.store


def ingest_all(served: Served) -> None:
    async def every() -> None:
        while await ingest_next(served.parts, lease_s=LEASE_S):  # type: ignore[arg-type]
            pass

    asyncio.run(every())


def finish(served: Served, batch_id: str, *, failing: frozenset[str] = frozenset()) -> None:
    """Every line of this batch that is due gets its answer, but for those that fail; its files are written."""

    async def act() -> None:
        store = store_of(served)
        tasks: list[ClaimedTask] = await store.claim("small", worker="w", limit=1000, lease_s=LEASE_S)
        for task in tasks:
            name = store._db.tasks[task.task_id].new.custom_id
            if task.batch_id == batch_id:
                await store.commit([fails(task) if name in failing else done(task)])
        while (job := await store.claim_finalisation(lease_s=LEASE_S)) is not None:
            file: StoredFile = make_file(ProjectId(job.batch.project_id), purpose="batch_output")
            output = replace(file, id=FileId(served.parts.ids.new(FILE)))  # the service draws from another source
            await store.finish_batch(job, output=output, error=None)

    asyncio.run(act())


def create(client: OpenAI, **more: object) -> Json:
    body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **more}
    return client.post("/batches", body=body, cast_to=dict[str, Any])


def post(client: OpenAI, path: str, body: Json | None = None) -> Json:
    return client.post(path, body=body or {}, cast_to=dict[str, Any])


def test_inline_requests_become_a_batch_with_a_real_input_file(client: OpenAI, served: Served):
    made = create(client, requests=[line("a"), {"custom_id": "b", "body": line("b")["body"]}])

    batch = client.batches.retrieve(made["id"])
    assert (made["status"], made["cope"]["open"]) == ("validating", False)
    text = client.files.content(batch.input_file_id).text
    assert [json.loads(row)["custom_id"] for row in text.splitlines()] == ["a", "b"]
    ingest_all(served)
    batch = client.batches.retrieve(made["id"])
    assert batch.request_counts is not None
    assert (batch.status, batch.request_counts.total) == ("in_progress", 2)
    finish(served, batch.id)
    assert client.batches.retrieve(batch.id).status == "completed"


def test_inline_requests_are_refused_at_once_and_leave_nothing_behind(client: OpenAI):
    def refused(**more: object) -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError) as wrong:
            create(client, **more)
        return wrong.value

    assert refused(requests=[line("a"), line("b", n=0)]).param == "requests[1].body.cope.n"
    assert refused(requests=[line("a"), line("a")]).code == "duplicate"
    assert refused(requests=[]).param == "requests"
    assert refused(requests=["a"]).param == "requests[0]"
    assert refused(requests=[{**line("a"), "url": "/v1/embeddings"}]).param == "requests[0].url"
    assert refused(requests=[line("a")], input_file_id="file-1").param == "requests"
    assert refused().param == "input_file_id"
    assert refused(cope={"open": True}, requests=[line("a")]).param == "requests"
    assert refused(cope={"open": True, "dry_run": True}).param == "cope.dry_run"
    assert refused(cope={"open": "yes"}).param == "cope.open"
    assert list(client.files.list()) == []
    with pytest.raises(openai.APIStatusError) as large:
        create(client, requests=[line("a", "x" * 10_001)])
    assert large.value.status_code == 413


def test_an_inline_batch_is_created_once_whatever_is_sent_again(client: OpenAI):
    body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line("once")]}
    headers = {"Idempotency-Key": "k-inline"}

    first = client.post("/batches", body=body, cast_to=dict[str, Any], options={"headers": headers})
    again = client.post("/batches", body=body, cast_to=dict[str, Any], options={"headers": headers})
    by_sdk = client.post(
        "/batches", body=body, cast_to=dict[str, Any], options={"headers": {"x-stainless-retry-count": "1"}}
    )

    assert first["id"] == again["id"] == by_sdk["id"]
    assert [file.id for file in client.files.list()] == [first["input_file_id"]]


def test_an_open_batch_through_the_stock_client_from_its_first_line_to_its_end(client: OpenAI, served: Served):
    made = create(client, cope={"open": True})
    path = f"/batches/{made['id']}"
    assert (made["status"], made["input_file_id"], made["cope"]["open"]) == ("in_progress", "", True)

    first = post(client, f"{path}/requests", {"requests": [line("a"), line("b")]})
    again = post(client, f"{path}/requests", {"requests": [line("b"), line("c")]})
    assert (first["added"], again["added"], again["already_there"], again["total"]) == (2, 1, 1, 3)
    finish(served, made["id"])
    assert client.batches.retrieve(made["id"]).status == "in_progress"
    sealed = post(client, f"{path}/seal")
    assert (sealed["cope"]["open"], post(client, f"{path}/seal")["cope"]["open"]) == (False, False)
    finish(served, made["id"])

    batch = client.batches.retrieve(made["id"])
    assert batch.request_counts is not None
    assert (batch.status, batch.request_counts.completed, batch.input_file_id) == ("completed", 3, "")
    assert made["id"] in {one.id for one in client.batches.list()}


def test_what_an_open_batch_refuses_is_said_by_name_and_adds_nothing(client: OpenAI):
    made = create(client, cope={"open": True})
    path = f"/batches/{made['id']}/requests"
    post(client, path, {"requests": [line("a")]})

    with pytest.raises(openai.UnprocessableEntityError) as reused:
        post(client, path, {"requests": [line("new"), line("a", "another question")]})
    with pytest.raises(openai.BadRequestError) as wrong:
        post(client, path, {"requests": [line("new"), {**line("c"), "method": "GET"}]})
    with pytest.raises(openai.BadRequestError) as twice:
        post(client, path, {"requests": [line("d"), line("d", "other")]})
    with pytest.raises(openai.APIStatusError) as many:
        post(client, path, {"requests": [line(f"l{i}") for i in range(1001)]})

    assert (reused.value.code, "'a'" in str(reused.value)) == ("custom_id_reused", True)
    assert (wrong.value.param, twice.value.param) == ("requests[1].method", "requests[1].custom_id")
    assert many.value.status_code == 413
    assert post(client, path, {"requests": [line("a")]})["total"] == 1
    post(client, f"/batches/{made['id']}/seal")
    with pytest.raises(openai.UnprocessableEntityError) as closed:
        post(client, path, {"requests": [line("late")]})
    assert closed.value.code == "batch_not_open"
    with pytest.raises(openai.NotFoundError):
        post(client, "/batches/batch_none/requests", {"requests": [line("a")]})


def failed_batch(client: OpenAI, served: Served, **more: object) -> Json:
    """Lines a and b, of which b failed."""
    made = create(client, requests=[line("a"), line("b")], **more)
    ingest_all(served)
    finish(served, made["id"], failing=frozenset("b"))
    return made


def test_failed_lines_are_retried_in_a_linked_batch_after_the_input_file_is_gone(client: OpenAI, served: Served):
    parent = failed_batch(client, served, metadata={"team": "blue"})
    client.files.delete(parent["input_file_id"])

    child = post(client, f"/batches/{parent['id']}/retry")
    ingest_all(served)
    finish(served, child["id"])

    assert (child["status"], child["cope"]["retry_of"]) == ("validating", parent["id"])
    assert (child["metadata"], child["input_file_id"]) == ({"team": "blue"}, parent["input_file_id"])
    seen = client.batches.retrieve(child["id"])
    assert seen.request_counts is not None
    assert (seen.status, seen.request_counts.total, seen.request_counts.completed) == ("completed", 1, 1)
    shown: Any = client.batches.retrieve(parent["id"]).to_dict()
    assert shown["cope"]["retried_by"] == [child["id"]]
    with pytest.raises(openai.UnprocessableEntityError) as nothing:
        post(client, f"/batches/{parent['id']}/retry")
    assert (nothing.value.code, child["id"] in str(nothing.value)) == ("nothing_to_retry", True)


def test_a_retry_sent_again_is_the_first_one(client: OpenAI, served: Served):
    parent = failed_batch(client, served)
    path, body = f"/batches/{parent['id']}/retry", {"custom_ids": ["b"]}
    first = client.post(path, body=body, cast_to=dict[str, Any], options={"headers": {"Idempotency-Key": "r"}})
    ingest_all(served)

    again = client.post(path, body=body, cast_to=dict[str, Any], options={"headers": {"Idempotency-Key": "r"}})
    by_sdk = client.post(path, body=body, cast_to=dict[str, Any], options={"headers": {"x-stainless-retry-count": "1"}})

    assert first["id"] == again["id"] == by_sdk["id"]
    other = failed_batch(client, served)
    with pytest.raises(openai.UnprocessableEntityError):
        client.post(
            f"/batches/{other['id']}/retry", body=body, cast_to=dict[str, Any],
            options={"headers": {"Idempotency-Key": "r"}},
        )  # fmt: skip


def test_a_retry_may_change_policy_money_and_address_and_refuses_the_rest_by_name(client: OpenAI, served: Served):
    parent = failed_batch(client, served, cope={"max_cost_usd": "0.50", "webhook_url": "https://hooks.example.com/"})
    path = f"/batches/{parent['id']}/retry"

    def refused(body: Json) -> str | None:
        with pytest.raises(openai.BadRequestError) as wrong:
            post(client, path, body)
        return wrong.value.param

    assert refused({"lines": ["done"]}) == "lines[0]"
    assert refused({"lines": []}) == "lines"
    assert refused({"custom_ids": ["zz"]}) == "custom_ids"
    assert refused({"custom_ids": ["a"]}) == "custom_ids"
    assert refused({"cope": {"store": "none"}}) == "cope.store"
    assert refused({"cope": {"policy": "nonsense"}}) == "cope.policy"
    assert refused({"cope": {"tau1": "0.5"}}) == "cope.tau1"
    assert refused({"cope": {"webhook_url": "https://10.0.0.1/"}}) == "cope.webhook_url"
    assert refused({"policy": "large"}) == "policy"

    child = post(client, path, {"lines": ["failed"], "cope": {"policy": "cope@0.5,0.5", "on_budget": "best_vote"}})
    ingest_all(served)

    assert child["cope"]["max_cost_usd"] == "0.50"
    tasks = client.get(f"/batches/{child['id']}/tasks", cast_to=dict[str, Any])["data"]
    assert [(task["custom_id"], task["policy"]["tau1"]) for task in tasks] == [("b", "1/2")]
    owner = store_of(served)._db.batches[BatchId(child["id"])]
    assert owner.batch.webhook_url == "https://hooks.example.com/"


def test_a_batch_that_still_spends_under_its_cap_is_retried_only_with_a_cap_that_is_said(
    client: OpenAI, served: Served
):
    made = create(client, requests=[line("a"), line("b")], cope={"max_cost_usd": "1"})
    ingest_all(served)
    store = store_of(served)
    rows = {row.new.custom_id: row for row in store._db.batch_tasks[BatchId(made["id"])]}

    async def fail_one() -> None:
        for task in await store.claim("small", worker="w", limit=1000, lease_s=LEASE_S):
            if task.task_id == rows["b"].id:
                await store.commit([fails(task)])

    asyncio.run(fail_one())
    with pytest.raises(openai.BadRequestError) as silent:
        post(client, f"/batches/{made['id']}/retry")

    assert silent.value.param == "cope.max_cost_usd"
    child = post(client, f"/batches/{made['id']}/retry", {"cope": {"max_cost_usd": "0.25"}})
    assert child["cope"]["max_cost_usd"] == "0.25"


def test_pause_is_another_name_for_hold_and_the_window_stands_still(client: OpenAI, served: Served):
    made = create(client, cope={"open": True})
    path = f"/batches/{made['id']}"

    held = post(client, f"{path}/pause")
    clock: Any = served.parts.clock
    clock.advance(60)
    resumed = post(client, f"{path}/resume")

    assert held["cope"]["hold"]["reason"] == "paused"
    assert resumed["cope"]["hold"] is None
    assert resumed["expires_at"] == made["expires_at"] + 60


def test_a_live_call_whose_caller_goes_away_is_cancelled_plain_and_streamed(served: Served, key: tuple[str, str]):
    store = store_of(served)
    for stream in (False, True):
        before = set(store._db.tasks)
        with (
            OpenAI(base_url=served.url, api_key=key[1], max_retries=0, timeout=0.3) as client,
            pytest.raises(openai.APITimeoutError),
        ):
            ask(client, f"{stream}?", stream=stream)
        (task_id,) = set(store._db.tasks) - before
        wait_for(lambda task_id=task_id: store._db.tasks[task_id].state is TaskState.CANCELLED)  # type: ignore[misc]


def ask(client: OpenAI, text: str, *, stream: bool) -> None:
    """Until the answer's end."""
    answer: Any = client.chat.completions.create(
        model="cope", messages=[{"role": "user", "content": text}], stream=stream
    )
    list(answer)


def wait_for(reached: Callable[[], bool]) -> None:
    for _ in range(1000):
        if reached():
            return
        asyncio.run(asyncio.sleep(0.02))
    raise AssertionError("it did not come to that")


def cope(served: Served, key: tuple[str, str], *arguments: str, stdin: str = "") -> Json:
    ran = CliRunner().invoke(app, ["--base-url", served.url, "--api-key", key[1], *arguments, "--json"], input=stdin)
    assert ran.exit_code == 0, ran.output
    return dict(json.loads(ran.stdout))


def test_the_command_line_submits_what_comes_adds_seals_pauses_and_retries(
    client: OpenAI, served: Served, key: tuple[str, str], tmp_path: Path
):
    stdin = json.dumps(line("a")) + "\n" + json.dumps({"id": "b", "problem": "1 + 1?"}) + "\n"
    submitted = cope(served, key, "submit", "-", stdin=stdin)
    assert (submitted["request_counts"]["total"], submitted["cope"]["open"]) == (2, False)
    finish(served, submitted["id"], failing=frozenset("b"))

    retried = cope(served, key, "retry", submitted["id"], "--failed", "--policy", "large")
    assert retried["cope"]["retry_of"] == submitted["id"]

    made = create(client, cope={"open": True})
    (tmp_path / "more.csv").write_text("custom_id,problem\nc,1 + 2?\n")
    grown = cope(served, key, "append", made["id"], str(tmp_path / "more.csv"))
    paused = cope(served, key, "pause", made["id"])
    sealed = cope(served, key, "seal", made["id"])
    assert (grown["request_counts"]["total"], paused["cope"]["hold"]["reason"]) == (1, "paused")
    assert sealed["cope"]["open"] is False


def test_another_projects_batch_is_neither_retried_nor_grown_nor_sealed(client: OpenAI, served: Served):
    parent = failed_batch(client, served)

    for path in ("retry", "requests", "seal", "pause"):
        status, _, _ = send(served, f"/batches/{parent['id']}/{path}", b'{"requests": []}' if path != "retry" else b"")
        assert status == 404


def test_every_batch_of_a_project_that_has_not_ended_is_cancelled_by_one_command(
    client: OpenAI, served: Served, key: tuple[str, str]
):
    ended = failed_batch(client, served)
    others = {create(client, cope={"open": True})["id"] for _ in range(2)}

    ran = CliRunner().invoke(app, ["--base-url", served.url, "--api-key", key[1], "cancel", "--all"])

    assert ran.exit_code == 0, ran.output
    assert {client.batches.retrieve(batch).status for batch in others} == {"cancelling"}
    assert client.batches.retrieve(ended["id"]).status == "completed"
    wrong = CliRunner().invoke(app, ["--base-url", served.url, "--api-key", key[1], "cancel"])
    assert wrong.exit_code == 2
