"""Ids of rows that the store itself makes: attempts, events, deliveries."""

from cope.adapters.system import SystemIds

_ids = SystemIds()


def new_id(prefix: str) -> str:
    """A new id, sortable by the time it was made."""
    return _ids.new(prefix)


def new_ids(prefix: str, count: int) -> list[str]:
    """`count` new ids."""
    return [_ids.new(prefix) for _ in range(count)]
