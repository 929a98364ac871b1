"""Why lines can't be retried, and what to do instead: said alike whatever the store."""

from collections.abc import Sequence
from typing import NamedTuple

from cope.core.errors import BadRequest, Conflict
from cope.core.lifecycle import BatchStatus
from cope.core.records import Batch

_HAS_LINES = frozenset(
    {
        BatchStatus.IN_PROGRESS,
        BatchStatus.FINALIZING,
        BatchStatus.COMPLETED,
        BatchStatus.EXPIRED,
        BatchStatus.CANCELLED,
    }
)
_INSTEAD = {
    BatchStatus.VALIDATING: "its lines are still being read: try again once it is in_progress",
    BatchStatus.CANCELLING: "try again once it is cancelled",
    BatchStatus.FAILED: "its input was refused and no line ran: mend the input and submit it again",
}


class NamedLine(NamedTuple):
    """A line that was asked for by custom id and can't be retried. `state` None: the batch has no such line."""

    custom_id: str
    state: str | None
    retried_in: str | None


def refuse_parent(parent: Batch) -> None:
    """Raises `Conflict` unless the batch has lines that may be retried."""
    if parent.dry_run is not None:
        raise Conflict("A dry run has no lines to retry: submit it without `dry_run`.", code="batch_not_retryable")
    if parent.status not in _HAS_LINES:
        raise Conflict(f"The batch is {parent.status.value}: {_INSTEAD[parent.status]}.", code="batch_not_retryable")


def refuse_lines(wrong: Sequence[NamedLine]) -> None:
    """Raises `BadRequest` for the first of these, if there is one."""
    for custom_id, state, retried_in in wrong:
        if state is None:
            raise BadRequest(f"The batch has no line {custom_id!r}.", param="custom_ids", code="unknown_custom_id")
        if retried_in is not None:
            why = f"was taken over by {retried_in} already: retry that batch's line"
        elif state == "done":
            why = "has its answer"
        elif state in {"ready", "leased", "submitted"}:
            why = "is still under way: wait for its end, or cancel the batch"
        else:
            why = f"is {state}, which `lines` does not ask for"
        raise BadRequest(f"Line {custom_id!r} {why}.", param="custom_ids", code="line_not_retryable")


def refuse_none(parent: Batch) -> None:
    """Raises `Conflict`: no line stands as was asked for."""
    taken = f" What {', '.join(parent.retried_by)} took over is that batch's." if parent.retried_by else ""
    raise Conflict(f"No line of the batch stands as `lines` asks for.{taken}", code="nothing_to_retry")


def refuse_texts() -> None:
    """Raises `Conflict`: `store: none` was asked for, and the batch has ended."""
    raise Conflict(
        "Some of these lines were submitted with `store: none`, and their texts are gone: submit them again, or leave "
        "them out with `custom_ids`.",
        code="text_not_kept",
    )
