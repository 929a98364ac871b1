"""The API over in-memory parts and a real loopback server, driven by the unmodified openai client and by rude ones."""

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import openai
import pytest
import uvicorn
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
from cope.bootstrap import ApiParts
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.settings import Settings
from cope_api.app import create_app
from cope_local.children import free_port
from tests.support import NOON

PRICE = Price("p", "2024-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2024))
KEY, ADMIN = "cope-sk-of-the-tests", "cope-admin-of-the-tests"
LINE = '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'


@dataclass(frozen=True)
class Served:
    url: str
    parts: ApiParts


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    clock, ids = FixedClock(), SequentialIds()
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    large = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    parts = ApiParts(
        settings=Settings(
            admin_key=SecretStr(ADMIN), bootstrap_api_key=SecretStr(KEY), max_file_bytes=1_000_000, max_file_lines=1000,
            max_line_bytes=10_000, broker_url="",
        ),
        store=MemoryStore(clock, ids),
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([PRICE]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(refused={"https://10.0.0.1/": "10.0.0.1 is not a public address"}),
    )  # fmt: skip

    async def opened(_: contextlib.AsyncExitStack) -> ApiParts:
        return parts

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(opened), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Served(f"http://127.0.0.1:{port}/v1", parts)
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
        yield client


def upload(client: OpenAI, text: str = LINE) -> str:
    return client.files.create(file=("in.jsonl", text.encode()), purpose="batch").id


def send(
    served: Served, path: str, body: bytes | None = None, *, method: str = "POST", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, object], dict[str, str]]:
    request = urllib.request.Request(served.url + path, data=body, method=method)
    for name, value in {"authorization": f"Bearer {KEY}", **(headers or {})}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), dict(error.headers)


def test_a_file_comes_back_byte_for_byte_and_can_be_listed_and_deleted(client: OpenAI):
    text = LINE * 3
    file_id = upload(client, text)

    assert client.files.content(file_id).content == text.encode()
    assert client.files.retrieve(file_id).bytes == len(text)
    assert file_id in {file.id for file in client.files.list()}
    assert client.files.delete(file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file_id)


def test_lists_page_through_the_stock_client(client: OpenAI):
    made = {upload(client) for _ in range(5)}
    seen = [file.id for file in client.files.list(limit=2)]

    assert made <= set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("text", "says"),
    [("x" * 20_000, "Line 1 has over"), (LINE * 1001, "1000 lines"), ((("x" * 9_000) + "\n") * 150, "1000000 bytes")],
)
def test_an_upload_over_a_limit_is_refused_and_leaves_nothing(served: Served, client: OpenAI, text: str, says: str):
    files = served.parts.files
    assert isinstance(files, MemoryFiles)
    before = set(files.contents)
    with pytest.raises(openai.APIStatusError, match=says) as refused:
        upload(client, text)

    assert refused.value.status_code == 413
    assert set(files.contents) == before


def test_a_new_batch_is_validating_and_upkeep_is_woken(served: Served, client: OpenAI):
    batch = client.batches.create(
        input_file_id=upload(client),
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"team": "a"},
        extra_body={"cope": {"n": 4}},
    )

    assert (batch.status, batch.metadata) == ("validating", {"team": "a"})
    assert client.batches.retrieve(batch.id).id == batch.id
    assert "upkeep" in served.parts.wake.poked  # type: ignore[attr-defined]
    assert client.batches.cancel(batch.id).status in {"cancelling", "cancelled"}


def test_the_sdks_own_retry_and_an_idempotency_key_return_the_first_batch(served: Served, client: OpenAI):
    body = json.dumps(
        {"input_file_id": upload(client), "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    ).encode()
    _, first, _ = send(served, "/batches", body)
    _, repeated, _ = send(served, "/batches", body, headers={"x-stainless-retry-count": "1"})
    _, deliberate, _ = send(served, "/batches", body)
    assert repeated["id"] == first["id"] != deliberate["id"]

    _, one, _ = send(served, "/batches", body, headers={"Idempotency-Key": "k1"})
    _, two, _ = send(served, "/batches", body, headers={"Idempotency-Key": "k1"})
    status, other, headers = send(served, "/batches", body + b" ", headers={"Idempotency-Key": "k1"})
    assert one["id"] == two["id"]
    assert status == 422
    assert headers["x-should-retry"] == "false"
    assert other["error"]["code"] == "idempotency_key_reused"  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/batches", b"{", 400),
        ("/batches", b"[]", 400),
        ("/batches", b'{"a":"\\ud800"}', 400),
        ("/batches", b"\xff\xfe", 400),
        ("/batches", b"{}", 400),
        ("/batches", b'{"input_file_id":"file-x","endpoint":"/v1/chat/completions","completion_window":"24h"}', 400),
        ("/batches", b'{"unknown": 1}', 400),
        ("/batches", b'{"cope": {"waves": [1]}}', 400),
        ("/chat/completions", b"{}", 400),
        ("/chat/completions", b'{"model":"cope","messages":[{"role":"user","content":"a\\u0000"}]}', 400),
        ("/chat/completions", b'{"model":"cope","messages":[],"tools":[1]}', 400),
        ("/chat/completions", b"[" * 100_000, 400),
        ("/files", b"not a form", 400),
        ("/webhook_endpoints", b'{"url": "https://10.0.0.1/"}', 400),
        ("/webhook_endpoints", b'{"url": 5}', 400),
        ("/nothing", b"{}", 404),
        ("/batches/%00/cancel", b"{}", 404),
        ("/organization/projects", b'{"name": "x"}', 403),
    ],
)
def test_bad_input_is_a_clear_refusal_in_openais_shape(served: Served, path: str, body: bytes, status: int):
    got, answer, headers = send(served, path, body, headers={"content-type": "application/json"})

    assert got == status
    assert answer.keys() == {"error"}
    assert answer["error"].keys() == {"message", "type", "param", "code"}  # type: ignore[attr-defined]
    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("key", ["", "wrong", "cope-sk-\ud800".encode("utf-8", "replace").decode()])
def test_a_wrong_key_learns_nothing(served: Served, key: str):
    status, answer, _ = send(served, "/batches", method="GET", headers={"authorization": f"Bearer {key}"})

    assert status == 401
    assert answer["error"]["code"] == "invalid_api_key"  # type: ignore[index]


def test_projects_do_not_see_each_other(served: Served, client: OpenAI):
    admin = {"authorization": f"Bearer {ADMIN}"}
    _, project, _ = send(served, "/organization/projects", b'{"name": "b"}', headers=admin)
    assert str(project["cope"]["webhook_secret"]).startswith("whsec_")  # type: ignore[index]
    _, account, _ = send(served, f"/organization/projects/{project['id']}/service_accounts", b"{}", headers=admin)
    file_id = upload(client)
    with OpenAI(base_url=served.url, api_key=account["api_key"]["value"], max_retries=0) as other:  # type: ignore[index]
        with pytest.raises(openai.NotFoundError):
            other.files.retrieve(file_id)
        with pytest.raises(openai.BadRequestError):
            other.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
        assert list(other.files.list()) == []


def test_a_new_project_is_capped_and_only_delete_says_unlimited(served: Served):
    admin = {"authorization": f"Bearer {ADMIN}"}
    _, project, _ = send(served, "/organization/projects", b'{"name": "c"}', headers=admin)
    path = f"/organization/projects/{project['id']}/spend_limit"

    assert send(served, path, method="GET", headers=admin)[1]["threshold_amount"] == 1000
    assert send(served, path, b'{"threshold_amount": 250}', headers=admin)[1]["cope"]["cap_usd"] == "2.50"  # type: ignore[index]
    assert send(served, path, b'{"threshold_amount": -1}', headers=admin)[0] == 400
    send(served, path, method="DELETE", headers=admin)
    assert send(served, path, method="GET", headers=admin)[1]["enforcement"] == {"status": "inactive"}
    assert send(served, path, b'{"threshold_amount": 1}')[0] == 403


def test_webhook_endpoints_show_their_secret_once(client: OpenAI):
    made = client.post("/webhook_endpoints", body={"url": "https://hooks.example.com/x"}, cast_to=dict)
    listed = client.get("/webhook_endpoints", cast_to=dict)

    assert str(made["signing_secret"]).startswith("whsec_")
    assert "signing_secret" not in listed["data"][0]
    assert client.delete(f"/webhook_endpoints/{made['id']}", cast_to=dict)["deleted"]


def test_models_lists_policies_and_configured_models(client: OpenAI):
    assert {"cope", "small-majority", "large", "small"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("cope").id == "cope"


def test_a_batchs_cap_is_set_at_its_creation_and_changed_by_its_own_key(served: Served, client: OpenAI):
    file = client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"cope": {"max_cost_usd": "0.25"}},
    )
    path = f"/batches/{batch.id}/spend_limit"

    limit = client.get(path, cast_to=dict)
    raised = client.post(path, body={"max_cost_usd": "1.5"}, cast_to=dict)

    assert batch.to_dict()["cope"]["max_cost_usd"] == "0.25"  # type: ignore[index]
    assert (limit["object"], limit["threshold_amount"], limit["interval"]) == ("batch.spend_limit", 25, None)
    assert raised["cope"]["cap_usd"] == "1.50"  # type: ignore[index]
    assert send(served, path, b'{"max_cost_usd": 0.5}')[0] == 400
    assert send(served, "/batches/batch_none/spend_limit", b'{"max_cost_usd": "1"}')[0] == 404
    assert client.delete(path, cast_to=dict) == {"object": "batch.spend_limit.deleted", "deleted": True}
    assert client.get(path, cast_to=dict)["threshold_amount"] is None


def test_a_keys_cap_is_the_operators_to_set_and_to_the_nano_dollar(served: Served):
    admin = {"authorization": f"Bearer {ADMIN}"}
    _, project, _ = send(served, "/organization/projects", b'{"name": "k"}', headers=admin)
    _, made, _ = send(served, f"/organization/projects/{project['id']}/service_accounts", b"{}", headers=admin)
    path = f"/organization/projects/{project['id']}/api_keys/{made['id']}/spend_limit"
    own = {"authorization": f"Bearer {made['api_key']['value']}"}  # type: ignore[index]

    _, limit, _ = send(served, path, b'{"cope": {"cap_usd": "0.000000001"}}', headers=admin)

    assert (limit["object"], limit["threshold_amount"]) == ("project.api_key.spend_limit", 0)
    assert limit["cope"]["cap_usd"] == "0.000000001"  # type: ignore[index]
    assert send(served, path, method="GET", headers=own)[1] == limit
    assert send(served, path, b'{"threshold_amount": 1}', headers=own)[0] == 403
    assert send(served, path, b'{"threshold_amount": 1, "cope": {"cap_usd": "1"}}', headers=admin)[0] == 400
    assert send(served, path.replace(str(made["id"]), "key_none"), b'{"threshold_amount": 1}', headers=admin)[0] == 404
