"""Short ways to declare the columns of `tables`."""

from typing import Any

from sqlalchemy import BigInteger, Column, Computed, DateTime, ForeignKey, Identity, Integer, LargeBinary, Text, text
from sqlmodel import Field


def column(type_: Any, *, null: bool = False, key: bool = False, default: str | None = None, of: str = "") -> Any:
    """A column of any type; `of` is what it refers to."""
    references = [ForeignKey(of)] if of else []
    server_default = None if default is None else text(default)
    column: Column[Any] = Column(
        type_, *references, primary_key=key, nullable=null and not key, server_default=server_default
    )
    return Field(default=None, sa_column=column)


def identifier(*, null: bool = False, key: bool = False, of: str = "") -> Any:
    """An id, sorted by byte order."""
    return column(Text(collation="C"), null=null, key=key, of=of)


def words(*, null: bool = False, key: bool = False, default: str | None = None) -> Any:
    """Text."""
    return column(Text(), null=null, key=key, default=default)


def whole(*, null: bool = False, default: str | None = None) -> Any:
    """A 32-bit number."""
    return column(Integer(), null=null, default=default)


def big(*, null: bool = False, default: str | None = None) -> Any:
    """A 64-bit number: money and tokens."""
    return column(BigInteger(), null=null, default=default)


def moment(*, null: bool = False, default: str | None = None) -> Any:
    """A moment, with its time zone."""
    return column(DateTime(timezone=True), null=null, default=default)


def octets(*, null: bool = False, key: bool = False) -> Any:
    """Raw bytes."""
    return column(LargeBinary(), null=null, key=key)


def sequence() -> Any:
    """A row number that the server gives."""
    return Field(default=None, sa_column=Column(BigInteger(), Identity(always=True), primary_key=True))


def of_project() -> Any:
    """The project that a row belongs to."""
    return identifier(of="projects.id")


def generated(expression: str) -> Any:
    """An id that the server makes of other columns and stores."""
    return Field(default=None, sa_column=Column(Text(collation="C"), Computed(expression, persisted=True)))
