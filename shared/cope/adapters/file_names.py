"""Names in a file store."""

from cope.core.errors import NotFound
from cope.core.ids import FILE

OWNER = ".cope-home"
"""The file that says which database a place belongs to."""

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def is_name(name: str) -> bool:
    """Whether it is one of a file of ours: what else lies there is nobody's to touch."""
    return name.startswith(FILE) and len(name) > len(FILE) and _SAFE.issuperset(name)


def checked(file_id: str) -> str:
    """The id itself. Raises `NotFound` where it can't be one: ids reach us from URLs, and one with a slash or a dot
    could leave the root."""
    if len(file_id) < 3 or not _SAFE.issuperset(file_id):
        raise NotFound(f"There is no file {file_id!r}.")
    return file_id
