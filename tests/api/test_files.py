"""Files over HTTP: sharing, expiry, ranges, a full disk, limits; and what is said of what is no longer kept."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import SecretStr

from cope.adapters.memory import (
    FixedClock,
    MemoryFiles,
    MemoryStore,
    MemoryWakeUp,
    RecordingWebhookSender,
    SequentialIds,
)
from cope.adapters.memory.files import MemoryFileWriter
from cope.bootstrap import ApiParts
from cope.core.errors import StorageFull
from cope.core.ids import FileId
from cope.core.keeping import Keeping
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prices import PriceTable
from cope.core.prompts.instruct import INSTRUCT
from cope.core.stages import Tier
from cope.settings import Settings
from cope.usecases.retention import expire_files, prune
from tests.api.serving import serving
from tests.contracts.world import LEASE_S, done, pages
from tests.support import make_file, make_new_task

ADMIN, KEY = "cope-admin-tests", "cope-sk-tests"
LINE = b'{"custom_id":"a"}\n'


class FullWriter(MemoryFileWriter):
    async def write(self, data: bytes) -> None:
        if b"too much" in data:
            raise StorageFull("The disk where files are kept is full.")
        await super().write(data)


class SmallDisk(MemoryFiles):
    """Has no room for files that hold `too much`."""

    async def create(self, file_id: FileId) -> MemoryFileWriter:
        return FullWriter(self.contents, file_id)


@dataclass(frozen=True)
class Served:
    url: str
    parts: ApiParts
    store: MemoryStore
    files: SmallDisk
    clock: FixedClock

    def get(self, path: str, *, key: str = KEY, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        request = urllib.request.Request(f"{self.url}{path}", headers={"authorization": f"Bearer {key}", **headers})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read(), dict(refused.headers)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    clock, ids = FixedClock(), SequentialIds()
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    store, files = MemoryStore(clock, ids), SmallDisk()
    parts = ApiParts(
        settings=Settings(
            admin_key=SecretStr(ADMIN), bootstrap_api_key=SecretStr(KEY), max_file_bytes=1_000_000, broker_url="",
            max_project_bytes=2_000_000, metrics_open=True,
        ),
        store=store,
        files=files,
        wake=MemoryWakeUp(),
        catalog=ModelCatalog({"small": small}, "small", "small", {"instruct": INSTRUCT}),
        prices=PriceTable([]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(),
    )  # fmt: skip
    with serving(parts) as url:
        yield Served(url, parts, store, files, clock)


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key=KEY, max_retries=2) as client:
        yield client


def send(client: OpenAI, content: bytes, **options: object) -> str:
    return client.files.create(file=("in.jsonl", content), purpose="batch", **options).id  # type: ignore[arg-type]


def test_equal_uploads_take_their_place_once_and_each_is_deleted_by_itself(served: Served, client: OpenAI) -> None:
    before = set(served.files.contents)
    first, second = send(client, LINE * 3), send(client, LINE * 3)

    assert set(served.files.contents) - before == {first}
    assert client.files.delete(first).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(first)
    assert client.files.content(second).content == LINE * 3
    assert client.files.delete(second).deleted
    assert set(served.files.contents) == before


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("lines=0-1", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
    ],
)
def test_a_range_of_a_file_is_served(served: Served, client: OpenAI, wanted: str, status: int, content: bytes) -> None:
    file_id = send(client, b"0123456789")

    got, body, headers = served.get(f"/files/{file_id}/content", range=wanted)

    assert (got, body, headers["content-length"]) == (status, content, str(len(content)))
    assert (headers.get("content-range", "") != "") is (status == 206)


def test_a_range_outside_the_file_is_refused_with_its_size(served: Served, client: OpenAI) -> None:
    file_id = send(client, b"0123456789")

    status, body, headers = served.get(f"/files/{file_id}/content", range="bytes=10-")

    assert (status, headers["content-range"]) == (416, "bytes */10")
    assert json.loads(body)["error"]["code"] == "invalid_range"


def test_a_full_disk_is_507_is_not_tried_again_and_leaves_nothing(served: Served, client: OpenAI) -> None:
    before, rows = dict(served.files.contents), len(list(client.files.list()))

    with pytest.raises(openai.InternalServerError) as refused:
        send(client, b"too much" + b"x" * 900_000)

    assert refused.value.status_code == 507
    assert refused.value.code == "storage_full"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "x-stainless-retry-count" in refused.value.request.headers
    assert refused.value.request.headers["x-stainless-retry-count"] == "0"
    assert served.files.contents == before
    assert len(list(client.files.list())) == rows


def test_a_project_may_not_store_more_than_the_settings_say(served: Served, client: OpenAI) -> None:
    made = [send(client, bytes([65 + n]) * 900_000) for n in range(2)]
    before = set(served.files.contents)

    with pytest.raises(openai.APIStatusError) as refused:
        send(client, b"z" * 900_000)

    assert (refused.value.status_code, refused.value.code) == (413, "project_storage_limit")
    assert set(served.files.contents) == before
    send(client, b"A" * 900_000)  # the same again takes nothing
    status, body, _ = served.get("/limits")
    assert status == 200
    storage = json.loads(body)["storage"]
    assert storage["bytes"] >= 1_800_000
    assert (storage["max_bytes"], storage["keep_days"]["batches"]) == (2_000_000, 90)
    for file_id in made:
        client.files.delete(file_id)


def test_a_file_expires_when_it_was_asked_to(served: Served, client: OpenAI) -> None:
    file_id = send(client, LINE, expires_after={"anchor": "created_at", "seconds": 3600})
    assert client.files.retrieve(file_id).expires_at == client.files.retrieve(file_id).created_at + 3600

    served.clock.advance(3601)

    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)
    asyncio.run(expire_files(served.parts, Keeping()))
    assert file_id not in served.files.contents


@pytest.mark.parametrize("seconds", ["3599", "2592001", "x", "99999999999"])
def test_a_time_outside_an_hour_and_thirty_days_is_refused(client: OpenAI, seconds: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        send(client, LINE, extra_body={"expires_after[anchor]": "created_at", "expires_after[seconds]": seconds})
    assert refused.value.param == "expires_after"


def test_a_pruned_batch_says_so_and_so_do_its_tasks_and_its_expired_file(served: Served, client: OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=send(client, LINE), endpoint="/v1/chat/completions", completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )  # fmt: skip
    asyncio.run(_finish(served, batch.id))
    seen = client.batches.retrieve(batch.id)
    assert seen.output_file_id is not None
    assert client.files.content(seen.output_file_id).content == b"{}\n"
    assert seen.model_extra is not None
    assert seen.model_extra["cope"]["pruned_at"] is None

    served.clock.advance(91 * 86_400)
    asyncio.run(prune(served.parts, served.parts.settings.keeping))
    asyncio.run(expire_files(served.parts, served.parts.settings.keeping))

    pruned = client.batches.retrieve(batch.id)
    assert pruned.model_extra is not None
    assert pruned.model_extra["cope"]["pruned_at"] is not None
    assert pruned.request_counts is not None
    assert pruned.request_counts.total == 1
    for path in ("tasks", "results"):
        status, body, _ = served.get(f"/batches/{batch.id}/{path}")
        assert (status, json.loads(body)["error"]["code"]) == (410, "batch_pruned")
    with pytest.raises(openai.APIStatusError, match="were deleted"):
        client.post(f"/batches/{batch.id}/retry", body={}, cast_to=object)
    for path in (f"/files/{seen.output_file_id}", f"/files/{seen.output_file_id}/content"):
        status, body, _ = served.get(path)
        assert (status, json.loads(body)["error"]["code"]) == (410, "file_expired")
        assert batch.id in json.loads(body)["error"]["message"]


async def _finish(served: Served, batch_id: str) -> None:
    store = served.store
    job = await store.claim_validation(lease_s=LEASE_S)
    assert job is not None
    await store.ingest(job, pages([make_new_task(1)]), model=lambda: "m", expires_in=timedelta(days=1))
    (task,) = await store.claim("small", worker="w", limit=1, lease_s=LEASE_S)
    await store.commit([done(task)])
    job = await store.claim_finalisation(lease_s=LEASE_S)
    assert job is not None
    assert job.batch.id == batch_id
    now = served.clock.now()
    output = replace(
        make_file(job.batch.project_id, purpose="batch_output", size=3), created_at=now,
        expires_at=now + timedelta(hours=1),
    )  # fmt: skip
    served.files.contents[output.id] = b"{}\n"
    await store.finish_batch(job, output=output, error=None)


def test_the_operator_sees_what_is_stored_and_what_goes_next(served: Served) -> None:
    asyncio.run(prune(served.parts, served.parts.settings.keeping))

    assert served.get("/organization/retention")[0] in {401, 403}
    status, body, _ = served.get("/organization/retention", key=ADMIN)

    report = json.loads(body)
    assert (status, report["object"], report["keep_days"]["tasks"]) == (200, "cope.retention", 90)
    assert report["files"] > 0
    with urllib.request.urlopen(served.url.removesuffix("/v1") + "/metrics") as answer:
        lines = answer.read().decode().splitlines()
    assert f"cope_files_stored_bytes {report['stored_bytes']}" in lines
    assert "cope_retention_due_batches 0" in lines
    assert any(line.startswith('cope_retention_oldest_age_seconds{kind="file"} ') for line in lines)


def test_a_project_gets_days_of_its_own(served: Served) -> None:
    def change(body: object) -> tuple[int, dict[str, object]]:
        project = json.loads(served.get("/organization/projects", key=ADMIN)[1])["data"][0]["id"]
        request = urllib.request.Request(
            f"{served.url}/organization/projects/{project}", data=json.dumps(body).encode(), method="POST",
            headers={"authorization": f"Bearer {ADMIN}"},
        )  # fmt: skip
        with contextlib.closing(_answer(request)) as answer:
            return answer.status, json.loads(answer.read())

    status, project = change({"cope": {"keep_days": 7}})
    assert status == 200
    assert project["cope"]["keep_days"] == 7  # type: ignore[index]
    assert json.loads(served.get("/limits")[1])["storage"]["keep_days"]["live"] == 7
    assert change({"name": "as before"})[1]["cope"]["keep_days"] == 7  # type: ignore[index]
    for wrong in (0, -1, 36_501, "7", 1.5):
        assert change({"cope": {"keep_days": wrong}})[0] == 400
    assert change({"cope": {"keep_days": None}})[1]["cope"]["keep_days"] is None  # type: ignore[index]


def _answer(request: urllib.request.Request) -> Any:
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as refused:
        return refused
