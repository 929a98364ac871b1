"""Where did the money go? Through the unmodified client, over plain HTTP and on the command line."""

import csv
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.admin.organization.usage_costs_response import UsageCostsResponse

from cope.core.records import ApiKey, Project
from tests.api.reports_place import ADMIN, Place, serving

DAY = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class Story:
    """Two projects that have spent, one of them with money in doubt."""

    place: Place
    one: Project
    key: ApiKey
    secret: str
    batch: str
    request: str
    other: Project


async def spend(place: Place) -> Story:
    one, key, secret = await place.project("one")
    batch, request = await place.paid(one, 1_250_000, key=key)
    await place.paid(one, 500, step="stage2-plan")
    await place.world.book_external(one, 2_000_000_000)
    other, _, _ = await place.project("other")
    await place.paid(other, 1_000_000, overrun=77)
    await place.doubtful(other, 900)
    return Story(place, one, key, secret, batch, request, other)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with serving() as place:
        yield place.run(spend(place))


def ask(story: Story, secret: str = ADMIN, **query: Any) -> UsageCostsResponse:
    with story.place.client(secret) as client:
        return client.admin.organization.usage.costs(start_time=DAY, **query)


def nano(page: UsageCostsResponse) -> list[tuple[int, str | None]]:
    """(nano-dollars, line item) of every result."""
    results: list[Any] = [result for bucket in page.data for result in bucket.results]
    return [(result.cope["amount_nanousd"], result.line_item) for result in results]


def plain(place: Place, path: str, *, secret: str | None = ADMIN, body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(place.url.removesuffix("/v1") + path, data=body)
    if secret is not None:
        request.add_header("authorization", f"Bearer {secret}")
    if body is not None:
        request.add_header("content-type", "text/csv")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_costs_parse_with_the_stock_client_and_are_exact_beside_its_numbers(story: Story) -> None:
    page = ask(story, project_ids=[story.one.id])

    (bucket,) = page.data
    assert (bucket.start_time, bucket.end_time, page.has_more, page.object) == (DAY, DAY + 86_400, False, "page")
    calls, external = bucket.results
    assert calls.object == external.object == "organization.costs.result"
    assert calls.amount is not None
    assert (calls.amount.value, calls.amount.currency) == (0.0012505, "usd")
    assert calls.cope["amount_usd"] == "0.0012505"
    assert nano(page) == [(1_250_500, None), (2_000_000_000, "external")]
    assert page.cope["time_zone"] == "UTC"


def test_all_projects_are_told_apart_and_what_is_open_is_told_beside(story: Story) -> None:
    page = ask(story, group_by=["project_id", "line_item"])

    found = {(r.project_id, r.line_item): r.cope["amount_nanousd"] for b in page.data for r in b.results}
    assert found == {
        (story.one.id, "large, calls"): 1_250_500,
        (story.one.id, "external"): 2_000_000_000,
        (story.other.id, "large, calls"): 1_000_000,
        (story.other.id, "large, overrun"): 77,
    }
    assert (page.cope["unconfirmed_nanousd"], page.cope["reserved_nanousd"]) == (900, 0)


@pytest.mark.parametrize(
    "group", ["project", "batch", "key", "model", "stage", "step", "day", "line_item", "api_key_id", "price_version"]
)
def test_every_grouping_comes_to_the_same_total(story: Story, group: str) -> None:
    total = 1_250_500 + 2_000_000_000 + 1_000_000 + 77

    assert sum(amount for amount, _ in nano(ask(story, group_by=[group]))) == total
    monthly = story.place.get("/organization/costs", month="2026-11", bucket_width="1mo", group_by=group)
    assert sum(r["cope"]["amount_nanousd"] for b in monthly["data"] for r in b["results"]) == total


def test_line_items_and_keys_filter(story: Story) -> None:
    assert nano(ask(story, line_items=["large, overrun"])) == [(77, "overrun")]
    named = ask(story, line_items=["large, overrun", "external"], group_by=["line_item"])
    assert nano(named) == [(77, "large, overrun"), (2_000_000_000, "external")]
    assert nano(ask(story, api_key_ids=[story.key.id])) == [(1_250_000, None)]


def test_buckets_page_through_days_with_and_without_costs(story: Story) -> None:
    seen, page = [], None
    while True:
        told = ask(story, end_time=DAY + 5 * 86_400, limit=2, **({"page": page} if page else {}))
        seen += [(bucket.start_time, len(bucket.results)) for bucket in told.data]
        page = told.next_page
        assert told.has_more == (page is not None)
        if page is None:
            break
    assert [start for start, _ in seen] == [DAY + 86_400 * number for number in range(5)]
    assert [count > 0 for _, count in seen] == [True, False, False, False, False]


def test_a_projects_key_sees_its_own_costs_only(story: Story) -> None:
    assert sum(amount for amount, _ in nano(ask(story, story.secret))) == 2_001_250_500
    with pytest.raises(openai.PermissionDeniedError):
        ask(story, story.secret, project_ids=[story.other.id])
    assert story.place.get("/organization/unconfirmed", story.secret)["data"] == []
    assert story.place.get("/organization/ledger_check", story.secret)["project_id"] == story.one.id
    status, text = plain(story.place, "/v1/organization/ledger.csv?month=all", secret=story.secret)
    assert status == 200
    assert {row["project_id"] for row in csv.DictReader(io.StringIO(text))} == {story.one.id}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "start_time"),
        ("?start_time=x", "start_time"),
        ("?start_time=-1", "start_time"),
        ("?start_time=99999999999", "start_time"),
        (f"?start_time={DAY}&end_time={DAY}", "end_time"),
        (f"?start_time={DAY}&group_by=user_id", "group_by"),
        (f"?start_time={DAY}&bucket_width=1h", "bucket_width"),
        (f"?start_time={DAY}&limit=181", "limit"),
        (f"?start_time={DAY}&page=page_x", "page"),
        ("?month=2026-13", "month"),
        ("?month=2026-11&start_time=1", "month"),
    ],
)
def test_a_question_that_can_not_be_answered_is_refused_by_its_parameter(story: Story, query: str, says: str) -> None:
    status, text = plain(story.place, f"/v1/organization/costs{query}")

    assert status == 400
    assert json.loads(text)["error"]["param"] == says


def test_days_and_months_are_those_of_the_projects_own_zone() -> None:
    with serving() as place:
        project, _, _ = place.run(place.project("ahead", time_zone="Pacific/Kiritimati"))
        place.run(place.paid(project, 5))
        page = place.get("/organization/costs", project_ids=project.id, month="2026-11")

        costly = [bucket for bucket in page["data"] if bucket["results"]]
        assert page["cope"]["time_zone"] == "Pacific/Kiritimati"
        # Noon in UTC on the 2nd is 02:00 on the 3rd there.
        assert [(bucket["cope"]["day"], bucket["start_time"]) for bucket in costly] == [("2026-11-03", DAY + 36_000)]


def test_the_ledger_as_csv_is_exact_and_complete(story: Story) -> None:
    status, text = plain(story.place, "/v1/organization/ledger.csv?month=2026-11")

    assert status == 200
    assert "\r\n" in text
    rows = list(csv.DictReader(io.StringIO(text)))
    counted = {"settled", "late", "external", "overrun"}
    assert sum(int(row["amount_nanousd"]) for row in rows if row["kind"] in counted) == 2_002_250_577
    (settled,) = [row for row in rows if row["kind"] == "settled" and row["batch_id"] == story.batch]
    assert (settled["amount_usd"], settled["price_version"], settled["provider_id"]) == (
        "0.00125",
        "2026-11-01",
        "chatcmpl-1",
    )
    assert story.request.startswith(settled["request_id"])
    assert (settled["calls"], settled["prompt_tokens"], settled["stage"]) == ("1", "20", "stage3")


def test_a_receipt_of_a_month_and_of_a_batch_add_up_and_can_be_read(story: Story) -> None:
    month = story.place.get(f"/organization/projects/{story.one.id}/receipts/2026-11")
    mine = story.place.get("/organization/projects/me/receipts/2026-11", story.secret)
    batch = story.place.get(f"/batches/{story.batch}/receipt", story.secret)

    assert month["total_nanousd"] == sum(line["amount_nanousd"] for line in month["lines"]) == 2_001_250_500
    assert (month["calls_nanousd"], month["external_nanousd"], month["ledger_difference_nanousd"]) == (
        1_250_500,
        2_000_000_000,
        0,
    )
    assert {**mine, "made_at": 0} == {**month, "made_at": 0}
    assert (month["calls"], month["prompt_tokens"], month["price_versions"]) == (2, 40, ["2026-11-01"])
    assert (batch["total_usd"], batch["ledger_difference_nanousd"], batch["final"]) == ("0.00125", 0, False)
    with pytest.raises(openai.PermissionDeniedError):
        story.place.get(f"/organization/projects/{story.other.id}/receipts/2026-11", story.secret)
    with pytest.raises(openai.BadRequestError):
        story.place.get(f"/organization/projects/{story.one.id}/receipts/november")


def test_the_unconfirmed_list_names_age_reserve_and_request(story: Story) -> None:
    page = story.place.get("/organization/unconfirmed")

    (item,) = page["data"]
    assert (item["reserved_nanousd"], item["model"], item["project_id"]) == (900, "large", story.other.id)
    assert item["age_s"] >= 1_000
    assert item["request_id"].startswith(item["task_id"])
    assert page["cope"]["by_age"][0] == {
        "age": "under 1h", "from_s": 0, "until_s": 3600, "attempts": 1, "reserved_usd": "0.0000009",
        "reserved_nanousd": 900,
    }  # fmt: skip


def test_the_check_is_zero_and_names_what_is_not(story: Story) -> None:
    assert story.place.get("/organization/ledger_check")["difference_nanousd"] == 0
    budget = story.place.world.store._db.budget(story.one.id)
    budget.spent += 3
    try:
        found = story.place.get("/organization/ledger_check")
        checked = story.place.cli("spend", "--check", "--all-projects")
    finally:
        budget.spent -= 3

    assert found["difference_nanousd"] == 3
    assert [(row["project_id"], row["scope"], row["spent_nanousd"]) for row in found["rows"]] == [
        (story.one.id, "project", 3)
    ]
    assert (checked.exit_code, "spent +3" in checked.stdout) == (1, True)
    assert story.place.cli("spend", "--check", "--all-projects").exit_code == 0


def metrics(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_metrics_tell_money_to_the_operator_only(story: Story) -> None:
    _, closed = plain(story.place, "/metrics", secret=None)
    status, _ = plain(story.place, "/metrics", secret="wrong")
    forbidden, _ = plain(story.place, "/metrics", secret=story.secret)
    _, text = plain(story.place, "/metrics")

    assert "cope_api_requests_total" in closed
    assert "nanousd" not in closed
    assert (status, forbidden) == (401, 403)
    found, other = metrics(text), f'project="{story.other.id}"'
    assert found[f'cope_budget_spent_nanousd{{{other},month="2026-11"}}'] == "1000000"
    assert found[f'cope_budget_overrun_nanousd{{{other},month="2026-11"}}'] == "77"
    assert found[f"cope_unconfirmed_nanousd{{{other}}}"] == "900"
    assert int(found[f"cope_oldest_unconfirmed_age_seconds{{{other}}}"]) >= 1_000
    assert found[f"cope_ledger_difference_nanousd{{{other}}}"] == "0"
    assert int(found["cope_ledger_check_age_seconds"]) >= 0


def test_metrics_can_be_opened_and_check_the_ledger_once_for_many_scrapes() -> None:
    with serving(metrics_open=True) as place:
        project, _, _ = place.run(place.project("open"))
        first = metrics(plain(place, "/metrics", secret=None)[1])
        place.world.store._db.budget(project.id).spent += 5
        second = metrics(plain(place, "/metrics", secret=None)[1])

    name = f'cope_ledger_difference_nanousd{{project="{project.id}"}}'
    assert (first[name], second[name]) == ("0", "0")
    assert second[f'cope_budget_spent_nanousd{{project="{project.id}",month="2026-11"}}'] == "5"


@pytest.mark.parametrize(
    ("by", "shows"),
    [
        ("project", "0.00100"), ("batch", "0.00125"), ("model", "2.00"), ("stage", "stage2"), ("step", "stage2-plan"),
        ("day", "2026-11-02"), ("key", "0.00125"), ("line_item", "large, calls"),
    ],
)  # fmt: skip
def test_the_command_line_tells_money_by_everything(story: Story, by: str, shows: str) -> None:
    told = story.place.cli("spend", "--by", by, "--month", "2026-11", "--all-projects")

    assert told.exit_code == 0, told.output
    assert shows.rstrip("0") in told.stdout
    assert "2.002250577" in told.stdout
    assert "unconfirmed $0.0000009" in told.stdout


def test_the_command_line_writes_tables_and_the_ledger_as_csv(story: Story, tmp_path: Path) -> None:
    table = story.place.cli("spend", "--by", "batch", "--month", "2026-11", "--csv", "-", secret=story.secret)
    file = tmp_path / "ledger.csv"
    whole = story.place.cli("spend", "--month", "2026-11", "--ledger", str(file), secret=story.secret, admin=False)

    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert {row["batch"]: row["amount_nanousd"] for row in rows if row["kind"] == "calls"}[story.batch] == "1250000"
    assert whole.exit_code == 0
    kept = list(csv.DictReader(io.StringIO(file.read_text(), newline="")))
    assert {row["kind"] for row in kept} == {"reserved", "settled", "external"}


def test_the_command_line_shows_doubt_and_receipts(story: Story) -> None:
    doubt = story.place.cli("spend", "--unconfirmed", "--all-projects")
    batch = story.place.cli("receipt", story.batch, secret=story.secret)
    month = story.place.cli("receipt", "--month", "2026-11", secret=story.secret, admin=False)

    assert "1 unconfirmed, $0.0000009 · under 1h: 1" in doubt.stdout
    assert "TOTAL" in batch.stdout
    assert "1250000 nano-dollars; the budget differs by 0" in batch.stdout
    assert "2001250500 nano-dollars; the budget differs by 0" in month.stdout
    assert all(len(line) <= 120 for line in month.stdout.splitlines())


def test_a_spend_without_the_admin_key_says_what_it_needs(story: Story) -> None:
    told = story.place.cli("spend", "--by", "project", secret=story.secret, admin=False)

    assert told.exit_code != 0
    assert "admin key" in str(told.exception)
