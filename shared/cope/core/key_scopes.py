"""What an API key may do: few scopes, each naming what its holder does rather than an address."""

from collections.abc import Iterable
from enum import StrEnum

from cope.core.errors import BadRequest


class KeyScope(StrEnum):
    """`read`: look at batches, tasks, files, events · `submit`: begin, hold and cancel work, live calls included ·
    `files`: upload and delete · `webhooks`: manage endpoints · `spend`: costs, caps of batches, spend reported."""

    READ = "read"
    SUBMIT = "submit"
    FILES = "files"
    WEBHOOKS = "webhooks"
    SPEND = "spend"


ALL_SCOPES = frozenset(KeyScope)
EVERY = "all"
"""How a key without restrictions is kept and shown: a scope that a later version adds is then its own too."""


def parse_scopes(value: object, param: str) -> frozenset[KeyScope]:
    """A list of scopes, or ``["all"]``. Raises `BadRequest`: an empty list too, for such a key could do nothing."""
    known = (EVERY, *KeyScope)
    if not isinstance(value, list) or not value or any(item not in known for item in value):
        raise BadRequest(f"`{param}` must be a list of some of {', '.join(known)}.", param=param)
    return ALL_SCOPES if EVERY in value else frozenset(KeyScope(item) for item in value)


def scope_names(scopes: frozenset[KeyScope]) -> list[str]:
    """The inverse of `stored_scopes`, in a fixed order."""
    return [EVERY] if scopes == ALL_SCOPES else [scope.value for scope in KeyScope if scope in scopes]


def stored_scopes(names: Iterable[str]) -> frozenset[KeyScope]:
    """Scopes as they were kept. A name that this version does not know (a later one wrote it) allows nothing."""
    kept = frozenset(names)
    return ALL_SCOPES if EVERY in kept else frozenset(scope for scope in KeyScope if scope in kept)
