"""Headers that carry something in, and those that every answer carries out."""

import json

import pytest

from tests.attacks.place import ADMIN, Attacked, routes_of

pytestmark = pytest.mark.integration

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "strict-transport-security": "max-age=60; includeSubDomains",
}
# A page for people: its own styles are in it, and nothing else is allowed.
DOCS_POLICY = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
}


def test_every_answer_carries_the_security_headers(attacked: Attacked) -> None:
    asked = [
        (method, attacked.fill(template), key)
        for method, template in routes_of(attacked.app)
        for key in _keys(attacked)
    ]
    asked += [("GET", "/nothing", None), ("PUT", "/v1/files", None), ("TRACE", "/health", None), ("GET", "/%00", None)]
    for method, target, key in asked:
        if target == "/v1/chat/completions" or method == "DELETE" or target.endswith(("/archive", "/cancel")):
            continue
        patience = "?timeout=0" if target.endswith("/wait") else ""
        answer = attacked.send(method, target + patience, None if method == "GET" else b"[]", key=key)
        assert answer.status < 500, (method, target, answer.body[:200])
        policy = DOCS_POLICY if (method, target) == ("GET", "/docs") else {}
        assert {name: answer.headers.get(name) for name in ALWAYS} == {**ALWAYS, **policy}, (method, target)
        assert "server" not in answer.headers


def _keys(attacked: Attacked) -> tuple[str | None, ...]:
    return (None, attacked.victim.key, ADMIN)


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer \xff\xfe"),
        ("x-stainless-retry-count", "\xb2"),
        ("x-stainless-retry-count", "9" * 5000),
        ("idempotency-key", ""),
        ("idempotency-key", "k" * 256),
        ("openai-project", "\xff"),
        ("accept", "text/plain;" * 500),
        ("content-type", "application/json; charset=utf-16"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-http-method-override", "DELETE"),
        ("range", "bytes=0-0,1-1" + ",2-2" * 1000),
        ("if-none-match", "*"),
        ("expect", "100-continue"),
        ("upgrade", "websocket"),
        ("cookie", "a=b; " * 1000),
    ],
)
def test_an_odd_header_never_breaks_the_server(attacked: Attacked, header: tuple[str, str]) -> None:
    for target in ("/v1/batches", "/v1/usage", "/v1/files", "/v1/webhook_endpoints"):
        for method, body in (("GET", None), ("POST", b"{}")):
            answer = attacked.send(method, target, body, key=attacked.victim.key, headers=[header])
            assert answer.status < 500, (method, target, answer.body)
            if answer.status >= 400:
                answer.refused()


@pytest.mark.parametrize(
    "host", ["[", "evil.example.com/x", "a b", "a@b", "a:99999999", "\xff", "a\\b", "[::1]x", "http://a"]
)
def test_a_host_that_is_none_is_refused_and_never_repeated(attacked: Attacked, host: str) -> None:
    for target in ("/health", "/nothing", "/v1/files"):
        answer = attacked.send("GET", target, headers=[("host", host)])
        assert answer.refused(400)["code"] == "invalid_host"
        assert b"evil.example.com" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "api.example.com:8443", "127.0.0.1:80", "[::1]:8000", "a_b", ""])
def test_an_ordinary_host_is_served(attacked: Attacked, host: str) -> None:
    assert attacked.send("GET", "/health", headers=[("host", host)]).status == 200


def test_nobody_is_sent_to_another_address(attacked: Attacked) -> None:
    for target in ("/v1/files/", "//evil.example.com/v1/files", "/v1//files", "/v1/batches/"):
        answer = attacked.send("GET", target, key=attacked.victim.key, headers=[("host", "evil.example.com")])
        answer.refused(404)
        assert "location" not in answer.headers


def test_a_callers_own_request_id_is_never_repeated(attacked: Attacked) -> None:
    forged = [("x-request-id", "req_forged"), ("x-client-request-id", "req_forged")]
    answer = attacked.send("GET", "/v1/files", key=attacked.victim.key, headers=forged)
    assert answer.headers["x-request-id"].startswith("req_")
    assert "forged" not in str(answer.headers) + answer.body.decode()


@pytest.mark.parametrize("name", ["authorization", "content-type", "idempotency-key"])
def test_a_header_that_decides_something_is_there_once(attacked: Attacked, name: str) -> None:
    twice = [(name, "a"), (name, "b")]
    assert attacked.send("GET", "/v1/files", headers=twice).refused(400)["code"] == "duplicate_header"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("x-filler", "x" * 40_000)], 431),
        ([(f"x-{number}", "x") for number in range(150)], 431),
    ],
)
def test_headers_without_measure_are_refused(attacked: Attacked, headers: list[tuple[str, str]], status: int) -> None:
    assert attacked.send("GET", "/health", headers=headers).status == status


def test_an_address_without_measure_is_refused(attacked: Attacked) -> None:
    attacked.send("GET", "/v1/files?after=" + "x" * 9000, key=attacked.victim.key).refused(414)
    attacked.send("GET", "/" + "x" * 9000).refused(414)


@pytest.mark.parametrize(
    "text", ["a\r\nX-Injected: 1", "a\nX-Injected: 1", "\r\n\r\n<script>", "a\u2028b", "\u202e", "a\x85b"]
)
def test_what_a_caller_names_things_never_becomes_a_header(attacked: Attacked, text: str) -> None:
    key = attacked.victim.key
    batch = {
        "input_file_id": attacked.victim.ids["file_id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"a": text, text[:60]: "b"},
    }
    made = attacked.send("POST", "/v1/batches", json.dumps(batch).encode(), key=key)
    hook = {"url": "https://example.com/", "name": text}
    for answer in (
        made,
        attacked.send("GET", f"/v1/batches/{made.json['id']}", key=key),
        attacked.send("POST", "/v1/webhook_endpoints", json.dumps(hook).encode(), key=key),
        attacked.send("GET", "/v1/webhook_endpoints", key=key),
    ):
        assert answer.status == 200, answer.body
        assert "x-injected" not in answer.headers
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "target",
    ["/%0a2026-11-25%20CRITICAL%20cope:%20all%20is%20lost", "/v1/files/%0d%0a2026%20ERROR", "/%1b[2J", "/%e2%80%a8x"],
)
def test_no_line_of_the_log_is_a_callers(attacked: Attacked, target: str) -> None:
    said = len(attacked.log.getvalue())
    attacked.send("GET", target, key=attacked.victim.key).refused(404)
    attacked.app.state.parts, parts = None, attacked.app.state.parts
    try:
        failed = attacked.send("GET", f"/v1/models{target}", key=attacked.victim.key)
    finally:
        attacked.app.state.parts = parts

    assert failed.status in {404, 500}
    assert failed.error["code"] in {"internal", "unknown_url"}
    for line in attacked.log.getvalue()[said:].split("\n"):
        assert line == "" or " ERROR " in line or line.startswith("  | "), line
        assert "\x1b" not in line
        assert len(line.splitlines()) <= 1
