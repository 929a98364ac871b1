"""The outermost layer of the API: what no endpoint should ever see, and what every answer carries.

Pure ASGI, so that streams pass through. It refuses requests that are malformed or oversized before anything reads them,
gives up on bodies that stop coming, turns whatever went wrong unforeseen into the error shape, and gives every response
its id and its security headers. Ids are always ours: a caller's own is never repeated.
"""

import asyncio
import logging
import re
import secrets
from collections import Counter

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cope.core.redaction import one_line
from cope_api.failures import BodyStalled, body_of, json_response, response_of

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 * 1024
_HOST = re.compile(rb"[A-Za-z0-9._-]{0,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_ONCE = (b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"transfer-encoding")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    # Answers hold keys, secrets and customers' texts: no proxy and no browser keeps them.
    "cache-control": "no-store",
}


class Guard:
    """Around the whole application. `counts` counts answers by status; `hsts_s` 0 sends no HSTS header."""

    def __init__(self, app: ASGIApp, counts: "Counter[int]") -> None:
        self._app = app
        self._counts = counts
        self.hsts_s = 0
        self.body_idle_s = 30.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._read_settings(scope)
        request_id, begun = f"req_{secrets.token_hex(16)}", False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._counts[message["status"]] += 1
                self._dress(MutableHeaders(scope=message), request_id)
            await send(message)

        refusal = _refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        try:
            await self._app(scope, _impatient(receive, self.body_idle_s), answer)
        except ClientDisconnect:
            return  # nobody is there to be told
        except BodyStalled as stalled:
            if not begun:
                await response_of(stalled)(scope, receive, answer)
        except Exception:
            target = one_line(f"{scope['method']} {scope['path']}", longest=200)
            logger.exception("%s failed (%s)", target, request_id)
            if begun:
                raise  # the server closes the connection: half an answer must not look whole
            failed = body_of("The server failed; the failure is logged.", status=500, code="internal")
            await json_response(failed, 500)(scope, receive, answer)

    def _read_settings(self, scope: Scope) -> None:
        parts = getattr(scope["app"].state, "parts", None)
        if parts is not None:
            self.hsts_s, self.body_idle_s = parts.settings.hsts_s, parts.settings.body_idle_s

    def _dress(self, headers: MutableHeaders, request_id: str) -> None:
        headers["x-request-id"] = request_id
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        if self.hsts_s:
            headers.setdefault("strict-transport-security", f"max-age={self.hsts_s}; includeSubDomains")


def _refusal(scope: Scope) -> Response | None:
    """What is wrong with the request before its body; None lets it pass."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        told = f"The headers may be at most {MAX_HEADERS} and {MAX_HEADER_BYTES} bytes in all."
        return _refused(told, 431, "headers_too_large")
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return _refused(f"The address may have at most {MAX_TARGET_BYTES} bytes.", 414, "address_too_long")
    seen = Counter(name for name, _ in headers)
    for name in _ONCE:
        if seen[name] > 1:
            return _refused(f"The header {name.decode()} is there twice.", 400, "duplicate_header")
    if seen[b"transfer-encoding"] and seen[b"content-length"]:
        # Two servers in a row could disagree about where this request ends.
        return _refused("Give `Content-Length` or `Transfer-Encoding`, not both.", 400, "ambiguous_length")
    if any(name == b"host" and not _HOST.fullmatch(value) for name, value in headers):
        return _refused("The header `Host` is not the name of a host.", 400, "invalid_host")
    return None


def _refused(message: str, status: int, code: str) -> Response:
    return json_response(body_of(message, status=status, code=code), status, {"connection": "close"})


def _impatient(receive: Receive, idle_s: float) -> Receive:
    """`receive`, given up where the body's next part does not come within `idle_s`. A body at its end has no limit:
    what is awaited then is only whether the caller goes away."""
    ended = False

    async def impatient() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(idle_s):
                message = await receive()
        except TimeoutError:
            raise BodyStalled(f"The body stopped coming: nothing for {idle_s:g} s.") from None
        ended = not message.get("more_body", False)
        return message

    return impatient
