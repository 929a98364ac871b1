"""What every endpoint needs: the parts, who calls, the body."""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import orjson
from fastapi import Request

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, Forbidden, NotFound, TooLarge, Unauthorized
from cope.core.ids import ProjectId
from cope.core.json_guard import check_json
from cope.core.records import Project
from cope.ports.store import Principal
from cope_api.scopes import check_scopes

MAX_BODY_BYTES = 16 * 1024 * 1024
KEY_CACHE_S = 0.5
_KEY_CACHE_SIZE = 10_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Gate:
    """Who calls, and whether they may. Keys that were found are remembered for half a second, in each process: that is
    how long a revoked, expired or rotated one may still work. A secret is never compared, only its hash looked up."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._admins = parts.settings.admin_key_hashes

    async def principal(self, request: Request) -> Principal:
        """The caller. Raises `Unauthorized`, and `Forbidden` for a key without the scope that this address needs."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("Give an API key: `Authorization: Bearer <key>`.")
        digest = hashlib.sha256(secret.strip().encode("utf-8", "surrogatepass")).digest()
        if self._is_admin(digest):
            return Principal(None, None)
        known = self._known.get(digest)
        if known is None or known[0] < time.monotonic():
            asked_at = time.monotonic()
            key = await self._parts.store.find_key(digest)
            if key is None:
                self._known.pop(digest, None)
                raise Unauthorized("This API key is unknown, expired or revoked.")
            if len(self._known) > _KEY_CACHE_SIZE:
                self._known.clear()
            principal = Principal(key.project_id, key.id, key.scopes)
            # From the question on, not from the answer: a slow database must not make a revoked key live longer.
            known = self._known[digest] = asked_at + KEY_CACHE_S, principal
        self._check_project_header(request, known[1])
        check_scopes(known[1].scopes, request.method, request.scope["route"].path)
        return known[1]

    def forget(self) -> None:
        """Look every key up again: one was revoked or rotated through this very process."""
        self._known.clear()

    def _is_admin(self, digest: bytes) -> bool:
        # All of them, always, each in constant time: how long it takes says neither whether nor which one was near.
        return sum(hmac.compare_digest(digest, admin) for admin in self._admins) > 0

    @staticmethod
    def _check_project_header(request: Request, principal: Principal) -> None:
        named = request.headers.get("openai-project")
        if named and named != principal.project_id:
            raise Forbidden("`OpenAI-Project` names another project than this key's.")


def parts_of(request: Request) -> ApiParts:
    """The API's parts."""
    return cast("ApiParts", request.app.state.parts)


async def project_of(request: Request) -> tuple[ApiParts, ProjectId, Principal]:
    """The parts and the caller's project. Raises `Forbidden` for the admin key, which has none."""
    gate: Gate = request.app.state.gate
    principal = await gate.principal(request)
    if principal.project_id is None:
        raise Forbidden("The admin key belongs to no project: use a project's key here.")
    return parts_of(request), principal.project_id, principal


async def admin_of(request: Request) -> ApiParts:
    """The parts, for the operator only. Raises `Forbidden`."""
    gate: Gate = request.app.state.gate
    if not (await gate.principal(request)).is_admin:
        raise Forbidden("This needs the admin key.")
    return parts_of(request)


async def project_row(parts: ApiParts, project_id: ProjectId) -> Project:
    """A project. Raises `NotFound`."""
    project = await parts.store.get_project(project_id)
    if project is None:
        raise NotFound(f"There is no project {project_id!r}.")
    return project


def declared_length(request: Request) -> int:
    """What `Content-Length` says, in bytes; 0 where it is not there or not a number."""
    return _count(request.headers.get("content-length", ""))


def retry_count(request: Request) -> int:
    """Which of the SDK's own retries this is; 0 for the first try."""
    return _count(request.headers.get("x-stainless-retry-count", ""))


def _count(told: str) -> int:
    # `isdigit` alone also takes ² and ٣, which are no numbers to `int`, or other ones.
    return int(told) if told.isascii() and told.isdigit() and len(told) < 19 else 0


async def raw_body(request: Request) -> bytes:
    """The body, bounded. Raises `TooLarge`."""
    if declared_length(request) > MAX_BODY_BYTES:
        raise TooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise TooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")
    return bytes(data)


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises `BadRequest`; orjson itself refuses lone surrogates and bad UTF-8, `check_json`
    deep nesting, NUL and keys given twice."""
    try:
        value = orjson.loads(raw or b"{}")
    except orjson.JSONDecodeError as wrong:
        raise BadRequest(f"The body is not JSON: {wrong}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    check_json(raw, value)
    return value


def only_keys(body: Mapping[str, object], allowed: frozenset[str]) -> None:
    """Refuse a key that is not in `allowed`, by name."""
    for key in body:
        if key not in allowed:
            raise BadRequest(
                f"Unknown key `{key}`. Known keys: {', '.join(sorted(allowed))}.", param=key, code="unknown_parameter"
            )


def limit_of(request: Request, *, default: int, most: int) -> int:
    """The `limit` query parameter in [1, most]."""
    told = request.query_params.get("limit")
    if told is None:
        return default
    if not told.isascii() or not told.isdigit() or len(told) > 9 or not 1 <= int(told) <= most:
        raise BadRequest(f"`limit` must be a whole number from 1 to {most}.", param="limit")
    return int(told)


def text_query(request: Request, name: str) -> str | None:
    """A query parameter's text; NUL is refused."""
    value = request.query_params.get(name)
    if value is not None and ("\x00" in value or len(value) > 512):
        raise BadRequest(f"`{name}` is not valid.", param=name)
    return value


def clean_id(value: str) -> str:
    """An id from a path: anything that can't be one is simply not found."""
    if not _ID.fullmatch(value):
        raise NotFound("There is no such object.")
    return value


def seconds(moment: datetime | None) -> int | None:
    """Unix seconds, as OpenAI writes times."""
    return None if moment is None else int(moment.timestamp())


def list_body(items: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """OpenAI's list object."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
