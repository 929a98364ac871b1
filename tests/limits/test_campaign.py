"""The campaign of `ops/campaigns/limiter.py`, short: real processes, a real Redis, an exact provider."""

from pathlib import Path

import pytest
from ops.campaigns.limiter import Plan, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def plan(**changes: object) -> Plan:
    usual = {
        "seconds": 20.0,
        "workers": 3,
        "rpm": 100,
        "tpm": None,
        "window_s": 10.0,
        "latency": "0.05:0.4",
        "rule": "reserve",
        "flush": False,
        "clients": True,
    }
    return Plan(**{**usual, **changes})  # type: ignore[arg-type]


def test_three_processes_use_what_a_provider_allows_and_are_not_refused(scratch: Path):
    result = run(plan(), scratch / "campaign")

    assert result.refused == 0
    # A window of ten seconds spends more on calls that may be a second late than one of sixty: 0.906 is all there is.
    assert result.binding >= 0.85


def test_a_flush_of_the_limiters_state_overshoots_by_no_more_than_a_burst(scratch: Path):
    result = run(plan(flush=True), scratch / "flushed")

    assert result.most_requests_in_a_window <= 101
