"""The HTTP side: reads requests, carries faults out on the wire, and takes orders at `/_control`."""

import asyncio
import socket
import struct
import time
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.paid_api import replies
from tests.paid_api.answers import Asked
from tests.paid_api.desk import Call, Desk, Reply, Told
from tests.paid_api.faults import retry_headers
from tests.paid_api.options import OUTAGES, latency

_JSON, _EVENTS = "application/json", "text/event-stream"


class Provider:
    """One provider behind aiohttp's plain server."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._session: ClientSession | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request."""
        if request.path == "/v1/chat/completions" and request.method == "POST":
            return await self._chat(request)
        if request.path == "/v1/models" and request.method == "GET":
            names = self._desk.options.models or ("paid-large",)
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "paid-api"} for name in names]
            return web.Response(body=orjson.dumps({"object": "list", "data": data}), content_type=_JSON)
        if request.path == "/_control" and request.method == "POST":
            return await self._control(request)
        body = replies.error(f"There is no {request.method} {request.path}.", "invalid_request_error", "not_found")
        return web.Response(status=404, body=body, content_type=_JSON)

    async def aclose(self) -> None:
        """Close connections to the upstream."""
        if self._session is not None:
            await self._session.close()

    # ---- a call ----------------------------------------------------------------------------------------------------

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        desk = self._desk
        key = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        raw = await request.read()
        call = desk.arrive(key, request.headers.get("x-client-request-id"))
        if desk.outage in {"hang", "reset"}:
            await desk.write_down(call, Reply(0, error_code="outage"), billed=False, status=0)
            return await _hang(request) if desk.outage == "hang" else _reset(request)
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        refused = desk.admit(call, body)
        if refused is not None:
            await desk.write_down(call, refused, billed=False, status=refused.status)
            return self._response(call, refused)
        try:
            assert call.asked is not None
            return await self._admitted(request, call, call.asked)
        finally:
            desk.end(call)

    async def _admitted(self, request: web.BaseRequest, call: Call, asked: Asked) -> web.StreamResponse:
        desk, fault = self._desk, call.fault
        delay_s = desk.latency_s(call)
        if delay_s:
            await asyncio.sleep(delay_s)
        text = desk.answers.text("\n".join(asked.texts))
        told: Told | None = None
        if desk.options.upstream is not None:
            found = await self._upstream(raw_body=await request.read(), model=desk.options.upstream_model)
            if isinstance(found, Reply):
                desk.actual(call, 0)
                await desk.write_down(call, found, billed=False, status=found.status)
                return self._response(call, found)
            text, told = found
        reply = desk.answer(call, asked, text, told)
        billed = fault is None or fault.billed
        desk.actual(call, reply.prompt + reply.completion if billed else 0)
        name = None if fault is None else fault.name
        status = 200
        if fault is not None and name == "server_error":
            status = int(fault.options["status"])
        elif name == "hang":
            status = 0
        await desk.write_down(call, reply, billed=billed, status=status)
        if fault is None:
            return self._response(call, reply)
        if name == "server_error":
            return self._server_error(call, fault.options["body"], status)
        if name == "hang":
            return await _hang(request, fault.options["seconds"])
        if name == "drip":
            return await self._drip(request, call, reply, float(fault.options["delay_s"]))
        if name == "cut":
            return await self._cut(request, call, reply, str(fault.options["how"]), float(fault.options["after"]))
        return self._response(call, reply)

    async def _upstream(self, *, raw_body: bytes, model: str | None) -> Reply | tuple[str, Told]:
        """The text and tokens of the model behind, or the refusal to pass on. Always asked for a whole answer."""
        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(total=600))
        body = orjson.loads(raw_body)
        for name in ("stream", "stream_options"):
            body.pop(name, None)
        if model is not None:
            body["model"] = model
        try:
            address = f"{str(self._desk.options.upstream).rstrip('/')}/chat/completions"
            async with self._session.post(address, data=orjson.dumps(body), headers={"content-type": _JSON}) as answer:
                content = await answer.read()
                if answer.status >= 400:
                    return Reply(answer.status, content, error_code="upstream")
            whole = orjson.loads(content)
            usage = whole["usage"]
            choice = whole["choices"][0]
            told = Told(int(usage["prompt_tokens"]), int(usage["completion_tokens"]), str(choice["finish_reason"]))
            return choice["message"]["content"], told
        except (ClientError, OSError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as broken:
            message = replies.error(f"The model is away: {type(broken).__name__}.", "server_error", None)
            return Reply(502, message, error_code="upstream_away")

    # ---- on the wire -----------------------------------------------------------------------------------------------

    def _headers(self, call: Call, reply: Reply) -> dict[str, str]:
        headers = {"content-type": _JSON, "x-request-id": f"req_{call.number:012d}"}
        if call.asked is not None and call.asked.stream and reply.status == 200:
            headers["content-type"] = _EVENTS
        if call.meter is not None:
            headers |= replies.limit_headers(call.meter, time.monotonic())
        return headers | reply.headers

    def _response(self, call: Call, reply: Reply) -> web.Response:
        return web.Response(status=reply.status, body=reply.body, headers=self._headers(call, reply))

    def _server_error(self, call: Call, body: str, status: int) -> web.Response:
        bodies = {
            "json": (_JSON, replies.error("The server had an error.", "server_error", None)),
            "html": ("text/html", f"<html><h1>{status}</h1></html>".encode()),
            "empty": ("text/plain", b""),
        }
        kind, content = bodies[body]
        assert call.fault is not None
        headers = retry_headers(call.fault, datetime.now(UTC))
        return self._response(call, Reply(status, content, {"content-type": kind, **headers}))

    async def _drip(self, request: web.BaseRequest, call: Call, reply: Reply, delay_s: float) -> web.StreamResponse:
        response = await self._begun(request, call, reply)
        for at in range(len(reply.body)):
            await response.write(reply.body[at : at + 1])
            await asyncio.sleep(delay_s)
        await response.write_eof()
        return response

    async def _cut(
        self, request: web.BaseRequest, call: Call, reply: Reply, how: str, after: float
    ) -> web.StreamResponse:
        if after <= 0 and how == "reset":
            return _reset(request)
        response = await self._begun(request, call, reply)
        await response.write(reply.body[: int(len(reply.body) * after)])
        await asyncio.sleep(0.02)  # what was written reaches the caller before the end does
        if how == "reset":
            return _reset(request)
        if request.transport is not None:
            request.transport.close()
        return response

    async def _begun(self, request: web.BaseRequest, call: Call, reply: Reply) -> web.StreamResponse:
        headers = self._headers(call, reply) | {"content-length": str(len(reply.body))}
        response = web.StreamResponse(status=reply.status, headers=headers)
        await response.prepare(request)
        return response

    # ---- orders ----------------------------------------------------------------------------------------------------

    async def _control(self, request: web.BaseRequest) -> web.Response:
        try:
            self._order(orjson.loads(await request.read() or b"{}"))
        except (ValueError, TypeError, KeyError) as wrong:
            return web.Response(status=400, body=replies.error(str(wrong), "invalid_request_error", None))
        return web.Response(body=orjson.dumps(self._snapshot()), content_type=_JSON)

    def _order(self, order: dict[str, Any]) -> None:
        desk = self._desk
        known = {"script", "answers", "outage", "quota_exhausted", "limits", "latency_s"}
        if set(order) - known:
            raise ValueError(f"an order has {', '.join(sorted(known))}, not {', '.join(sorted(set(order) - known))}")
        if "script" in order:
            desk.set_script(order["script"] or {})
        if "answers" in order:
            desk.answers = type(desk.answers)(order["answers"] or {})
        if "outage" in order:
            if order["outage"] not in OUTAGES:
                raise ValueError(f"outage is one of {', '.join(OUTAGES)}")
            desk.outage = order["outage"]
        if "quota_exhausted" in order:
            whom = order["quota_exhausted"]
            desk.quota_exhausted = whom if isinstance(whom, bool) else frozenset(whom)
        if "latency_s" in order:
            desk.options.latency_s = latency(str(order["latency_s"]))
        if "limits" in order:
            limits = order["limits"]
            if set(limits) - {"rpm", "tpm", "concurrency"}:
                raise ValueError("limits are rpm, tpm and concurrency")
            for name, value in limits.items():
                setattr(desk.options.limits, name, None if value is None else int(value))
            desk.note_limits()

    def _snapshot(self) -> dict[str, Any]:
        desk, now = self._desk, time.monotonic()
        counts = {
            name: desk.counts[name]
            for name in ("calls", "in_flight", "admitted", "refused_requests", "refused_tokens", "refused_concurrency",
                         "billed_calls", "billed_nano")
        }  # fmt: skip
        windows = {
            key: {"requests": meter.requests.used(now), "tokens": meter.tokens.used(now), "in_flight": meter.in_flight}
            for key, meter in desk.meters.items()
        }
        statuses = {str(status): count for status, count in desk.statuses.items()}
        return {**counts, "monotonic_s": now, "by_status": statuses, "windows": windows}


async def _hang(request: web.BaseRequest, seconds: float | None = None) -> web.StreamResponse:
    """Says nothing until the caller has gone, or for so long."""
    until = None if seconds is None else time.monotonic() + float(seconds)
    while request.transport is not None and not request.transport.is_closing():
        if until is not None and time.monotonic() >= until:
            break
        await asyncio.sleep(0.05)
    return _reset(request)


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """Cuts the connection with a TCP reset."""
    if request.transport is not None:
        own: socket.socket | None = request.transport.get_extra_info("socket")
        if own is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()
