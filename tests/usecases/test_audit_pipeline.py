"""The shadow audit through the whole pipeline, on scripted models: what is asked, at what cost, who waits for it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from cope.adapters.memory import MemoryLimiter
from cope.adapters.memory.limiter import Limits
from cope.core.audit import Audit, AuditCounts, AuditState, estimate, total
from cope.core.audit_sampling import WHOLE
from cope.core.budget import AUDIT_SCOPE
from cope.core.lifecycle import BatchStatus
from cope.core.money import parse_usd
from cope.core.records import Batch
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.drain import Drainer
from cope.usecases.finalise import finalise_next
from tests.usecases.test_pipeline import (
    LEASE_S,
    PRICE,
    USAGE,
    Parts,
    current,
    divided,
    line,
    make_parts,
    results,
    says,
    settle,
    submit,
)

COST = PRICE.cost(USAGE)


def third_differs() -> Callable[[ChatRequest], ChatAnswer]:
    """The small model is always sure of 5. The large one writes 5 in another way, but for its third answer."""
    given: list[str] = []

    def script(request: ChatRequest) -> ChatAnswer:
        if request.model.name == "small":
            return says("\\boxed{5}")
        given.append(request.request_id)
        return says("\\boxed{6}" if len(given) == 3 else "\\boxed{\\frac{10}{2}}")

    return script


async def begin(parts: Parts, *lines: str, share: int = WHOLE, cap: str = "1", project_cap: str | None = None) -> Batch:
    """A batch that has been ingested in a project with audits."""
    batch = await submit(parts, *lines, cap=None if project_cap is None else parse_usd(project_cap))
    await parts.store.set_cap(batch.project_id, parse_usd(cap), scope=AUDIT_SCOPE)
    await parts.store.set_audit_share(batch.project_id, share)
    return batch


async def audits(parts: Parts, batch: Batch) -> Sequence[Audit]:
    page = await parts.store.list_audits(batch.project_id, batch_id=None, state=None, after=None, limit=100)
    return page.items


async def counts(parts: Parts, batch: Batch) -> AuditCounts:
    return total(await parts.store.audit_counts(batch.project_id, batch_id=batch.id))


def to_large(parts: Parts) -> list[ChatRequest]:
    return [request for request in parts.model.requests if request.model.name == "large"]


async def drain(parts: Parts, queue: str) -> None:
    """One queue alone, until nothing of it is in flight."""
    left = 400
    drainer = Drainer(parts, queue=queue, worker="w", concurrency=64, lease_s=LEASE_S)  # type: ignore[arg-type]

    def stopping() -> bool:
        nonlocal left
        left -= 1
        return left <= 0 or (left <= 398 and drainer.in_flight == 0)

    await drainer.run(stopping)


async def test_at_a_whole_share_every_answer_of_the_small_model_is_audited_once_and_compared_by_its_meaning():
    parts = make_parts(third_differs())
    batch = await begin(parts, *[line(f"l{n}") for n in range(6)])
    await settle(parts)

    found = await counts(parts, batch)
    assert (found.accepted, found.agreed, found.disagreed, found.pending) == (6, 5, 1, 0)
    assert len(to_large(parts)) == 6
    assert found.cost == 6 * COST
    said = estimate(found)
    assert said is not None
    assert (said.fewest, said.most) == (1, 1)
    (other,) = [audit for audit in await audits(parts, batch) if audit.state is AuditState.DISAGREED]
    assert (other.small_answer, other.large_answer) == ("5", "6")
    detail = await parts.store.get_task(batch.project_id, other.audit_task_id)
    assert detail is not None
    assert [(step.name, step.cost) for step in detail.history] == [("audit", COST)]
    assert [(attempt.step, attempt.cost) for attempt in detail.attempts] == [("audit", COST)]


async def test_the_batch_is_complete_with_its_files_before_any_audit_is_asked_and_is_not_changed_by_one():
    parts = make_parts(third_differs())
    batch = await begin(parts, line("a"), line("b"))
    await drain(parts, "small")
    await finalise_next(parts, lease_s=LEASE_S)

    ended = await current(parts, batch)
    assert ended.status is BatchStatus.COMPLETED
    assert to_large(parts) == []
    assert [audit.state for audit in await audits(parts, batch)] == [AuditState.PENDING] * 2
    lines = await results(parts, ended.output_file_id)
    assert len(lines) == 2

    await drain(parts, "large")
    assert (await counts(parts, batch)).agreed == 2
    assert await current(parts, batch) == ended
    assert ended.spent == 0
    page = await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=10)
    assert len(page.items) == 2


async def test_at_a_share_of_0_nobody_asks_the_large_model_and_nothing_is_written():
    parts = make_parts(third_differs())
    batch = await begin(parts, line("a"), line("b"), share=0)
    await settle(parts)

    assert (await current(parts, batch)).done == 2
    assert to_large(parts) == []
    assert await audits(parts, batch) == ()
    assert await parts.store.audit_counts(batch.project_id, batch_id=batch.id) == ()


async def test_what_the_large_model_solved_and_what_was_never_voted_on_is_not_audited():
    parts = make_parts(divided)
    batch = await begin(parts, line("a"), line("b", model="small"), line("c", model="large"))
    await settle(parts)

    assert (await current(parts, batch)).done == 3
    assert await audits(parts, batch) == ()


async def test_a_task_that_keeps_nothing_is_not_audited():
    parts = make_parts(third_differs())
    batch = await begin(parts, line("a", store="none"), line("b", store="full"), line("c"))
    await settle(parts)

    seen = await audits(parts, batch)
    assert sorted(str(audit.custom_id) for audit in seen) == ["b", "c"]
    assert (await counts(parts, batch)).accepted == 2


async def test_audits_beyond_their_sub_budget_are_dropped_and_never_held():
    parts = make_parts(third_differs())
    batch = await begin(parts, *[line(f"l{n}") for n in range(5)], cap="0.000001")
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)

    found = await counts(parts, batch)
    assert (found.dropped, found.judged, found.pending) == (5, 0, 0)
    assert {audit.reason for audit in await audits(parts, batch)} == {"audit_spend_limit_exceeded"}
    assert to_large(parts) == []
    seen = await current(parts, batch)
    assert (seen.status, seen.done, seen.failed, dict(seen.held)) == (BatchStatus.COMPLETED, 5, 0, {})


async def test_audits_fit_under_the_projects_cap_too_and_leave_both_caps_whole():
    parts = make_parts(third_differs())
    cap = "0.05"
    batch = await begin(parts, *[line(f"l{n}") for n in range(40)], cap="1", project_cap=cap)
    await settle(parts)

    found = await counts(parts, batch)
    assert found.dropped > 0
    assert found.judged + found.dropped == 40
    assert {audit.reason for audit in await audits(parts, batch)} == {None, "project_spend_limit_exceeded"}
    project, own = [await parts.store.get_budget(batch.project_id, scope=scope) for scope in ("project", AUDIT_SCOPE)]
    assert project.spent == own.spent == found.judged * COST
    assert project.spent <= parse_usd(cap)
    assert (project.reserved, own.reserved) == (0, 0)


async def test_an_audit_that_can_not_be_read_is_told_apart_from_disagreement():
    def script(request: ChatRequest) -> ChatAnswer:
        return says("\\boxed{5}" if request.model.name == "small" else "I would rather not say.")

    parts = make_parts(script)
    batch = await begin(parts, line("a"))
    await settle(parts)

    found = await counts(parts, batch)
    assert (found.unparsable, found.judged) == (1, 0)
    assert estimate(found) is None


async def test_kinds_choice_and_exact_are_compared_as_their_votes_are():
    def script(request: ChatRequest) -> ChatAnswer:
        text = request.messages[-1].content
        if "Paris" in text:
            return says("The answer is (B)." if request.model.name == "small" else "Answer: B")
        return says("\\boxed{a}" if request.model.name == "small" else "\\boxed{A}")

    parts = make_parts(script)
    choice = line("c", kind="choice", choices=["Rome", "Paris"])
    batch = await begin(parts, choice, line("e", kind="exact"))
    await settle(parts)

    verdicts = {audit.custom_id: audit.state for audit in await audits(parts, batch)}
    assert verdicts == {"c": AuditState.AGREED, "e": AuditState.DISAGREED}


async def test_an_audit_never_waits_in_a_slot_for_the_rate_limit():
    parts = make_parts(third_differs())
    parts = replace(parts, limiter=MemoryLimiter(parts.clock, {"large": Limits(rpm=2)}))
    batch = await begin(parts, *[line(f"l{n}") for n in range(4)])
    await settle(parts)
    assert len(to_large(parts)) == 1
    assert await parts.store.claim("large", worker="w", limit=9, lease_s=1) == []

    for _ in range(4):
        parts.clock.advance(61)
        await settle(parts)
    assert (await counts(parts, batch)).judged == 4
