"""Ids that are none, wherever an address or a query takes one: a 4xx of the error shape, and nothing is touched."""

import re

import pytest

from tests.attacks.place import ADMIN, OPEN, Attacked, routes_of

pytestmark = pytest.mark.integration

PLACE = re.compile(r"\{(\w+)(?::path)?\}")
FORGED = {
    "another kind's prefix": "evt_01hzzzzzzzzzzzzzzzzzzzzzzz",
    "a name": "nothing",
    "going up": "..%2f..%2f..%2fetc%2fpasswd",
    "dots": "..",
    "NUL": "batch_%00",
    "a line break": "batch_1%0aX-Injected:%201",
    "carriage return": "batch_1%0d%0aX-Injected:%201",
    "bytes that are no UTF-8": "batch_%ff%fe",
    "a lone surrogate": "batch_%ed%a0%80",
    "digits of another script": "batch_%d9%a1%d9%a2%d9%a3",
    "SQL": "batch_1'%20OR%20'1'='1",
    "overlong": "batch_" + "0" * 4000,
    "a format": "%25s%25n",
    "turned writing": "batch_%e2%80%ae1",
}
CURSORS = ["batch_%00", "'%20OR%201=1--", "%ff%fe", "%0d%0aX:%201", "%ed%a0%80"]
LIMITS = [
    "0",
    "-1",
    "1e9",
    "9" * 400,
    "%d9%a1",
    "%c2%b2",
    "1%00",
    "0000000019999999",
    "",
    "1.5",
    "0x10",
    "%2b1",
    "true",
]


def test_a_forged_id_in_an_address_is_a_refusal(attacked: Attacked) -> None:
    before = attacked.rows(), attacked.stored_files()
    asked = 0
    for method, template in routes_of(attacked.app):
        for name in PLACE.findall(template):
            for about, forged in FORGED.items():
                place = re.compile(r"\{" + name + r"(?::path)?\}")
                target = attacked.fill(place.sub(lambda _, forged=forged: forged, template))  # type: ignore[misc]
                body = None if method in {"GET", "DELETE"} else b'{"threshold_amount": 1}'
                answer = attacked.send(method, target, body, key=_key_for(attacked, template))
                assert 400 <= answer.status < 500, (about, method, target[:200], answer.status, answer.body[:200])
                answer.refused()
                assert "x-injected" not in answer.headers
                asked += 1
    assert asked > 400
    assert (attacked.rows(), attacked.stored_files()) == before


@pytest.mark.parametrize("parameter", ["after", "batch_id", "status", "order", "limit"])
def test_a_forged_value_in_a_query_never_breaks_a_list(attacked: Attacked, parameter: str) -> None:
    values = ["0000000019999999", "%c2%b2"] if parameter == "limit" else CURSORS
    for method, template in routes_of(attacked.app):
        if method != "GET" or f"GET {template}" in OPEN:
            continue
        for value in values:
            patience = "&timeout=0" if template.endswith("/wait") else ""
            target = f"{attacked.fill(template)}?{parameter}={value}{patience}"
            answer = attacked.send("GET", target, key=_key_for(attacked, template))
            assert answer.status < 500, (target, answer.body[:200])
            if answer.status >= 400:
                answer.refused()


def _key_for(attacked: Attacked, template: str) -> str:
    return ADMIN if template.startswith("/v1/organization") else attacked.victim.key


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_a_small_whole_number_or_refused(attacked: Attacked, limit: str) -> None:
    for target in ("/v1/batches", "/v1/files", "/v1/webhook_endpoints", "/v1/usage", "/v1/audits"):
        told = attacked.send("GET", f"{target}?limit={limit}", key=attacked.victim.key).refused(400)
        assert told["param"] == "limit"


@pytest.mark.parametrize(
    "query",
    [
        "month=9999-12", "month=0000-01", "month=0001-01", "month=2026-13", "month=2026W01", "month=%d9%a2026-1",
        "start_time=9999999999&end_time=0", "start_time=99999999999999999999", "start_time=-1", "start_time=1e9",
        "start_time=%c2%b2", "month=2026-11&page=page_x", "month=2026-11&group_by=%00", "month=2026-11&bucket_width=1y",
        "month=2026-11&project_ids=%00", "month=2026-11&project_ids=" + ",".join("p" * 3 for _ in range(1500)),
    ],
)  # fmt: skip
def test_a_month_or_moment_that_is_none_is_refused(attacked: Attacked, query: str) -> None:
    for key in (attacked.victim.key, ADMIN):
        attacked.send("GET", f"/v1/organization/costs?{query}", key=key).refused(400, 403)


@pytest.mark.parametrize(
    "query",
    [
        "complete_from=9999-12-31T23:59:59-23:59&complete_until=0", "complete_from=0001-01-01T00:00:00%2B23:59",
        "complete_from=99999999999999&complete_until=%d9%a1", "apply=maybe", "complete_from=1&complete_until=",
        "complete_from=0001-01-01T00:00:00%2B23:59&complete_until=9999-12-31T23:59:59-23:59",
    ],
)  # fmt: skip
def test_a_span_that_is_none_is_refused(attacked: Attacked, query: str) -> None:
    target = f"/v1/organization/reconcile?{query}"
    attacked.send("POST", target, b"request_id,cost_usd\n", key=ADMIN, headers=[("content-type", "text/csv")]).refused()


@pytest.mark.parametrize(
    "month", ["9999-12", "0000-01", "2026-13", "2026-1", "..", "%00", "2026-11%0a", "%d9%a2026-11"]
)
def test_a_receipt_for_no_month_is_refused(attacked: Attacked, month: str) -> None:
    attacked.send("GET", f"/v1/organization/projects/me/receipts/{month}", key=attacked.victim.key).refused(400, 404)
