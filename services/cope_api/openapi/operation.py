"""One endpoint's description: `op`, and how it is written down in OpenAPI's words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cope_api.openapi.shapes import Schema, closed, named, nullable, one_of, text

Json = dict[str, Any]
Caller = Literal["project", "admin", "either", "anybody"]
JSON_TYPE = "application/json"

ERROR = named(
    "Error",
    closed(
        {
            "error": closed(
                {
                    "message": text("What is wrong, where, and how to mend it. Written for people."),
                    "type": one_of(
                        [
                            "invalid_request_error",
                            "authentication_error",
                            "permission_error",
                            "insufficient_quota",
                            "server_error",
                        ]
                    ),
                    "param": nullable(text("A dotted path into the request, such as `cope.tau1`.")),
                    "code": nullable(text("Stable and machine-readable.")),
                }
            )
        },
        "Every error, in OpenAI's shape.",
    ),
)
ERRORS = {
    400: "The request can't be served as it stands; `param` says where, `message` how to mend it.",
    401: "No API key, or one that is unknown or revoked.",
    403: "The key is good, but not for this.",
    404: "There is no such object in this project.",
    409: "Another request about the same object is in the way: try again.",
    410: "It is no longer kept; `message` says where to go on.",
    413: "A body, file or line is over its limit.",
    416: "The file ends before the range that was asked for.",
    422: "The object's state, or an earlier request with the same idempotency key, forbids it. Never repeated by the "
    "client.",
    429: "A spending cap refuses it (`insufficient_quota`); `x-should-retry: false` comes with it.",
    500: "The server failed; the failure is logged under the `x-request-id`.",
    502: "The model's provider failed for good.",
    503: "The database does not answer. `retry-after` says when to try again.",
    507: "The place where files lie takes no more: the operator's to mend.",
}
_SECURITY: Mapping[Caller, list[Json]] = {
    "project": [{"project_key": []}],
    "admin": [{"admin_key": []}],
    "either": [{"admin_key": []}, {"project_key": []}],
    "anybody": [],
}
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "string"}}
_SHOULD_RETRY = {"description": "`false`: repeating the request does not help.", "schema": {"type": "string"}}
_ERROR_HEADERS = {
    503: {"retry-after": _RETRY_AFTER},
    422: {"x-should-retry": _SHOULD_RETRY},
    429: {"x-should-retry": _SHOULD_RETRY},
    507: {"x-should-retry": _SHOULD_RETRY},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What `op` was told. `returns` and `body` are by media type."""

    tag: str
    returns: Mapping[str, Schema]
    caller: Caller
    query: Mapping[str, Schema]
    needed: frozenset[str]
    headers: Mapping[str, Schema]
    body: Mapping[str, Schema]
    body_needed: bool
    errors: frozenset[int]
    about: str


def op(
    tag: str,
    returns: Schema | None = None,
    *,
    by: Caller = "project",
    query: Mapping[str, Schema] | None = None,
    needed: Iterable[str] = (),
    headers: Mapping[str, Schema] | None = None,
    body: Schema | None = None,
    bodies: Mapping[str, Schema] | None = None,
    body_needed: bool = True,
    errors: Iterable[int] = (),
    also: Mapping[str, Schema] | None = None,
    about: str = "",
) -> Operation:
    """`returns` is the JSON of a 200; `also` are its other media types (alone, where there is no JSON). `needed` names
    the query parameters that can't be left out, `headers` request headers. `body` is JSON; `bodies` other media types.
    `about` is added to the handler's docstring."""
    sent = {**({JSON_TYPE: body} if body is not None else {}), **(bodies or {})}
    usual = set() if by == "anybody" else {400, 401, 403, 500, 503}
    return Operation(
        tag=tag,
        returns={**({JSON_TYPE: returns} if returns is not None else {}), **(also or {})},
        caller=by,
        query=query or {},
        needed=frozenset(needed),
        headers=headers or {},
        body=sent,
        body_needed=body_needed,
        errors=frozenset({*usual, *errors, *({413} if sent else ())}),
        about=about,
    )


def written(operation: Operation, *, path_names: Iterable[str], name: str, docstring: str) -> Json:
    """The operation as OpenAPI has it."""
    first, _, rest = " ".join(docstring.split()).partition(". ")
    errors = operation.errors | ({404} if path_names else set())
    answer: Json = {
        "operationId": name,
        "tags": [operation.tag],
        "summary": first.rstrip("."),
        "parameters": [
            *({"name": one, "in": "path", "required": True, "schema": text(low=1)} for one in path_names),
            *(_parameter(one, "query", schema, operation.needed) for one, schema in operation.query.items()),
            *(_parameter(one, "header", schema, operation.needed) for one, schema in operation.headers.items()),
        ],
        "security": _SECURITY[operation.caller],
        "responses": {
            "200": {"description": "Done.", "headers": _request_id(), "content": _content(operation.returns)},
            **{str(status): _error(status) for status in sorted(errors)},
        },
    }
    about = " ".join(part for part in (rest, operation.about) if part)
    if about:
        answer["description"] = about
    if operation.body:
        answer["requestBody"] = {"required": operation.body_needed, "content": _content(operation.body)}
    return answer


def _parameter(name: str, place: str, schema: Schema, needed: frozenset[str]) -> Json:
    plain = {key: value for key, value in schema.items() if key != "description"}
    found: Json = {"name": name, "in": place, "required": name in needed, "schema": plain}
    if "description" in schema:
        found["description"] = schema["description"]
    return found


def _content(schemas: Mapping[str, Schema]) -> Json:
    found: Json = {}
    for media, schema in schemas.items():
        plain = {key: value for key, value in schema.items() if key != "examples"}
        found[media] = {"schema": plain}
        if "examples" in schema:
            found[media]["example"] = schema["examples"][0]
    return found


def _request_id() -> Json:
    return {"x-request-id": {"description": "Names this request in the logs.", "schema": {"type": "string"}}}


def _error(status: int) -> Json:
    headers = {**_request_id(), **_ERROR_HEADERS.get(status, {})}
    return {"description": ERRORS[status], "headers": headers, "content": _content({JSON_TYPE: ERROR})}
