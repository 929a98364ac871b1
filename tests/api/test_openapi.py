"""The OpenAPI document: complete, valid, true of what a whole life answers, and to be read without the network."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from cope_api.app import create_app
from cope_api.openapi.document import OPERATIONS, described_routes, document
from cope_api.openapi.operation import ERRORS
from tests.api.whole import ADMIN, KEY, Whole, whole_service

APP = create_app(lambda resources: None)  # type: ignore[arg-type, return-value]
DOCUMENT = document(APP)
Json = dict[str, Any]


def operations() -> list[tuple[str, Json]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]


def schemas(node: object) -> Iterator[Json]:
    """Every schema of the document."""
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict):
            yield node["schema"]
        for value in node.values():
            yield from schemas(value)
    elif isinstance(node, list):
        for value in node:
            yield from schemas(value)


def test_every_route_is_described_and_every_description_has_a_route():
    served = {key for key, _ in described_routes(APP)}

    assert served - set(OPERATIONS) == set(), "add an entry: see the head of cope_api/openapi/__init__.py"
    assert set(OPERATIONS) - served == set()
    assert {key for key, _ in operations()} == served


def test_every_schema_is_one_and_every_reference_leads_somewhere():
    for schema in [*schemas(DOCUMENT["paths"]), *DOCUMENT["components"]["schemas"].values()]:
        jsonschema.Draft202012Validator.check_schema(schema)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert named <= set(DOCUMENT["components"]["schemas"])


def test_operations_have_their_own_names_summaries_answers_keys_and_errors_in_one_shape():
    assert len({operation["operationId"] for _, operation in operations()}) == len(operations())
    for key, operation in operations():
        assert operation["summary"], key
        assert operation["responses"]["200"]["content"], key
        for status, answer in operation["responses"].items():
            if status != "200":
                assert int(status) in ERRORS
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
        if operation["security"]:
            assert {"400", "401", "403", "500", "503"} <= operation["responses"].keys(), key
        if "{" in key:
            assert "404" in operation["responses"], key


def test_bodies_and_files_have_their_media_types():
    media = {key: set(operation["responses"]["200"]["content"]) for key, operation in operations()}

    assert media["POST /v1/responses"] == {"application/json", "text/event-stream"}
    assert media["GET /v1/organization/ledger.csv"] == {"text/csv"}
    assert media["GET /v1/files/{file_id}/content"] == {"application/octet-stream"}
    upload = DOCUMENT["paths"]["/v1/files"]["post"]["requestBody"]["content"]
    assert set(upload) == {"multipart/form-data"}


def test_examples_are_valid_requests():
    shown = 0
    for key, operation in operations():
        for found in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in found and found["schema"].get("type") != "string":
                assert not list(validator(found["schema"]).iter_errors(found["example"])), key
                shown += 1
    assert shown >= 5


def validator(schema: Json) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


# ---- against a running service -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service() -> Iterator[Whole]:
    with whole_service() as whole:
        yield whole


def fetch(service: Whole, path: str, *, key: str = "", accept: str = "*/*") -> tuple[bytes, dict[str, str]]:
    headers = {"accept": accept} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(service.url.removesuffix("/v1") + path, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def test_the_document_is_served_to_anybody(service: Whole):
    body, headers = fetch(service, "/openapi.json")

    assert headers["content-type"] == "application/json"
    assert json.loads(body) == json.loads(json.dumps(DOCUMENT))


def test_the_page_for_people_shows_every_endpoint_and_loads_nothing(service: Whole):
    body, headers = fetch(service, "/docs")
    page = body.decode()

    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not re.search(r"<(script|link|img|iframe)\b|\bsrc=|url\(|@import|https?://(?!example)", page)
    for path in DOCUMENT["paths"]:
        assert f"<code>{path}</code>" in page
    for name in DOCUMENT["components"]["schemas"]:
        assert f'id="{name}"' in page


class Caller:
    """Calls endpoints, and holds every answer against the document: in its schema, and with no key beyond it."""

    def __init__(self, service: Whole) -> None:
        self._service = service
        self._base = service.url.removesuffix("/v1")
        self.called: set[str] = set()
        self.wrong: list[str] = []

    def __call__(
        self, operation: str, body: object = None, *, key: str = KEY, query: str = "", raw: bytes | None = None,
        kind: str = "application/json", **ids: str,
    ) -> Any:  # fmt: skip
        method, path = operation.split(" ")
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path.format(**ids) + query, data=data, method=method)
        request.add_header("authorization", f"Bearer {key}")
        request.add_header("content-type", kind)
        try:
            answer = urllib.request.urlopen(request)
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(operation, refused.read()) from None
        with answer:
            media, text = answer.headers["content-type"].partition(";")[0], answer.read()
        self.called.add(operation)
        described = DOCUMENT["paths"][path][method.lower()]["responses"]["200"]["content"]
        assert media in described, operation
        if media != "application/json":
            return text
        found = json.loads(text)
        for schema in (described[media]["schema"], strict(described[media]["schema"])):
            errors = [f"{error.json_path}: {error.message[:300]}" for error in validator(schema).iter_errors(found)]
            self.wrong += [f"{operation}: {error}" for error in errors]
        return found


def strict(schema: Json) -> Json:
    """The schema without its leave to have more keys than it names."""
    return close(schema, DOCUMENT["components"]["schemas"])


def close(node: Any, named: Json) -> Any:
    if isinstance(node, list):
        return [close(one, named) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return close(named[node["$ref"].rpartition("/")[2]], named)
    if "allOf" in node:  # closed together, not each by itself
        fields = [close(part, named) for part in node["allOf"]]
        return {"type": "object", "properties": {k: v for f in fields for k, v in f["properties"].items()},
                "additionalProperties": False}  # fmt: skip
    closed = {key: close(value, named) if key != "properties" else {n: close(p, named) for n, p in value.items()}
              for key, value in node.items()}  # fmt: skip
    if node.get("properties") and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed


def until(look: Any, field: str, *wanted: str) -> Any:
    while (seen := look())[field] not in wanted:
        time.sleep(0.02)
    return seen


def line(number: int, body: Json, *, url: str = "/v1/chat/completions") -> str:
    return json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": url, "body": body})


def upload(call: Caller, *lines: str) -> str:
    text = "\n".join(lines)
    parts = {"purpose": "batch", "file": text}
    names = {"file": '; filename="in.jsonl"'}
    form = "".join(
        f'--x\r\ncontent-disposition: form-data; name="{n}"{names.get(n, "")}\r\n\r\n{v}\r\n' for n, v in parts.items()
    )
    kind = "multipart/form-data; boundary=x"
    return str(call("POST /v1/files", raw=f"{form}--x--\r\n".encode(), kind=kind)["id"])


def chat(text: str, **more: object) -> Json:
    return {"model": "cope", "messages": [{"role": "user", "content": text}], **more}


def test_every_answer_of_a_whole_life_is_as_described_and_says_nothing_that_is_not(service: Whole):
    call = Caller(service)
    service.told.go_on.set()
    batches(call)
    live_calls(call)
    webhooks(call)
    project = projects(call)
    money(call, project)
    for operation in ("GET /health", "GET /ready", "GET /openapi.json", "GET /docs"):
        call(operation)
    call("GET /metrics", key=ADMIN)
    events(call)
    operations_of_the_operator(call)

    assert not call.wrong, "\n".join(dict.fromkeys(call.wrong))
    missing = set(OPERATIONS) - call.called - GIVEN_UP
    assert not missing, f"not called here: {sorted(missing)}"


GIVEN_UP = {
    "GET /v1/event_dead_letters/{delivery_id}",
    "POST /v1/event_dead_letters/{delivery_id}/replay",
    "GET /v1/webhook_deliveries/{delivery_id}",
    "POST /v1/webhook_deliveries/{delivery_id}/redeliver",
}
"""These need a message that was sent or given up, and nobody sends any here."""


def events(call: Caller) -> None:
    call("GET /v1/event_types")
    call("GET /v1/events", query="?limit=1000&types=batch.*")
    group = "/v1/event_consumers/{group}"
    call(f"PUT {group}", {"start": "beginning", "types": ["batch.*"]}, group="readers")
    call("GET /v1/event_consumers")
    call(f"GET {group}", group="readers")
    read = call(f"GET {group}/records", group="readers", query="?max=2")
    call(f"POST {group}/offsets", {"offset": read["next_offset"]}, group="readers")
    call(f"POST {group}/positions", {"offset": "end"}, group="readers")
    call(f"DELETE {group}", group="readers")
    call("GET /v1/event_dead_letters")
    call("POST /v1/event_dead_letters/replay", {"all": True})


def operations_of_the_operator(call: Caller) -> None:
    call("GET /v1/organization/doctor", key=ADMIN)
    call("GET /v1/organization/restore", key=ADMIN)
    call("GET /v1/organization/retention", key=ADMIN)
    call("POST /v1/organization/restore/release", {}, key=ADMIN)


def batches(call: Caller) -> None:
    file = upload(call, line(1, chat("2 + 3?")), line(2, chat("never agreed on")), line(3, chat("x", max_tokens=9000)))
    new = {
        "input_file_id": file,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"a": "b"},
    }
    batch = call("POST /v1/batches", {**new, "cope": {"max_cost_usd": "5"}})["id"]
    done = until(lambda: call("GET /v1/batches/{batch_id}", batch_id=batch), "status", "completed")
    call("GET /v1/batches/{batch_id}/wait", batch_id=batch, query="?timeout=0")
    call("GET /v1/batches/{batch_id}/results", batch_id=batch, query="?order=input")
    for shown in (done["output_file_id"], file):
        call("GET /v1/files/{file_id}", file_id=shown)
        call("GET /v1/files/{file_id}/content", file_id=shown)
    (first, *_) = call("GET /v1/batches/{batch_id}/tasks", batch_id=batch)["data"]
    call("GET /v1/tasks/{task_id}", task_id=first["id"])
    call("GET /v1/batches/{batch_id}/receipt", batch_id=batch)
    call("GET /v1/batches/{batch_id}/spend_limit", batch_id=batch)
    call("POST /v1/batches/{batch_id}/spend_limit", {"max_cost_usd": "6"}, batch_id=batch)
    call("DELETE /v1/batches/{batch_id}/spend_limit", batch_id=batch)
    held = call("POST /v1/batches", {**new, "endpoint": "/v1/responses"})["id"]  # its lines are wrong: it fails
    until(lambda: call("GET /v1/batches/{batch_id}", batch_id=held), "status", "failed")
    quoted = call("POST /v1/batches", {**new, "cope": {"dry_run": True}})["id"]
    until(lambda: call("GET /v1/batches/{batch_id}", batch_id=quoted), "status", "completed")
    slow = upload(call, line(1, chat("slow")))
    call._service.told.go_on.clear()
    held = call("POST /v1/batches", {**new, "input_file_id": slow})["id"]
    call("POST /v1/batches/{batch_id}/hold", batch_id=held)
    call("POST /v1/batches/{batch_id}/resume", batch_id=held)
    call("POST /v1/batches/{batch_id}/pause", batch_id=held)
    call("POST /v1/batches/{batch_id}/cancel", batch_id=held)
    call._service.told.go_on.set()
    until(lambda: call("GET /v1/batches/{batch_id}", batch_id=held), "status", "cancelled")
    call("POST /v1/batches/{batch_id}/retry", {"cope": {"max_cost_usd": "1"}}, batch_id=held)
    several(call, {key: value for key, value in new.items() if key != "input_file_id"})
    call("GET /v1/batches")
    call("GET /v1/files")
    call("DELETE /v1/files/{file_id}", file_id=upload(call, line(1, chat("x"))))


def several(call: Caller, new: Json) -> None:
    """Lines that come in the request, and one by one."""
    lines = [{"custom_id": "one", "body": chat("2 + 3?")}]
    call("POST /v1/batches", {**new, "requests": lines})
    opened = call("POST /v1/batches", {**new, "completion_window": "none", "cope": {"open": True}})["id"]
    call("POST /v1/batches/{batch_id}/requests", {"requests": lines}, batch_id=opened)
    call("POST /v1/batches/{batch_id}/seal", batch_id=opened)
    until(lambda: call("GET /v1/batches/{batch_id}", batch_id=opened), "status", "completed")


def live_calls(call: Caller) -> None:
    call("POST /v1/chat/completions", chat("2 + 3?"))
    call("POST /v1/chat/completions", chat("2 + 3?", stream=True))
    made = call("POST /v1/responses", {"model": "cope", "input": "2 + 3?"})["id"]
    call("POST /v1/responses", {"model": "cope", "input": "2 + 3?", "stream": True})
    call("GET /v1/responses/{response_id}", response_id=made)
    call("GET /v1/responses/{response_id}", response_id=made, query="?stream=true&starting_after=2")
    queued = call("POST /v1/responses", {"model": "cope", "input": "more", "background": True})["id"]
    call("POST /v1/responses/{response_id}/cancel", response_id=queued)
    call("DELETE /v1/responses/{response_id}", response_id=made)
    call("GET /v1/models/{name}", name=call("GET /v1/models")["data"][0]["id"])


def webhooks(call: Caller) -> None:
    made = call("POST /v1/webhook_endpoints", {"url": "https://example.com/x"})["id"]
    call("GET /v1/webhook_endpoints")
    one = "/v1/webhook_endpoints/{endpoint_id}"
    call(f"POST {one}", {"name": "changed"}, endpoint_id=made)
    call(f"POST {one}/rotate_secret", {"keep_old_secret_active_for_24_hours": True}, endpoint_id=made)
    call(f"POST {one}/test", {"event_type": "batch.completed"}, endpoint_id=made)
    call(f"GET {one}/deliveries", endpoint_id=made)
    call(f"POST {one}/redeliver", {"since": 0}, endpoint_id=made)
    call("GET /v1/webhook_deliveries", query="?status=dead")
    call("GET /v1/webhook_endpoints/{endpoint_id}", endpoint_id=made)
    call("DELETE /v1/webhook_endpoints/{endpoint_id}", endpoint_id=made)
    call("GET /v1/webhook_event_types")


def projects(call: Caller) -> str:
    root = "/v1/organization/projects"
    made = str(
        call(f"POST {root}", {"name": "maths", "cope": {"time_zone": "Europe/Berlin", "keep_days": 30}}, key=ADMIN)[
            "id"
        ]
    )
    call(f"GET {root}", key=ADMIN)
    call(f"GET {root}/{{project_id}}", key=ADMIN, project_id=made)
    audit = {"share": "0.5", "cap_usd": "1"}
    call(f"POST {root}/{{project_id}}", {"cope": {"audit": audit}}, key=ADMIN, project_id=made)
    made_key = call(f"POST {root}/{{project_id}}/service_accounts", {}, key=ADMIN, project_id=made)
    own = made_key["api_key"]["value"]
    call("POST /v1/chat/completions", chat("2 + 3?"), key=own)
    call("GET /v1/audits", key=own)
    call(f"GET {root}/{{project_id}}/audit", key=ADMIN, project_id=made)
    call(f"GET {root}/{{project_id}}/api_keys", key=ADMIN, project_id=made)
    ids = {"project_id": made, "key_id": made_key["id"]}
    one_key = f"{root}/{{project_id}}/api_keys/{{key_id}}"
    call(f"GET {one_key}", key=ADMIN, **ids)
    call(f"POST {one_key}/rotate", {"overlap_seconds": 60}, key=ADMIN, **ids)
    limit = f"{one_key}/spend_limit"
    call(f"POST {limit}", {"threshold_amount": 100}, key=ADMIN, **ids)
    call(f"GET {limit}", key=ADMIN, **ids)
    call(f"DELETE {limit}", key=ADMIN, **ids)
    call(f"DELETE {one_key}", key=ADMIN, **ids)
    gone = call(f"POST {root}", {"name": "gone"}, key=ADMIN)["id"]
    call(f"POST {root}/{{project_id}}/archive", key=ADMIN, project_id=gone)
    return made


def money(call: Caller, project: str) -> None:
    root = "/v1/organization/projects/{project_id}"
    call(f"POST {root}/spend_limit", {"cope": {"cap_usd": "7.5"}}, key=ADMIN, project_id=project)
    call(f"GET {root}/spend_limit", key=ADMIN, project_id=project)
    alert = {"threshold_amount": 0, "cope": {"percent": 80}, "notification_channel": {"type": "email"}}
    made = call(f"POST {root}/spend_alerts", alert, key=ADMIN, project_id=project)["id"]
    ids = {"project_id": project, "alert_id": made}
    call(f"GET {root}/spend_alerts", key=ADMIN, project_id=project)
    call(f"GET {root}/spend_alerts/{{alert_id}}", key=ADMIN, **ids)
    call(f"POST {root}/spend_alerts/{{alert_id}}", {"threshold_amount": 100}, key=ADMIN, **ids)
    call(f"DELETE {root}/spend_alerts/{{alert_id}}", key=ADMIN, **ids)
    call(f"DELETE {root}/spend_limit", key=ADMIN, project_id=project)
    call("POST /v1/usage", {"amount_usd": "0.25", "id": "own-1", "model": "m"})
    call("GET /v1/usage")
    call("GET /v1/limits")
    month = time.strftime("%Y-%m", time.gmtime())
    for group in ("model", "batch_id", "line_item", "stage"):
        call("GET /v1/organization/costs", key=ADMIN, query=f"?month={month}&group_by={group}")
    call("GET /v1/organization/ledger.csv", key=ADMIN)
    call("GET /v1/organization/ledger_check", key=ADMIN)
    call("GET /v1/organization/unconfirmed", key=ADMIN)
    call(f"GET {root}/receipts/{{month}}", project_id="me", month=month)
    usage = b"request_id,cost_usd\r\nunknown-1,0.5\r\n"
    call("POST /v1/organization/reconcile", raw=usage, kind="text/csv", key=ADMIN)
    row = {"price_id": "p", "input": "3", "output": "12", "source": "https://example.com/list"}
    call("POST /v1/organization/prices", {**row, "dry_run": True}, key=ADMIN)
    call("POST /v1/organization/prices", {**row, "force": True, "reason": "a test"}, key=ADMIN)
    call("GET /v1/organization/prices", key=ADMIN, query="?versions=all")
