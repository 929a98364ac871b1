"""The short form of the spend campaign: a cap that binds, workers killed, a provider that bills answers nobody got."""

from pathlib import Path

import pytest

from tests.faults.spend import SpendCampaign

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.timeout(400)]


def test_under_kills_the_providers_books_never_pass_the_cap_and_our_ledger_equals_them(scratch: Path) -> None:
    campaign = SpendCampaign(scratch / "spend", lines=160, seed=7, cap=20_000_000, kill_every_s=1.5)
    try:
        seen = campaign.run()
    finally:
        campaign.close()

    assert seen.problems == []
    assert seen.kills >= 1
    assert seen.held_under_the_cap > 0
    assert seen.most_billed <= seen.cap
    assert seen.billed == seen.booked > seen.cap
