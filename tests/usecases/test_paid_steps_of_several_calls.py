"""A paid step of several calls has one reserve: what one call's failure says of it must not forget the others."""

import asyncio
from dataclasses import replace

import pytest

from cope.core.budget import settle as bill_of
from cope.core.errors import ModelError, ModelOverloaded, ModelRateLimited, ModelUnreachable
from cope.core.lifecycle import BatchStatus
from cope.core.models import ModelCatalog
from cope.core.money import NanoUSD, TokenUsage
from cope.core.prompts import BUILT_IN
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.finalise import finalise_next
from tests.usecases.test_pipeline import (
    LARGE,
    LEASE_S,
    PRICE,
    SMALL,
    USAGE,
    Parts,
    current,
    make_parts,
    says,
    settle,
    submit,
)

ONE = PRICE.cost(USAGE)
THREE = (
    '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "large-one", "n": 3,'
    ' "messages": [{"role": "user", "content": "2 + 3?"}]}}'
)


def asking_three(fails: ModelError) -> Parts:
    """Of three calls of one line two are answered; the third then fails once."""
    failed = False

    async def script(request: ChatRequest) -> ChatAnswer:
        nonlocal failed
        if request.request_id.endswith("002x") and not failed:
            failed = True
            await asyncio.sleep(0.01)
            raise fails
        return says("\\boxed{5}")

    parts = make_parts(script)
    large = replace(LARGE, name="large-one", served_name="large-one")
    catalog = ModelCatalog({"small": SMALL, "large": LARGE, "large-one": large}, "small", "large", BUILT_IN)
    return replace(parts, catalog=catalog)


async def test_a_refused_call_leaves_the_answered_ones_of_its_step_paid_for() -> None:
    parts = asking_three(ModelRateLimited("slow down", answered=True, retry_after_s=0.0))
    batch = await submit(parts, THREE)
    await settle(parts)
    parts.clock.advance(30)
    await settle(parts)

    assert (await current(parts, batch)).done == 1
    budget = await parts.store.get_budget(batch.project_id)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (2 * ONE + 3 * ONE, 0, 0)


@pytest.mark.parametrize("fails", [ModelOverloaded("no answer in time"), ModelUnreachable("reset", sent=True)])
async def test_an_unanswered_call_keeps_the_whole_reserve_of_its_step_in_doubt(fails: ModelError) -> None:
    parts = asking_three(fails)
    batch = await submit(parts, THREE)
    await settle(parts)
    await parts.store.sweep(lease_s=LEASE_S)

    budget = await parts.store.get_budget(batch.project_id)
    assert budget.unconfirmed > 3 * ONE


async def test_a_call_that_never_left_frees_nothing_that_its_neighbours_have_spent() -> None:
    parts = asking_three(ModelUnreachable("refused", sent=False))
    batch = await submit(parts, THREE)
    await settle(parts)
    parts.clock.advance(30)
    await settle(parts)

    budget = await parts.store.get_budget(batch.project_id)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (5 * ONE, 0, 0)


async def test_calls_given_up_once_a_vote_is_decided_are_not_taken_for_free() -> None:
    async def script(request: ChatRequest) -> ChatAnswer:
        if request.request_id.endswith(("006x", "007x")):
            await asyncio.sleep(30)
        return says("\\boxed{5}")

    parts = make_parts(script)
    small = replace(SMALL, price_id="p")
    parts = replace(parts, catalog=ModelCatalog({"small": small, "large": LARGE}, "small", "large", BUILT_IN))
    batch = await submit(
        parts,
        '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "cope@0.75,0.5",'
        ' "messages": [{"role": "user", "content": "2 + 3?"}], "cope": {"p1_star": "arrived"}}}',
    )
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)

    assert (await current(parts, batch)).status is BatchStatus.COMPLETED
    assert len(parts.model.aborted) == 2
    (task,) = (await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=1)).items
    (attempt,) = task.attempts
    answered = 14 * ONE  # eight plans and six solutions
    assert attempt.flag == "calls_given_up"
    assert attempt.cost == min(attempt.reserved, answered + -(-2 * attempt.reserved // 8))


def test_no_bill_of_given_up_calls_exceeds_the_reserve() -> None:
    usage = TokenUsage(prompt=20, completion=10, calls=7)
    bill = bill_of(PRICE, usage, NanoUSD(200_000), open_calls=8, chains=8)

    assert (bill.cost, bill.overrun, bill.flag) == (200_000, 0, "calls_given_up")
