"""JSON that is none, or worse, to every endpoint that reads a body: refused in the error shape, nothing written."""

import json
from collections.abc import Iterator

import pytest

from tests.attacks.place import ADMIN, Attacked, routes_of

pytestmark = pytest.mark.integration

DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing at all that is JSON": b"<xml/>",
    "cut off": b'{"name": "a',
    "a list": b"[1, 2]",
    "a text": b'"text"',
    "null": b"null",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "bytes that are no UTF-8": b'{"name": "\xff\xfe"}',
    "a raw NUL": b'{"name": "a\x00b"}',
    "an escaped NUL": b'{"name": "a\\u0000b"}',
    "NUL in a key": b'{"na\\u0000me": "a"}',
    "NUL deep inside": b'{"metadata": {"a": ["b", {"c": "\\u0000"}]}}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a surrogate the wrong way round": b'{"name": "\\udc00\\ud800"}',
    "a lone surrogate as bytes": b'{"name": "\xed\xa0\x80"}',
    "deep lists": b'{"name": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "quite deep": b'{"name": ' + b"[" * 200 + b"]" * 200 + b"}",
    "quite deep in cope": b'{"cope": ' + b'{"a":' * 100 + b"1" + b"}" * 101,
    "a key twice": b'{"name": "a", "name": "b"}',
    "a key twice, once escaped": b'{"name": "a", "n\\u0061me": "b"}',
    "not a number": b'{"name": NaN}',
    "infinity": b'{"threshold_amount": Infinity}',
    "a huge exponent": b'{"threshold_amount": 1e999999999}',
    "a huge whole number": b'{"threshold_amount": ' + b"9" * 5000 + b"}",
    "a comment": b'{"name": "a" /* no */}',
    "a comma too much": b'{"name": "a",}',
    "a prototype": b'{"__proto__": {"admin": true}}',
    "an unknown key": b'{"is_admin": true}',
    "two values": b'{"name": "a"} {"name": "b"}',
}

VALUES: tuple[object, ...] = (
    None, True, -1, 2**63, 1.5, "", "a" * 20_000, "1e999999999", "\r\nX: 1", "٣", [], {}, [None] * 200,
)  # fmt: skip

FIELDS = {
    "POST /v1/batches": (
        *("input_file_id", "requests", "endpoint", "completion_window", "metadata", "output_expires_after", "cope"),
    ),
    "POST /v1/batches/{batch_id}/requests": ("requests",),
    "POST /v1/batches/{batch_id}/retry": ("lines", "custom_ids", "completion_window", "metadata", "cope"),
    "POST /v1/chat/completions": ("model", "messages", "n", "seed", "max_tokens", "temperature", "stop", "cope"),
    "POST /v1/webhook_endpoints": ("url", "name", "event_types"),
    "POST /v1/usage": ("amount_usd", "occurred_at", "model", "description", "id", "project_id"),
    "POST /v1/organization/projects": ("name", "cope"),
    "POST /v1/organization/prices": ("price_id", "input", "output", "effective_at", "prices", "days", "tier", "source"),
    "POST /v1/organization/projects/{project_id}/service_accounts": ("name", "cope"),
    "POST /v1/organization/projects/{project_id}/api_keys/{key_id}/rotate": ("overlap_seconds", "expires_at"),
    "POST /v1/organization/projects/{project_id}/spend_limit": ("threshold_amount", "cope"),
    "POST /v1/organization/projects/{project_id}/spend_alerts": ("threshold_amount", "cope", "notification_channel"),
    "POST /v1/batches/{batch_id}/spend_limit": ("max_cost_usd",),
}
REQUESTS = (
    "tau1", "tau2", "n", "seed", "temperatures", "max_cost_usd", "priority", "choices", "answer_pattern", "kind",
    "policy", "webhook_url", "dry_run", "audit_share", "order", "store", "open",
)  # fmt: skip
COPE_KEYS = {
    "POST /v1/batches": REQUESTS,
    "POST /v1/batches/{batch_id}/retry": REQUESTS,
    "POST /v1/chat/completions": REQUESTS,
    "POST /v1/organization/projects": ("time_zone", "audit", "default_kind", "paused"),
    "POST /v1/organization/projects/{project_id}/service_accounts": ("scopes", "expires_at"),
    "POST /v1/organization/projects/{project_id}/spend_limit": ("cap_usd",),
    "POST /v1/organization/projects/{project_id}/spend_alerts": ("percent", "projected", "threshold_usd"),
}


def posts(attacked: Attacked) -> Iterator[str]:
    """Every address that reads JSON: the others say so here."""
    for method, template in routes_of(attacked.app):
        if method not in {"GET", "HEAD", "DELETE"} and template not in {"/v1/files", "/v1/organization/reconcile"}:
            yield template


def keys_for(attacked: Attacked, template: str) -> tuple[str, ...]:
    return (ADMIN,) if template.startswith("/v1/organization") else (attacked.victim.key,)


# Take no body: whatever comes with them is not read.
BODILESS = {
    "/v1/batches/{batch_id}/cancel",
    "/v1/batches/{batch_id}/hold",
    "/v1/batches/{batch_id}/pause",
    "/v1/batches/{batch_id}/seal",
    "/v1/batches/{batch_id}/resume",
    "/v1/organization/projects/{project_id}/archive",
}


@pytest.mark.parametrize("about", sorted(BODIES))
def test_a_hostile_body_is_refused_everywhere_and_writes_nothing(attacked: Attacked, about: str) -> None:
    before = attacked.rows()
    for template in posts(attacked):
        if template in BODILESS:
            continue
        for key in keys_for(attacked, template):
            answer = attacked.send("POST", attacked.fill(template), BODIES[about], key=key)
            assert 400 <= answer.status < 500, (template, answer.status, answer.body[:300])
            answer.refused()
    assert attacked.rows() == before


@pytest.mark.parametrize("route", sorted(FIELDS))
def test_no_value_in_any_field_breaks_the_server(attacked: Attacked, route: str) -> None:
    method, _, template = route.partition(" ")
    fine = {
        "input_file_id": attacked.victim.ids["file_id"], "endpoint": "/v1/chat/completions", "completion_window": "24h",
    } if template == "/v1/batches" else {}  # fmt: skip
    bodies: list[dict[str, object]] = [{**fine, name: value} for name in FIELDS[route] for value in VALUES]
    if route in COPE_KEYS:
        ask: dict[str, object] = {}
        own: dict[str, object] = {}
        if template == "/v1/chat/completions":
            # A call that is right in everything would wait for workers, which are not here: this one lacks a price.
            ask, own = {"model": "cope", "messages": [{"role": "user", "content": "2+2?"}]}, {"large": "unpriced"}
        bodies += [{**fine, **ask, "cope": {**own, name: value}} for name in COPE_KEYS[route] for value in VALUES]
    (key,) = keys_for(attacked, template)
    for body in bodies:
        answer = attacked.send(method, attacked.fill(template), json.dumps(body).encode(), key=key)
        assert answer.status < 500, (template, str(body)[:300], answer.body[:300])
        if answer.status >= 400:
            answer.refused()


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(attacked: Attacked) -> None:
    key, huge = attacked.victim.key, 17 * 1024 * 1024
    told = [("content-length", str(huge)), ("content-type", "application/json")]
    attacked.send("POST", "/v1/batches", b"", key=key, headers=told).refused(413)
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    attacked.send(
        "POST", "/v1/batches", piece * 17 + b"0\r\n\r\n", key=key, headers=[("transfer-encoding", "chunked")]
    ).refused(413)


def test_an_amount_with_a_billion_digits_does_not_keep_the_server_busy(attacked: Attacked) -> None:
    for cope in ({"tau1": "1e999999999"}, {"tau2": "1e-999999999"}, {"max_cost_usd": "1e999999999"}):
        body = {"model": "cope", "messages": [{"role": "user", "content": "1?"}], "cope": cope}
        attacked.send("POST", "/v1/chat/completions", json.dumps(body).encode(), key=attacked.victim.key).refused(400)
