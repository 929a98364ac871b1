"""JSON Schema (2020-12) in few words, so that a schema reads like the object it describes."""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]
COMPONENTS: dict[str, Schema] = {}
"""The named schemas, by name."""


def _with(about: str, **keys: object) -> Schema:
    schema: Schema = {key: value for key, value in keys.items() if value is not None}
    return {**schema, "description": about} if about else schema


def text(about: str = "", *, low: int | None = None, high: int | None = None, like: str | None = None) -> Schema:
    """A string of `low` to `high` characters that matches `like` (a regular expression, anchored by itself)."""
    return _with(about, type="string", minLength=low, maxLength=high, pattern=like)


def whole(about: str = "", *, low: int | None = None, high: int | None = None) -> Schema:
    """A whole number."""
    return _with(about, type="integer", minimum=low, maximum=high)


def number(about: str = "", *, low: float | None = None, high: float | None = None) -> Schema:
    """A number."""
    return _with(about, type="number", minimum=low, maximum=high)


def flag(about: str = "") -> Schema:
    """True or false."""
    return _with(about, type="boolean")


def const(value: object, about: str = "") -> Schema:
    """Always this value."""
    return _with(about, const=value)


def one_of(values: Sequence[object], about: str = "") -> Schema:
    """One of these values."""
    return _with(about, enum=[str(v) if isinstance(v, str) else v for v in values])


def array(items: Schema, about: str = "", *, low: int | None = None, high: int | None = None) -> Schema:
    """A list."""
    return _with(about, type="array", items=items, minItems=low, maxItems=high)


def record(required: Mapping[str, Schema], about: str = "", *, optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object that has all of `required`, may have `optional`, and what else it has is not promised."""
    fields = {**required, **(optional or {})}
    return _with(about, type="object", properties=fields, required=list(required) or None)


def anything(about: str = "") -> Schema:
    """An object whose keys are not promised."""
    return {**_with(about, type="object"), "additionalProperties": True}


def closed(required: Mapping[str, Schema], about: str = "", *, optional: Mapping[str, Schema] | None = None) -> Schema:
    """A request's object: a key that is not named is refused."""
    return {**record(required, about, optional=optional), "additionalProperties": False}


def mapping(values: Schema, about: str = "", *, high: int | None = None) -> Schema:
    """An object with keys of the caller's own."""
    return _with(about, type="object", additionalProperties=values, maxProperties=high)


def either(*schemas: Schema, about: str = "") -> Schema:
    """One of several shapes."""
    return _with(about, anyOf=list(schemas))


def nullable(schema: Schema) -> Schema:
    """This, or null."""
    kind = schema.get("type")
    if isinstance(kind, str) and "const" not in schema and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def named(name: str, schema: Schema) -> Schema:
    """A schema of its own in the document; returns the reference to it."""
    assert name not in COMPONENTS, f"there are two schemas {name}"
    COMPONENTS[name] = schema
    return {"$ref": f"#/components/schemas/{name}"}


def listed(item: Schema, about: str = "", *, more: Mapping[str, Schema] | None = None) -> Schema:
    """OpenAI's list page of such items; `more` stands beside them."""
    return record(
        {
            "object": const("list"),
            "data": array(item),
            "first_id": nullable(text("The first item's id, null for an empty page.")),
            "last_id": nullable(text("The last item's id: give it as `after` for the next page.")),
            "has_more": flag("Whether there is more after this page."),
            **(more or {}),
        },
        about,
    )


def example(schema: Schema, value: object) -> Schema:
    """The schema with an example."""
    return {**schema, "examples": [value]}


ID = text("An id: a prefix and 26 characters that sort by time.", low=1, high=64)
SECONDS = whole("Unix seconds.")
USD = text('Dollars, exactly, such as "0.000212".', like=r"^-?[0-9]+\.[0-9]{2,9}$")
NANO = whole("Whole nano-dollars (10^-9 USD).")
USD_IN = either(
    text('Dollars as decimal text, such as "2.50": at most nine decimals, never negative.', low=1),
    whole("Whole dollars.", low=0),
    about="An amount. A fraction as a JSON number is refused: it would be inexact.",
)
METADATA = mapping(text(high=512), "Up to 16 pairs of the caller's own: keys of up to 64 characters.", high=16)
DELETED = flag("Always true.")
