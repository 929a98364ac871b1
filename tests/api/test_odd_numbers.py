"""Numbers that no honest client sends: a refusal that names the parameter, at once, and never a 500."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.api.whole import ADMIN, KEY, Whole, whole_service

USAGE, SHARE = "stream_options.include_usage", "cope.audit.share"


@pytest.fixture(scope="module")
def service() -> Iterator[Whole]:
    with whole_service() as whole:
        yield whole


def ask(service: Whole, method: str, path: str, body: object = None) -> tuple[int, dict[str, object], dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(service.url + path, data=data, method=method)
    request.add_header("authorization", f"Bearer {ADMIN if path.startswith('/organization') else KEY}")
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request):
        pass
    with refused.value as error:
        return error.code, json.loads(error.read())["error"], dict(error.headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("GET", "/organization/costs?month=9999-12", None, "month"),
        ("GET", "/organization/ledger.csv?month=0001-01", None, "month"),
        ("GET", "/organization/projects/me/receipts/9999-12", None, "month"),
        ("GET", "/files?limit=00000000199999999999999999999", None, "limit"),
        ("POST", "/organization/reconcile?complete_from=99999999999999&complete_until=1", None, "complete_from"),
        ("POST", "/organization/reconcile?apply=TRUE", None, "apply"),
        ("POST", "/chat/completions", {"cope": {"tau1": "1e999999999"}}, "cope.tau1"),
        ("POST", "/chat/completions", {"cope": {"max_cost_usd": "1e999999"}}, "cope.max_cost_usd"),
        ("POST", "/chat/completions", {"stream": "yes"}, "stream"),
        ("POST", "/chat/completions", {"stream": True, "stream_options": {"include_usage": 1}}, USAGE),
        ("POST", "/organization/projects", {"name": "x", "cope": {"audit": {"share": "1e99999999"}}}, SHARE),
        ("POST", "/organization/projects", {"name": "x", "cope": []}, "cope"),
    ],
)
def test_an_odd_number_is_refused_by_its_name(
    service: Whole, method: str, path: str, body: dict[str, object] | None, param: str
) -> None:
    question = {"model": "cope", "messages": [{"role": "user", "content": "2 + 3?"}]}
    whole = body if body is None or "name" in body else {**question, **body}
    if path.startswith("/organization/projects/me"):
        path = path.replace("/organization/projects/me", f"/organization/projects/{own_project(service)}")
    status, error, _ = ask(service, method, path, whole)

    assert (status, error["param"]) == (400, param)


def own_project(service: Whole) -> str:
    request = urllib.request.Request(service.url + "/limits", headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request) as answer:
        return str(json.loads(answer.read())["project_id"])


def test_a_method_that_a_path_does_not_have_is_answered_with_those_it_has(service: Whole) -> None:
    status, error, headers = ask(service, "PATCH", "/batches/batch_1/spend_limit")

    assert (status, error["code"], headers["allow"]) == (405, "method_not_allowed", "DELETE, GET, POST")
