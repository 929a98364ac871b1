"""The shadow audit over both stores: made in the commit that accepts, asked last, paid apart, closed once."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cope.core.audit import Audit, AuditCounts, AuditState, Stratum, total
from cope.core.audit_sampling import WHOLE, Auditable, is_sampled
from cope.core.budget import AUDIT_SCOPE
from cope.core.errors import NotFound
from cope.core.history import FinishedStep
from cope.core.lifecycle import HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName
from cope.core.records import Batch, Project
from cope.core.stages import Stage, Step, Tier
from cope.core.task import StoreLevel
from cope.ports.store import ClaimedTask, CommitStatus, GiveBack, Granted, Refused, StepCommit
from tests.contracts import test_quotes
from tests.contracts.world import LEASE_S, World, accepted, bill, done, fails, goes_on
from tests.support import finished_step, make_spec, sample

CENT = NanoUSD(10_000_000)


def accepts(task: ClaimedTask, about: Auditable | None = None) -> StepCommit:
    return replace(done(task), audit=about or accepted())


def answer(task: ClaimedTask, says: str | None, granted: Granted, cost: int) -> StepCommit:
    """The large model's answer to an audit; None is one that can't be read."""
    return done(task, step=audit_step(says, cost), stage=3, bills=(bill(granted, cost),))


def audit_step(says: str | None, cost: int = 0) -> FinishedStep:
    asked = sample(0, says, plan=None)
    return finished_step("audit", asked, stage=Stage.LARGE_EXECUTES, tier=Tier.LARGE, cost=NanoUSD(cost))


async def audited(
    world: World, *, share: int = WHOLE, cap: int | None = CENT, project_cap: int | None = None
) -> Project:
    project = await world.project(cap=None if project_cap is None else NanoUSD(project_cap))
    await world.api.set_cap(project.id, None if cap is None else NanoUSD(cap), scope=AUDIT_SCOPE)
    await world.api.set_audit_share(project.id, share)
    return project


async def accept(world: World, project: Project, lines: int = 1) -> Batch:
    """A batch whose lines were all accepted on the small model."""
    batch = await world.batch(project, lines)
    await world.commit(*[accepts(task) for task in await world.claim(limit=lines)])
    return batch


async def audits(world: World, project: Project, state: AuditState | None = None) -> Sequence[Audit]:
    page = await world.api.list_audits(project.id, batch_id=None, state=state, after=None, limit=1000)
    return page.items


async def counts(world: World, batch: Batch) -> AuditCounts:
    return total(await world.api.audit_counts(batch.project_id, batch_id=batch.id))


async def test_audits_are_off_until_somebody_asks_for_them(world: World) -> None:
    project = await world.project()
    batch = await accept(world, project, 3)

    assert (project.audit_share, project.audit_cap) == (0, 0)
    assert await audits(world, project) == ()
    assert await world.api.audit_counts(project.id, batch_id=batch.id) == ()
    assert await world.claim("large") == []


async def test_an_accepted_answer_of_the_sample_is_asked_of_the_large_model_in_the_same_words(world: World) -> None:
    project = await audited(world)
    spec = replace(make_spec(), max_cost=NanoUSD(1))
    live = await world.live(project, spec=spec)
    await world.commit(accepts(await world.claim_one(), accepted("5", votes=7, stage=2)))

    task = await world.claim_one("large")
    step = next_decision(task.spec, task.history)

    assert task.is_audit
    assert (task.batch_id, task.key_id, task.spec.policy.name) == (None, AUDIT_SCOPE, PolicyName.AUDIT)
    assert (task.spec.problem, task.spec.seed, task.spec.store) == (spec.problem, spec.seed, StoreLevel.ANSWERS)
    assert task.spec.max_cost is None  # the line does not pay for it
    assert isinstance(step, Step)
    assert (step.name, step.model, step.n, step.guideline, step.stage) == (
        "audit",
        "large",
        1,
        None,
        Stage.LARGE_EXECUTES,
    )
    (only,) = await audits(world, project)
    assert (only.task_id, only.batch_id, only.audit_task_id, only.state) == (
        live,
        None,
        task.task_id,
        AuditState.PENDING,
    )
    assert (only.stratum, only.small_answer, only.share) == (Stratum(2, 7, 8, stopped_early=False), "5", WHOLE)


@pytest.mark.parametrize(
    ("says", "state"),
    [("5", AuditState.AGREED), ("6", AuditState.DISAGREED), (None, AuditState.UNPARSABLE)],
)
async def test_an_answer_is_compared_by_its_key_and_the_audit_remembers_both(
    world: World, says: str | None, state: AuditState
) -> None:
    project = await audited(world)
    batch = await accept(world, project)
    task = await world.claim_one("large")
    granted = await world.send(task, 900, step="audit")

    assert await world.commit(answer(task, says, granted, 700)) == [CommitStatus.COMMITTED]

    (only,) = await audits(world, project, state)
    assert (only.large_answer, only.large_key) == (says, says)
    assert (only.batch_id, only.custom_id, only.cost, only.reason) == (batch.id, "line-1", 700, None)
    assert only.finished_at is not None
    found = await counts(world, batch)
    assert (found.accepted, found.sampled, found.pending, found.cost) == (1, 1, 0, 700)
    assert {"agreed": found.agreed, "disagreed": found.disagreed, "unparsable": found.unparsable}[state.value] == 1


async def test_an_answer_with_a_nul_is_kept_and_compared_nevertheless(world: World) -> None:
    project = await audited(world)
    await world.batch(project)
    await world.commit(accepts(await world.claim_one(), accepted("a\x00b")))
    task = await world.claim_one("large")
    await world.commit(answer(task, "a\x00b", await world.send(task, 9, step="audit"), 9))

    (only,) = await audits(world, project)
    assert (only.state, only.small_answer) == (AuditState.AGREED, "a␀b")


async def test_a_batch_ends_and_its_files_are_written_before_its_audits_are_asked(world: World) -> None:
    project = await audited(world)
    batch = await accept(world, project, 3)
    assert (await counts(world, batch)).pending == 3

    await world.finish(batch)

    seen = await world.see(batch)
    assert (seen.status, seen.total, seen.done, seen.failed) == ("completed", 3, 3, 0)
    assert (await counts(world, batch)).pending == 3
    task = await world.claim_one("large")
    await world.commit(answer(task, "6", await world.send(task, 900, step="audit"), 700))
    assert replace(await world.see(batch), output_file_id=None) == replace(seen, output_file_id=None)
    found = await counts(world, batch)
    assert (found.accepted, found.disagreed, found.pending) == (3, 1, 2)


async def test_audits_come_behind_every_task_that_somebody_waits_for(world: World) -> None:
    project = await audited(world)
    await accept(world, project, 2)
    batch = await world.batch(project, 1, queue="large", priority=1000)
    live = await world.live(project, queue="large")

    claimed = await world.claim("large", limit=10)

    assert [task.is_audit for task in claimed] == [False, False, True, True]
    assert (claimed[0].task_id, claimed[1].batch_id) == (live, batch.id)


async def test_an_audit_is_paid_from_its_own_budget_and_the_projects_and_from_no_batch_or_key(world: World) -> None:
    project = await audited(world, project_cap=100_000)
    key = await world.key(project)
    batch = await world.batch(project, 1, key_id=key.id)
    await world.commit(accepts(await world.claim_one()))
    task = await world.claim_one("large")
    await world.commit(answer(task, "5", await world.send(task, 900, step="audit"), 700))

    for scope, spent in ((AUDIT_SCOPE, 700), ("project", 700), (key.id, 0), (batch.id, 0)):
        assert (await world.api.get_budget(project.id, scope=scope)).spent == spent
    budgets = await world.api.list_budgets(project.id)
    assert [(b.scope, b.cap) for b in budgets] == [("project", 100_000), (AUDIT_SCOPE, CENT), (key.id, None)]
    assert (await world.see(batch)).spent == 0


async def test_an_audit_is_refused_by_its_own_cap_and_by_the_projects(world: World) -> None:
    project = await audited(world, cap=1_000, project_cap=5_000)
    await accept(world, project, 3)
    first, second, third = await world.claim("large", limit=3)
    assert isinstance(await world.reserve(first, 800, step="audit"), Granted)

    refused = await world.reserve(second, 300, step="audit")
    assert isinstance(refused, Refused)
    assert (refused.scope.value, refused.headroom) == ("audit", 200)
    await world.api.set_cap(project.id, None, scope=AUDIT_SCOPE)
    await world.api.set_cap(project.id, NanoUSD(900))
    refused = await world.reserve(third, 300, step="audit")
    assert isinstance(refused, Refused)
    assert (refused.scope.value, refused.headroom) == ("project", 100)


async def test_a_cap_that_is_changed_holds_for_the_month_that_runs(world: World) -> None:
    project = await audited(world, cap=1_000)
    await accept(world, project, 2)
    first, second = await world.claim("large", limit=2)
    await world.send(first, 800, step="audit")

    lowered = await world.api.set_cap(project.id, NanoUSD(100), scope=AUDIT_SCOPE)
    assert (lowered.cap, lowered.reserved, lowered.scope) == (100, 800, AUDIT_SCOPE)
    assert isinstance(await world.reserve(second, 1, step="audit"), Refused)
    await world.api.set_cap(project.id, NanoUSD(2_000), scope=AUDIT_SCOPE)
    assert isinstance(await world.reserve(second, 1_200, step="audit"), Granted)
    changed = await world.api.get_project(project.id)
    assert changed is not None
    assert (changed.audit_cap, changed.cap) == (2_000, None)


async def test_an_audit_that_ends_without_an_answer_is_dropped_with_its_reason(world: World) -> None:
    project = await audited(world)
    batch = await accept(world, project)
    task = await world.claim_one("large")

    await world.commit(fails(task, code="audit_spend_limit_exceeded", status=429))

    (only,) = await audits(world, project, AuditState.DROPPED)
    assert (only.reason, only.large_answer, only.cost) == ("audit_spend_limit_exceeded", None, 0)
    assert (await counts(world, batch)).dropped == 1
    seen = await world.see(batch)
    assert (seen.failed, dict(seen.error_counts)) == (0, {})


async def test_a_commit_that_comes_twice_makes_one_audit_and_one_that_was_fenced_makes_none(world: World) -> None:
    project = await audited(world)
    batch = await world.batch(project, 2)
    first, second = await world.claim(limit=2)
    await world.advance(LEASE_S + 1)
    await world.sweep()
    assert await world.commit(accepts(first), accepts(second)) == [CommitStatus.FENCED] * 2
    assert await audits(world, project) == ()

    again = await world.claim(limit=2)
    statuses = await world.commit(accepts(again[0]), accepts(again[0]), accepts(again[1]))
    assert statuses == [CommitStatus.COMMITTED, CommitStatus.FENCED, CommitStatus.COMMITTED]
    assert await world.commit(accepts(again[1])) == [CommitStatus.FENCED]
    assert len(await audits(world, project)) == 2
    assert (await counts(world, batch)).accepted == 2


async def test_an_audit_whose_worker_died_is_asked_again_and_closed_once(world: World) -> None:
    project = await audited(world)
    batch = await accept(world, project)
    dead = await world.claim_one("large")
    lost = await world.send(dead, 900, step="audit")
    await world.advance(LEASE_S + 1)
    await world.sweep()

    task = await world.claim_one("large")
    await world.commit(answer(task, "5", await world.send(task, 900, step="audit"), 700))
    assert await world.commit(answer(dead, "6", lost, 800)) == [CommitStatus.FENCED]

    found = await counts(world, batch)
    assert (found.agreed, found.sampled, found.cost) == (1, 1, 700)
    budget = await world.api.get_budget(project.id, scope=AUDIT_SCOPE)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (700, 0, 900)


async def test_an_audit_may_wait_for_the_provider_and_no_batch_counts_it(world: World) -> None:
    project = await audited(world)
    batch = await accept(world, project)
    task = await world.claim_one("large")

    await world.worker.give_back([GiveBack(task.task_id, task.fence, delay_s=5, hold=HoldReason.PROVIDER_QUOTA)])
    assert await world.state(task) is TaskState.HELD
    assert (await world.see(batch)).held == {}
    await world.advance(6)
    await world.sweep()

    assert (await world.claim_one("large")).task_id == task.task_id


async def test_a_paused_project_asks_for_no_audit(world: World) -> None:
    project = await audited(world)
    await accept(world, project)

    await world.api.update_project(project.id, paused=True)
    assert await world.claim("large") == []
    await world.api.update_project(project.id, paused=False)
    assert len(await world.claim("large")) == 1


async def test_the_feed_tells_of_the_audits_end_and_nothing_of_the_task_that_asked(world: World) -> None:
    project = await audited(world)
    batch = await accept(world, project)
    (only,) = await audits(world, project)
    await world.claim_one("large", lease_s=1)
    await world.advance(2)
    await world.sweep()
    task = await world.claim_one("large")
    await world.worker.give_back([GiveBack(task.task_id, task.fence, hold=HoldReason.PROVIDER_QUOTA)])
    await world.sweep()
    task = await world.claim_one("large")
    await world.commit(answer(task, "6", await world.send(task, 900, step="audit"), 700))

    events = await world.events(project)

    assert only.audit_task_id not in {event.task_id for event in events}
    last = events[-1]
    assert (last.type, last.batch_id, last.task_id) == ("audit.disagreed", batch.id, only.task_id)


async def test_a_batchs_own_share_takes_the_place_of_the_projects(world: World) -> None:
    project = await audited(world)
    silent = await world.batch(project, 2, audit_share=0)
    await world.commit(*[accepts(task) for task in await world.claim(limit=2)])
    assert await world.api.audit_counts(project.id, batch_id=silent.id) == ()

    await world.api.set_audit_share(project.id, 0)
    loud = await world.batch(project, 2, audit_share=WHOLE)
    await world.commit(*[accepts(task) for task in await world.claim(limit=2)])

    assert (await world.see(silent)).audit_share == 0
    assert (await world.see(loud)).audit_share == WHOLE
    assert (await counts(world, loud)).sampled == 2
    assert {audit.batch_id for audit in await audits(world, project)} == {loud.id}


async def test_the_sample_is_what_the_hash_says_and_the_population_is_everything_accepted(world: World) -> None:
    project = await audited(world, share=300_000)
    batch = await world.batch(project, 40)
    tasks = await world.claim(limit=40)
    escalated, confident = tasks[:5], tasks[5:]
    await world.commit(
        *[goes_on(task) for task in escalated],
        *[accepts(task, accepted(votes=6 + n % 3)) for n, task in enumerate(confident)],
    )

    sampled = {task.task_id for task in confident if is_sampled(task.task_id, project.id, 300_000)}
    assert {audit.task_id for audit in await audits(world, project)} == sampled
    strata = await world.api.audit_counts(project.id, batch_id=batch.id)
    assert [(s.stratum.votes, s.share, s.counts.accepted) for s in strata] == [
        (6, 300_000, 12),
        (7, 300_000, 12),
        (8, 300_000, 11),
    ]
    assert total(strata).sampled == len(sampled)


async def test_a_months_counts_join_its_batches_and_live_calls(world: World) -> None:
    project = await audited(world)
    await accept(world, project, 2)
    await accept(world, project, 1)
    await world.live(project)
    await world.commit(accepts(await world.claim_one(), accepted("7", votes=8)))

    month = (await world.budget(project)).month
    strata = await world.api.audit_counts(project.id, month=month)
    assert [(s.stratum.label, s.counts.accepted, s.counts.pending) for s in strata] == [("6/8", 3, 3), ("8/8", 1, 1)]
    assert await world.api.audit_counts(project.id, month="1999-12") == ()


async def test_lists_page_and_filter_by_batch_and_state(world: World) -> None:
    project = await audited(world)
    batch = await accept(world, project, 3)
    await accept(world, project, 2)
    for task in await world.claim("large", limit=2):
        await world.commit(answer(task, "6", await world.send(task, 9, step="audit"), 9))

    page = await world.api.list_audits(project.id, batch_id=batch.id, state=None, after=None, limit=2)
    rest = await world.api.list_audits(project.id, batch_id=batch.id, state=None, after=page.items[-1].task_id, limit=2)
    assert (len(page.items), page.has_more, len(rest.items), rest.has_more) == (2, True, 1, False)
    assert [a.custom_id for a in (*page.items, *rest.items)] == ["line-1", "line-2", "line-3"]
    assert len(await audits(world, project)) == 5
    assert len(await audits(world, project, AuditState.DISAGREED)) == 2


async def test_many_workers_at_once_make_each_audit_once_and_never_overspend_its_cap(world: World) -> None:
    project = await audited(world, cap=5_000)
    batch = await world.batch(project, 24)
    tasks = await world.claim(limit=24)
    groups = [tasks[start : start + 4] for start in range(0, 24, 4)]
    await asyncio.gather(*(world.commit(*[accepts(task) for task in group]) for group in groups))
    assert (await counts(world, batch)).pending == 24

    asked = await world.claim("large", limit=24)
    results = await asyncio.gather(*(world.reserve(task, 1_000, step="audit") for task in asked))

    assert sum(isinstance(result, Granted) for result in results) == 5
    assert (await world.api.get_budget(project.id, scope=AUDIT_SCOPE)).reserved == 5_000


async def test_a_retry_never_joins_an_audit(world: World) -> None:
    project = await audited(world)
    live = await world.live(project, body=b"same")
    await world.commit(accepts(await world.claim_one()))
    (only,) = await audits(world, project)

    assert await world.live(project, body=b"same", retry=True) == live
    assert await world.live(project, body=b"", retry=True) != only.audit_task_id


async def test_the_share_of_nothing_known_is_refused(world: World) -> None:
    missing = (await world.project()).id[:-4] + "zzzz"
    assert await world.api.set_audit_share(missing, WHOLE) is None  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await world.api.set_cap(missing, CENT, scope=AUDIT_SCOPE)  # type: ignore[arg-type]


async def test_a_dry_run_is_never_audited_and_counts_in_no_population(world: World) -> None:
    project = await world.project()
    await world.api.set_cap(project.id, NanoUSD(10_000), scope=AUDIT_SCOPE)
    await world.api.set_audit_share(project.id, WHOLE)
    await test_quotes.ask(world, project)
    await test_quotes.begin(world, await test_quotes.validation(world), lines=2)
    await world.commit(*[replace(done(task), audit=accepted()) for task in await world.claim(limit=2)])

    assert await world.claim("large", limit=9) == []
    assert await world.api.audit_counts(project.id) == ()
