"""What a consumer group is refused, in words that say how to go on: the same from every store."""

from cope.core.errors import Conflict, NotFound
from cope.core.event_log import Consumer

MOST_GROUPS = 1000


def unknown(name: str) -> NotFound:
    """No such group."""
    return NotFound(
        f"There is no consumer group {name!r}: make it with PUT /v1/event_consumers/{name}.", code="consumer_not_found"
    )


def too_many() -> Conflict:
    """A bound on what one project may keep."""
    return Conflict(
        f"A project has at most {MOST_GROUPS} consumer groups: delete one first.", code="too_many_consumers"
    )


def busy(consumer: Consumer) -> Conflict:
    """Another member reads."""
    until = "" if consumer.member_until is None else f" until {consumer.member_until.isoformat(timespec='seconds')}"
    return Conflict(
        f"The member {consumer.member!r} reads for the group {consumer.name!r}{until}, and longer as long as it goes "
        "on reading. Wait for the end of its session, or read in a group of your own.",
        code="consumer_busy",
    )


def refused_commit(consumer: Consumer, offset: int, generation: int | None) -> Conflict:
    """Why this commit changed nothing."""
    if generation is None and consumer.member is not None:
        return Conflict(
            f"The member {consumer.member!r} reads for the group {consumer.name!r}: commit with the `generation` that "
            "your reading answered.",
            code="consumer_fenced",
        )
    if generation is not None and generation != consumer.generation:
        return Conflict(
            f"Generation {generation} of the group {consumer.name!r} is over, {consumer.generation} has begun: another "
            "member took it over or it was put elsewhere. Read again before you commit.",
            code="consumer_fenced",
        )
    if offset > consumer.head:
        return Conflict(f"The log ends at {consumer.head}: {offset} can't be done with yet.", code="offset_beyond_head")
    return Conflict(
        f"The group {consumer.name!r} is done up to {consumer.committed}; {offset} would take it back. To go back on "
        f"purpose: POST /v1/event_consumers/{consumer.name}/positions.",
        code="offset_backwards",
    )
