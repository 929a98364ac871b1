"""Costs as sums: days, stages, groupings, receipts."""

from datetime import UTC, date, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.ids import BatchId, KeyId, ProjectId
from cope.core.ledger import CostKind, CostRow, Cut, charged_day, merged, stage_of, total_of, with_stages
from cope.core.money import NanoUSD, TokenUsage
from cope.core.receipt import Receipt, receipt_text
from cope.core.records import Budget

ROWS = st.lists(
    st.builds(
        CostRow,
        kind=st.sampled_from(CostKind),
        amount=st.integers(-(10**12), 10**15).map(NanoUSD),
        attempts=st.integers(0, 9),
        usage=st.builds(TokenUsage, st.integers(0, 99), st.just(0), st.integers(0, 99), st.just(0), st.integers(0, 9)),
        day=st.sampled_from([date(2026, 11, 1), date(2026, 11, 2)]),
        project_id=st.sampled_from([ProjectId("proj_1"), ProjectId("proj_2")]),
        key_id=st.sampled_from([None, KeyId("key_1")]),
        batch_id=st.sampled_from([None, BatchId("batch_1"), BatchId("batch_2")]),
        model=st.sampled_from([None, "large"]),
        step=st.sampled_from([None, "stage2-plan", "stage2-execute", "stage3", "call"]),
    ),
    max_size=30,
)


@given(ROWS)
def test_merging_and_stages_keep_every_sum(rows: list[CostRow]) -> None:
    for found in (merged(rows), with_stages(rows), with_stages(rows, steps_too=True)):
        assert total_of(found) == total_of(rows)
        for kind in CostKind:
            assert total_of(found, kind) == total_of(rows, kind)
        assert sum(row.attempts for row in found) == sum(row.attempts for row in rows)
        assert sum((row.usage for row in found), TokenUsage()) == sum((row.usage for row in rows), TokenUsage())
        assert len({row.place for row in found}) == len(found)


@given(
    begun=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin", "America/St_Johns"]),
    other=st.integers(-400, 400),
)
def test_a_charged_day_lies_in_its_month_whatever_the_zone_is_by_now(begun: datetime, zone: str, other: int) -> None:
    month = f"{begun + timedelta(days=other):%Y-%m}"

    day = charged_day(begun, zone, month)

    assert f"{day:%Y-%m}" == month


@pytest.mark.parametrize(
    ("begun", "zone", "day"),
    [
        ("2026-11-02T12:00", "UTC", date(2026, 11, 2)),
        ("2026-11-02T12:00", "Pacific/Kiritimati", date(2026, 11, 3)),
        ("2026-11-30T23:00", "Pacific/Kiritimati", date(2026, 11, 30)),
        ("2026-10-31T23:59", "UTC", date(2026, 11, 1)),
    ],
)
def test_a_day_is_the_one_of_the_reservation_in_the_projects_zone(begun: str, zone: str, day: date) -> None:
    assert charged_day(datetime.fromisoformat(begun).replace(tzinfo=UTC), zone, "2026-11") == day


def test_a_step_belongs_to_the_stage_that_it_is_named_after() -> None:
    steps = ["stage1", "stage2-plan", "stage2-execute", "stage3", "call", "solve"]

    assert [stage_of(step) for step in steps] == ["stage1", "stage2", "stage2", "stage3", "call", "solve"]


def test_every_pair_of_cuts_has_a_name_of_its_own() -> None:
    assert all(one.value != other.value for one, other in combinations(Cut, 2))


def test_a_receipt_reads_as_a_table_with_its_sums() -> None:
    budget = Budget(
        project_id=ProjectId("proj_1"),
        scope="project",
        month="2026-11",
        cap=NanoUSD(5_000_000_000),
        spent=NanoUSD(1_500_000_001),
        reserved=NanoUSD(0),
        unconfirmed=NanoUSD(250_000_000),
        overrun=NanoUSD(7),
    )
    large = TokenUsage(12_000, 2_000, 3_400, 0, 12)
    receipt = Receipt(
        about="project",
        project_id="proj_1",
        project_name="team-a",
        period="2026-11",
        time_zone="UTC",
        made_at=datetime(2026, 12, 1, 9, 30, tzinfo=UTC),
        final=False,
        lines=(
            CostRow(
                CostKind.CALLS, NanoUSD(500_000_001), 12, large, model="gpt", stage="stage3", price_version="2026-05"
            ),
            CostRow(CostKind.EXTERNAL, NanoUSD(1_000_000_000)),
            CostRow(CostKind.OVERRUN, NanoUSD(7), model="gpt", stage="stage3", price_version="2026-05"),
        ),
        budget=budget,
    )

    assert (receipt.total, receipt.difference, receipt.price_versions) == (1_500_000_008, 0, ("2026-05",))
    assert receipt_text(receipt) == (
        "Receipt · project · 2026-11\n"
        "Project team-a (proj_1) · days and months in UTC\n"
        "Made 2026-12-01 09:30:00 UTC · not final: see below\n"
        "\n"
        "what          stage   calls  prompt  cached  output  price            USD\n"
        "gpt, calls    stage3     12  12,000   2,000   3,400  2026-05  0.500000001\n"
        "external                                                             1.00\n"
        "gpt, overrun  stage3                                 2026-05  0.000000007\n"
        "\n"
        "Calls                                                   $0.500000001\n"
        "External                                                $       1.00\n"
        "Overrun (billed beyond a reserve)                       $0.000000007\n"
        "TOTAL                                                   $1.500000008\n"
        "Unconfirmed: sent, outcome unknown (not in the total)   $       0.25\n"
        "1500000008 nano-dollars; the budget differs by 0\n"
        "Cap $5.00\n"
    )
