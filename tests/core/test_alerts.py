"""When an alert fires and when it may fire again, as tables; all amounts are nano-dollars."""

from datetime import UTC, datetime

import pytest

from cope.core.alerts import AlertKind, SpendAlert, Standing, fires, rearms
from cope.core.ids import AlertId, ProjectId
from cope.core.money import NanoUSD
from cope.core.projection import Projection, Rate
from cope.core.records import Budget

PROJECT = ProjectId("proj_1")
AMOUNT, PERCENT, PROJECTED = AlertKind.AMOUNT, AlertKind.PERCENT, AlertKind.PROJECTED
OCT, NOV = "2026-10", "2026-11"


def alert(kind: AlertKind, threshold: int | None, *, fired: str | None = None, at: int | None = None) -> SpendAlert:
    return SpendAlert(
        id=AlertId("alert_1"),
        project_id=PROJECT,
        kind=kind,
        threshold=threshold,
        recipients=(),
        subject_prefix=None,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        fired_month=fired,
        fired_threshold=None if at is None else NanoUSD(at),
    )


def budget(cap: int | None, spent: int, *, reserved: int = 0, unconfirmed: int = 0, overrun: int = 0) -> Budget:
    return Budget(
        PROJECT,
        "project",
        "2026-11",
        None if cap is None else NanoUSD(cap),
        NanoUSD(spent),
        NanoUSD(reserved),
        NanoUSD(unconfirmed),
        NanoUSD(overrun),
    )


def heading_for(total: int) -> Projection:
    return Projection(NanoUSD(total), NanoUSD(0), NanoUSD(0), NanoUSD(0), Rate.NONE)


@pytest.mark.parametrize(
    ("one", "standing", "due"),
    [
        pytest.param(alert(AMOUNT, 500), Standing(budget(None, 499)), False, id="below an amount"),
        pytest.param(alert(AMOUNT, 500), Standing(budget(None, 500)), True, id="at an amount, without a cap"),
        pytest.param(alert(PERCENT, 80), Standing(budget(1_000, 799)), False, id="below a percentage"),
        pytest.param(alert(PERCENT, 80), Standing(budget(1_000, 800)), True, id="at a percentage"),
        pytest.param(alert(PERCENT, 50), Standing(budget(3, 1)), False, id="half of 3 is rounded up"),
        pytest.param(alert(PERCENT, 50), Standing(budget(3, 2)), True, id="to 2"),
        pytest.param(alert(PERCENT, 80), Standing(budget(None, 10**15)), False, id="a percentage of no cap"),
        pytest.param(alert(PERCENT, 80), Standing(budget(0, 0)), False, id="nothing spent of a cap of nothing"),
        pytest.param(alert(PERCENT, 80), Standing(budget(0, 1)), True, id="something spent of a cap of nothing"),
        pytest.param(alert(PERCENT, 80), Standing(budget(1_000, 0, reserved=1_000)), False, id="reserves come back"),
        pytest.param(alert(PERCENT, 80), Standing(budget(1_000, 700, unconfirmed=100)), True, id="doubt may be billed"),
        pytest.param(alert(PERCENT, 150), Standing(budget(1_000, 1_000, overrun=500)), True, id="an overrun counts"),
        pytest.param(alert(PERCENT, 100), Standing(budget(1_000, 950), exhausted=True), True, id="exhausted: the cap"),
        pytest.param(alert(AMOUNT, 1_000), Standing(budget(1_000, 950), exhausted=True), True, id="also as an amount"),
        pytest.param(alert(PERCENT, 99), Standing(budget(1_000, 950), exhausted=True), False, id="and nothing below"),
        pytest.param(alert(PERCENT, 80, fired=NOV), Standing(budget(1_000, 900)), False, id="once a month"),
        pytest.param(alert(PERCENT, 80, fired=OCT), Standing(budget(1_000, 900)), True, id="every month"),
        pytest.param(
            alert(PROJECTED, None), Standing(budget(1_000, 0), projection=heading_for(1_000)), False, id="fits"
        ),
        pytest.param(
            alert(PROJECTED, None), Standing(budget(1_000, 0), projection=heading_for(1_001)), True, id="over"
        ),
        pytest.param(alert(PROJECTED, None), Standing(budget(None, 0)), False, id="no cap, no overrun"),
    ],
)
def test_an_alert_is_due_when_its_sum_is_reached_and_only_once_a_month(
    one: SpendAlert, standing: Standing, due: bool
) -> None:
    assert fires(one, standing) is due


@pytest.mark.parametrize(
    ("one", "before", "now", "armed"),
    [
        pytest.param(alert(PERCENT, 80, fired=NOV, at=800), 1_000, budget(2_000, 800), True, id="raised above"),
        pytest.param(alert(PERCENT, 80, fired=NOV, at=800), 1_000, budget(1_100, 950), False, id="still crossed"),
        pytest.param(alert(PERCENT, 80, fired=NOV, at=800), 1_000, budget(1_000, 800), False, id="the same cap"),
        pytest.param(alert(PERCENT, 80, fired=NOV, at=800), 1_000, budget(500, 800), False, id="lowered"),
        pytest.param(alert(PERCENT, 100, fired=NOV, at=1_000), 1_000, budget(900, 950), False, id="exhausted, lowered"),
        pytest.param(alert(PERCENT, 80, fired=NOV, at=800), 1_000, budget(None, 800), True, id="no cap any more"),
        pytest.param(alert(PERCENT, 80, fired=OCT, at=800), 1_000, budget(2_000, 800), False, id="armed already"),
        pytest.param(alert(AMOUNT, 500, fired=NOV, at=500), 1_000, budget(2_000, 600), False, id="an amount stays"),
        pytest.param(alert(PROJECTED, None, fired=NOV, at=1_000), 1_000, budget(1_001, 0), True, id="ahead: raised"),
        pytest.param(alert(PROJECTED, None, fired=NOV, at=1_000), 1_000, budget(1_000, 0), False, id="ahead: same"),
        pytest.param(alert(PROJECTED, None, fired=NOV, at=1_000), 1_000, budget(None, 0), True, id="ahead: no cap"),
        pytest.param(alert(PROJECTED, None, fired=NOV, at=1_000), None, budget(900, 0), False, id="ahead: a cap again"),
    ],
)  # fmt: skip
def test_a_raised_cap_arms_what_now_lies_ahead(one: SpendAlert, before: int | None, now: Budget, armed: bool) -> None:
    assert rearms(one, None if before is None else NanoUSD(before), now) is armed
