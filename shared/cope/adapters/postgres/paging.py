"""Pages of lists: one row more than asked for says whether there is more."""

from collections.abc import Sequence
from typing import TypeVar

from cope.ports.store import Page

T = TypeVar("T")


def page_of(items: Sequence[T], limit: int) -> Page[T]:
    """At most `limit` of `items`, of which up to `limit + 1` were read."""
    return Page(tuple(items[:limit]), has_more=len(items) > limit)
