"""No endpoint shows or changes another project's things. Every route has its case: a new one without fails here."""

import json
from dataclasses import dataclass

import pytest

from cope_api.scopes import is_listed, needed
from tests.attacks.place import ADMIN, CANARY, OPEN, Attacked, routes_of

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Case:
    """What a stranger's key sends to a route with the victim's ids in it.

    `status` is what it must get: a refusal, or 200 for what shows the caller its own (then nothing of the victim's may
    be in it). `body` and `queries` may hold `{…}` ids of the victim's too.
    """

    status: tuple[int, ...]
    body: str | None = None
    queries: tuple[str, ...] = ("",)
    why: str = ""


def hidden(body: str | None = None, *queries: str) -> Case:
    """Another project's thing: as if it were not there."""
    return Case((404,), body, queries or ("",))


def operators(body: str | None = "{}") -> Case:
    """Takes the admin key."""
    return Case((403,), body)


def own(*queries: str) -> Case:
    """Shows the caller's own, whatever the query names."""
    return Case((200,), None, queries or ("",))


_LIMIT = '{"threshold_amount": 1}'
_P = "/v1/organization/projects/{project_id}"

CASES: dict[str, Case] = {
    "GET /v1/models": own(),
    "GET /v1/models/{name:path}": own(),
    # files
    "POST /v1/files": Case((400,), "no form", why="names nobody's things"),
    "GET /v1/files": own("", "after={file_id}", "after=file-&order=asc&purpose=batch"),
    "GET /v1/files/{file_id}": hidden(),
    "GET /v1/files/{file_id}/content": hidden(),
    "DELETE /v1/files/{file_id}": hidden(),
    # batches
    "POST /v1/batches": Case(
        (400,),
        '{"input_file_id": "{file_id}", "endpoint": "/v1/chat/completions", "completion_window": "24h"}',
        why="a file of another project is one that is not there",
    ),
    "GET /v1/batches": own("", "after={batch_id}", "limit=100"),
    "GET /v1/batches/{batch_id}": hidden(),
    "POST /v1/batches/{batch_id}/cancel": hidden("{}"),
    "POST /v1/batches/{batch_id}/hold": hidden("{}"),
    "POST /v1/batches/{batch_id}/pause": hidden("{}"),
    "POST /v1/batches/{batch_id}/resume": hidden("{}"),
    "POST /v1/batches/{batch_id}/requests": hidden('{"requests": [{"custom_id": "a", "body": {}}]}'),
    "POST /v1/batches/{batch_id}/seal": hidden("{}"),
    "POST /v1/batches/{batch_id}/retry": hidden("{}"),
    "GET /v1/batches/{batch_id}/results": hidden(),
    "GET /v1/batches/{batch_id}/wait": hidden(None, "timeout=0"),
    "GET /v1/batches/{batch_id}/tasks": hidden(None, "", "status=ready", "after={task_id}"),
    "GET /v1/batches/{batch_id}/receipt": hidden(),
    "GET /v1/batches/{batch_id}/spend_limit": hidden(),
    "POST /v1/batches/{batch_id}/spend_limit": hidden('{"max_cost_usd": "9"}'),
    "DELETE /v1/batches/{batch_id}/spend_limit": hidden(),
    "GET /v1/tasks/{task_id}": hidden(),
    "GET /v1/audits": own("", "batch_id={batch_id}", "after={task_id}"),
    "POST /v1/chat/completions": Case((400,), '{"model": "cope"}', why="names nobody's things"),
    # webhooks
    "POST /v1/webhook_endpoints": Case((400,), '{"url": "http://[::1]/"}', why="names nobody's things"),
    "GET /v1/webhook_endpoints": own("", "after={endpoint_id}"),
    "GET /v1/webhook_endpoints/{endpoint_id}": hidden(),
    "DELETE /v1/webhook_endpoints/{endpoint_id}": hidden(),
    "GET /v1/webhook_event_types": own(),
    "POST /v1/webhook_endpoints/{endpoint_id}": hidden('{"name": "taken"}'),
    "POST /v1/webhook_endpoints/{endpoint_id}/rotate_secret": hidden("{}"),
    "POST /v1/webhook_endpoints/{endpoint_id}/test": hidden('{"event_type": "batch.completed"}'),
    "POST /v1/webhook_endpoints/{endpoint_id}/redeliver": hidden('{"since": 0, "only_failed": false}'),
    "GET /v1/webhook_endpoints/{endpoint_id}/deliveries": hidden(),
    "GET /v1/webhook_deliveries": own("", "status=dead"),
    "GET /v1/webhook_deliveries/{delivery_id}": hidden(),
    "POST /v1/webhook_deliveries/{delivery_id}/redeliver": hidden("{}"),
    # events
    "GET /v1/event_types": own(),
    "GET /v1/events": own("", "batch_id={batch_id}", "types=batch.*"),
    "GET /v1/event_consumers": own(),
    "PUT /v1/event_consumers/{group}": Case((400,), '{"start": 5}', why="names nobody's things"),
    "GET /v1/event_consumers/{group}": hidden(),
    "DELETE /v1/event_consumers/{group}": hidden(),
    "GET /v1/event_consumers/{group}/records": hidden(),
    "POST /v1/event_consumers/{group}/offsets": hidden('{"offset": "0"}'),
    "POST /v1/event_consumers/{group}/positions": hidden('{"offset": "end"}'),
    "GET /v1/event_dead_letters": own(""),
    "GET /v1/event_dead_letters/{delivery_id}": hidden(),
    "POST /v1/event_dead_letters/replay": Case((200,), '{"all": true}', why="its own only"),
    "POST /v1/event_dead_letters/{delivery_id}/replay": hidden("{}"),
    # responses
    "POST /v1/responses": Case((400,), '{"model": "cope"}', why="names nobody's things"),
    "GET /v1/responses/{response_id}": hidden(),
    "POST /v1/responses/{response_id}/cancel": hidden("{}"),
    "DELETE /v1/responses/{response_id}": hidden(),
    # the operator's
    "GET /v1/organization/doctor": operators(None),
    "GET /v1/organization/retention": operators(None),
    "GET /v1/organization/restore": operators(None),
    "POST /v1/organization/restore/release": operators(),
    # money
    "GET /v1/limits": own(),
    "POST /v1/usage": Case((400,), '{"amount_usd": "1", "project_id": "{project_id}"}', why="names another project"),
    "GET /v1/usage": own(),
    "GET /v1/organization/costs": Case((403,), None, ("month=2026-11&project_ids={project_id}",)),
    "GET /v1/organization/ledger.csv": Case((403,), None, ("project_id={project_id}", "project_ids[]={project_id}")),
    "GET /v1/organization/ledger_check": Case((403,), None, ("project_id={project_id}",)),
    "GET /v1/organization/unconfirmed": Case((403,), None, ("project_id={project_id}",)),
    "POST /v1/organization/reconcile": operators("request_id,cost_usd\n"),
    "GET /v1/organization/prices": operators(None),
    "POST /v1/organization/prices": operators(),
    # projects and keys
    "POST /v1/organization/projects": operators('{"name": "x"}'),
    "GET /v1/organization/projects": operators(None),
    f"GET {_P}": operators(None),
    f"POST {_P}": operators('{"name": "taken"}'),
    f"POST {_P}/archive": operators(),
    f"POST {_P}/service_accounts": operators(),
    f"GET {_P}/api_keys": operators(None),
    f"GET {_P}/api_keys/{{key_id}}": operators(None),
    f"POST {_P}/api_keys/{{key_id}}/rotate": operators(),
    f"DELETE {_P}/api_keys/{{key_id}}": operators(None),
    f"GET {_P}/audit": operators(None),
    f"GET {_P}/receipts/{{month}}": operators(None),
    f"GET {_P}/spend_limit": operators(None),
    f"POST {_P}/spend_limit": operators(_LIMIT),
    f"DELETE {_P}/spend_limit": operators(None),
    f"GET {_P}/api_keys/{{key_id}}/spend_limit": operators(None),
    f"POST {_P}/api_keys/{{key_id}}/spend_limit": operators(_LIMIT),
    f"DELETE {_P}/api_keys/{{key_id}}/spend_limit": operators(None),
    f"POST {_P}/spend_alerts": operators(_LIMIT),
    f"GET {_P}/spend_alerts": operators(None),
    f"GET {_P}/spend_alerts/{{alert_id}}": operators(None),
    f"POST {_P}/spend_alerts/{{alert_id}}": operators(_LIMIT),
    f"DELETE {_P}/spend_alerts/{{alert_id}}": operators(None),
}

# Reports that a project's key may ask for itself, naming the victim's keys and batches.
ASIDE = [
    "/v1/organization/costs?month=2026-11&group_by=batch&batch_id={batch_id}",
    "/v1/organization/costs?month=2026-11&api_key_ids={key_id}&group_by=key",
    "/v1/organization/ledger.csv?month=all&batch_id={batch_id}",
    "/v1/organization/ledger.csv?month=all&api_key_ids[]={key_id}",
    "/v1/organization/ledger_check",
    "/v1/organization/unconfirmed",
]


def test_every_route_has_its_case(attacked: Attacked) -> None:
    served = {f"{method} {template}" for method, template in routes_of(attacked.app)}
    assert served - CASES.keys() - OPEN == set(), "say in CASES how a stranger attacks it, and what it must get"
    assert CASES.keys() - served == set()


@pytest.mark.parametrize("route", sorted(CASES))
def test_a_stranger_reaches_nothing_of_the_victims(attacked: Attacked, route: str) -> None:
    case, victim = CASES[route], attacked.victim
    method, _, template = route.partition(" ")
    before = attacked.rows(victim.ids["project_id"]), attacked.stored_files()

    for query in case.queries:
        target = attacked.fill(template) + (f"?{attacked.fill(query)}" if query else "")
        body = None if case.body is None else attacked.fill(case.body).encode()
        answer = attacked.send(method, target, body, key=victim.attacker)
        assert answer.status in case.status, (target, answer.status, answer.body)
        assert CANARY.encode() not in answer.body
        assert victim.key.encode() not in answer.body
        if answer.status != 200:
            answer.refused()
        else:
            asked = target + (case.body or "")
            assert [name for name, one in victim.ids.items() if one in answer.body.decode() and one not in asked] == []

    assert (attacked.rows(victim.ids["project_id"]), attacked.stored_files()) == before


@pytest.mark.parametrize("target", ASIDE)
def test_a_report_that_names_the_victims_things_shows_nothing_of_them(attacked: Attacked, target: str) -> None:
    answer = attacked.send("GET", attacked.fill(target), key=attacked.victim.attacker)

    assert answer.status == 200, answer.body
    assert CANARY.encode() not in answer.body
    assert b"0.5" not in answer.body  # the victim's reported spend


@pytest.mark.parametrize("route", sorted(CASES))
def test_without_a_key_or_with_a_wrong_one_every_route_is_closed(attacked: Attacked, route: str) -> None:
    method, _, template = route.partition(" ")
    body = None if method in {"GET", "DELETE"} else b"{}"
    for key in (None, "wrong", attacked.victim.key[:-1], attacked.victim.key.swapcase(), ADMIN[:-1]):
        told = attacked.send(method, attacked.fill(template), body, key=key).refused(401)
        assert told["code"] == "invalid_api_key"


def test_another_scheme_of_authorization_is_no_key(attacked: Attacked) -> None:
    key = attacked.victim.key
    for value in (key, f"Basic {key}", f"Token {key}", "Bearer", "Bearer ", f"Bearer {key} {key}", f'Bearer "{key}"'):
        attacked.send("GET", "/v1/files", headers=[("authorization", value)]).refused(401)


@pytest.mark.parametrize("route", sorted(route for route in CASES if CASES[route].status != (403,)))
def test_naming_the_victims_project_in_a_header_is_refused(attacked: Attacked, route: str) -> None:
    method, _, template = route.partition(" ")
    body = None if method in {"GET", "DELETE"} else b"{}"
    named = [("openai-project", attacked.victim.ids["project_id"])]

    told = attacked.send(method, attacked.fill(template), body, key=attacked.victim.attacker, headers=named)

    if told.status != 400:  # a body that is refused before anybody asks whose it is
        told.refused(403)


@pytest.mark.parametrize("route", sorted(CASES))
def test_a_key_without_the_scope_of_a_route_is_refused_by_its_name(
    attacked: Attacked, narrow_keys: dict[str, str], route: str
) -> None:
    method, _, template = route.partition(" ")
    assert is_listed(template), "say in cope_api/scopes.py which scope it needs"
    for scope in needed(method, template):
        other = "submit" if scope != "submit" else "read"
        body = None if method in {"GET", "DELETE"} else b"{}"
        told = attacked.send(method, attacked.fill(template), body, key=narrow_keys[other])
        error = told.refused(403)
        assert error["code"] in {"missing_scope", "insufficient_permissions"}
        if error["code"] == "missing_scope":
            assert f"`{scope}`" in error["message"]
            assert f"it has: {other}" in error["message"]


@pytest.fixture(scope="module")
def narrow_keys(attacked: Attacked) -> dict[str, str]:
    """The attacker's project has a key of each scope alone."""
    path = f"/v1/organization/projects/{attacked.victim.attacker_project}/service_accounts"
    keys = {}
    for scope in ("read", "submit", "files", "webhooks", "spend"):
        body = json.dumps({"name": scope, "cope": {"scopes": [scope]}}).encode()
        keys[scope] = attacked.send("POST", path, body, key=ADMIN).json["api_key"]["value"]
    return keys
