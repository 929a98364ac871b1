"""Every type of event there is, and what a filter of types may say.

A task's claim is no event: it may be undone by a crash and made again, and nothing of it is kept. A lost one is told
(`task.reclaimed`). That tasks of a batch exist is told once, by the batch's `batch.in_progress` and its `total`.
Reservations and settlements are the ledger's, which is exact to the nano-dollar; the events of money are its turns.
"""

from collections.abc import Sequence

from cope.core.errors import BadRequest

EVENT_TYPES: dict[str, str] = {
    "batch.created": "accepted; its file is read next",
    "batch.in_progress": "all of its lines are tasks now: `total`",
    "batch.requests_added": "lines were added to an open batch: `added`, `total`",
    "batch.sealed": "it takes no further lines: `total`",
    "batch.finalizing": "every task has ended; the files are being written",
    "batch.completed": "over: the files are there",
    "batch.failed": "over: the input file was refused",
    "batch.expired": "over: its completion window ran out",
    "batch.cancelling": "somebody cancelled it",
    "batch.cancelled": "over, by a cancel",
    "batch.pruned": "its tasks, results and samples are no longer kept; its counts and costs are",
    "batch.paused": "it waits, for the `reason` given",
    "batch.resumed": "it goes on",
    "task.created": "a live call was accepted",
    "task.step_finished": "a step was committed: `step`, `stage`, `cost_nanousd`",
    "task.submitted": "its call was gathered for the provider's own batch",
    "task.held": "it waits, for the `reason` given",
    "task.resumed": "its hold is over",
    "task.reclaimed": "its worker was lost; it is done again: `crashes`",
    "task.done": "over: it has its answer, from stage `stage`",
    "task.failed": "over: `code` says why",
    "task.cancelled": "over, by a cancel",
    "task.expired": "over: the batch's window ran out",
    "response.completed": "a background response has its answer",
    "response.incomplete": "a background response was cut off at its output limit",
    "response.failed": "a background response ended without an answer",
    "response.cancelled": "a background response was cancelled",
    "audit.agreed": "the large model gave the answer that was accepted",
    "audit.disagreed": "the large model gave another answer",
    "audit.unparsable": "one of the two answers can't be read",
    "audit.dropped": "the audit could not be made: `code`",
    "project.paused": "the operator stopped all of its work",
    "project.resumed": "its work goes on",
    "project.archived": "its work has ended for good",
    "project.restored": "it is no longer archived",
    "budget.alert": "a spend alert's threshold was reached",
    "budget.held": "work waits for money: `scope`",
    "budget.resumed": "nothing of that scope waits for money any more",
    "budget.overrun": "a provider billed more than was set aside",
    "budget.cap_changed": "a new cap: `scope`, `cap_nanousd`",
    "budget.usage_reported": "spend from elsewhere was booked",
    "budget.late_answer_differs": "an answer that came late cost something else than was booked",
    "webhook_endpoint.created": "a new address",
    "webhook_endpoint.deleted": "an address is told nothing more",
    "webhook_endpoint.enabled": "a disabled address is told things again",
    "webhook_endpoint.secret_rotated": "messages are signed with a new secret",
    "webhook_endpoint.disabled": "an address is told nothing more until it is mended: `reason`",
    "webhook_delivery.delivered": "an endpoint took a message",
    "webhook_delivery.retrying": "an endpoint did not take a message; it is sent again later",
    "webhook_delivery.dead": "a message was given up: it is in GET /v1/event_dead_letters",
    "webhook_delivery.replayed": "a message that was given up is sent again",
}

_WHOLE = ".*"


def types_of(texts: Sequence[str], param: str) -> frozenset[str] | None:
    """The types that a filter names: whole names, or ``batch.*``. None for an empty filter: all of them.

    Raises `BadRequest` for a name that no event has: it would wait for ever.
    """
    named: set[str] = set()
    for text in texts:
        if text.endswith(_WHOLE):
            found = {one for one in EVENT_TYPES if one.startswith(text[: -len(_WHOLE)] + ".")}
        else:
            found = {text} & EVENT_TYPES.keys()
        if not found:
            known = sorted({one.split(".")[0] + _WHOLE for one in EVENT_TYPES})
            raise BadRequest(
                f"There is no event type {text[:80]!r}. Whole families: {', '.join(known)}; the types one by one: "
                "GET /v1/event_types.",
                param=param,
            )
        named |= found
    return frozenset(named) or None


def project_turns(*, was: tuple[bool, bool], now: tuple[bool, bool]) -> list[str]:
    """The events of a project whose (paused, archived) changed; none where it did not."""
    (was_paused, was_archived), (paused, archived) = was, now
    turns = []
    if paused != was_paused:
        turns.append("project.paused" if paused else "project.resumed")
    if archived != was_archived:
        turns.append("project.archived" if archived else "project.restored")
    return turns
