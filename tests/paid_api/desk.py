"""What becomes of one call: let in or refused, answered, billed, and written down. No HTTP here."""

import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tests.paid_api import replies
from tests.paid_api.answers import Answers, Asked, read_request
from tests.paid_api.faults import Fault, Script, retry_headers, strange_usage
from tests.paid_api.journal import Journal, Row
from tests.paid_api.options import Options
from tests.paid_api.window import Entry, Meter, Refusal

_REFUSALS: dict[str, tuple[int, str, str, str]] = {
    "rate_limited": (429, "Rate limit reached.", "requests", "rate_limit_exceeded"),
    "quota": (429, "You exceeded your current quota, please check your plan.", "insufficient_quota",
              "insufficient_quota"),
    "unauthorized": (401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    "forbidden": (403, "You are not allowed to use this model.", "invalid_request_error", "forbidden"),
    "not_found": (404, "The model does not exist.", "invalid_request_error", "model_not_found"),
    "context_length": (400, "This model's maximum context length is exceeded.", "invalid_request_error",
                       "context_length_exceeded"),
}  # fmt: skip


@dataclass(slots=True)
class Call:
    """One request from its arrival to its end. `wire` is the id that the answer carries."""

    number: int
    key: str
    client_request_id: str | None
    arrived_s: float
    arrived_at: float
    asked: Asked | None = None
    fault: Fault | None = None
    meter: Meter | None = None
    entry: Entry | None = None
    admitted_s: float | None = None
    reserved: int = 0
    wire: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send: a status of 0 sends nothing."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    error_code: str | None = None
    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What a real model said of its text: tokens, and why it ended."""

    prompt: int
    completion: int
    finish_reason: str


class Desk:
    """Everything the server knows. One event loop, one instance."""

    def __init__(self, options: Options, journal: Journal) -> None:
        self.options = options
        self.journal = journal
        self.script = Script(options.script)
        self.answers = Answers(options.answers)
        self.outage = "off"
        self.quota_exhausted: bool | frozenset[str] = False
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._last = journal.last_number()
        self._script_base = 0
        self.meters: dict[str, Meter] = {}
        now = time.monotonic()
        for key, at, tokens in journal.admitted_since(now - options.limits.window_s):
            meter = self.meter(key)  # a restarted provider remembers what it let in
            meter.requests.add(at, 1)
            meter.tokens.add(at, tokens)
        self.note_limits()

    def note_limits(self) -> None:
        """Put the limits that hold into the books and on every key."""
        limits = self.options.limits
        for meter in self.meters.values():
            meter.requests.limit, meter.tokens.limit, meter.concurrency = limits.rpm, limits.tpm, limits.concurrency
        self.journal.settings(
            {"rpm": limits.rpm, "tpm": limits.tpm, "concurrency": limits.concurrency, "window_s": limits.window_s}
        )

    def meter(self, key: str) -> Meter:
        """The limits' state of one key."""
        if key not in self.meters:
            limits = self.options.limits
            self.meters[key] = Meter(
                rpm=limits.rpm, tpm=limits.tpm, concurrency=limits.concurrency, window_s=limits.window_s
            )
        return self.meters[key]

    def set_script(self, source: dict[str, Any]) -> None:
        """Faults from now on; call numbers in it count from here."""
        self.script = Script(source)
        self._script_base = self._last

    def arrive(self, key: str, client_request_id: str | None) -> Call:
        """A request came in."""
        self._last += 1
        self.counts["calls"] += 1
        return Call(self._last, key, client_request_id, time.monotonic(), time.time())

    def admit(self, call: Call, body: Any) -> Reply | None:
        """None for a call that is let in, which then must be `end`ed; otherwise its refusal."""
        options = self.options
        if self.outage == "503":
            return Reply(503, replies.error("The server is down.", "server_error", None), error_code="outage")
        if options.keys and call.key not in options.keys:
            return self._scripted("unauthorized")
        if self.quota_exhausted is True or (self.quota_exhausted and call.key in self.quota_exhausted):
            return self._scripted("quota")
        try:
            call.asked = asked = read_request(body, default_max_tokens=options.default_max_tokens)
        except ValueError as wrong:
            return Reply(400, replies.error(str(wrong), "invalid_request_error", None), error_code="bad_request")
        if options.models and asked.model not in options.models:
            return self._scripted("not_found")
        prompt = options.counting.prompt(asked.texts)
        if prompt + asked.most > options.context:
            return self._scripted("context_length")
        call.fault = self.script.fault(
            call.number - self._script_base, prompt="\n".join(asked.texts), key=call.key, model=asked.model
        )
        if call.fault is not None and call.fault.refuses:
            headers = retry_headers(call.fault, datetime.now(UTC)) if call.fault.name == "rate_limited" else {}
            return self._scripted(call.fault.name, headers)
        return self._limited(call, asked, prompt)

    def _limited(self, call: Call, asked: Asked, prompt: int) -> Reply | None:
        call.meter = meter = self.meter(call.key)
        call.reserved = prompt + asked.most * asked.n
        now = time.monotonic()
        admitted = meter.admit(now, call.reserved)
        if isinstance(admitted, Entry):
            call.entry, call.admitted_s = admitted, now
            self.counts["admitted"] += 1
            self.counts["in_flight"] += 1
            return None
        self.counts[f"refused_{admitted.limit}"] += 1
        call.reserved = 0
        return self._over(meter, admitted, now)

    def _over(self, meter: Meter, refusal: Refusal, now: float) -> Reply:
        limits = replies.limit_headers(meter, now)
        kind = "tokens" if refusal.limit == "tokens" else "requests"
        if refusal.wait_s is None:
            message, wait = f"Request too large: it exceeds the limit of {kind} by itself.", {}
        else:
            message, wait = f"Rate limit reached on {refusal.limit}.", replies.wait_headers(refusal.wait_s)
        body = replies.error(message, kind, "rate_limit_exceeded")
        return Reply(429, body, {**limits, **wait}, error_code="rate_limit_exceeded")

    def _scripted(self, name: str, headers: dict[str, str] | None = None) -> Reply:
        status, message, kind, code = _REFUSALS[name]
        return Reply(status, replies.error(message, kind, code), headers or {}, error_code=code)

    def latency_s(self, call: Call) -> float:
        """How long this call takes to answer, by its number."""
        low, high = self.options.latency_s
        slow = float(call.fault.options["seconds"]) if call.fault is not None and call.fault.name == "slow" else 0.0
        return low + slow if low == high else random.Random(call.number).uniform(low, high) + slow

    def answer(self, call: Call, asked: Asked, text: str, told: Told | None) -> Reply:
        """The good answer, or what its fault makes of it. `told` comes with the text of a real model."""
        counting, fault = self.options.counting, call.fault
        if told is None:
            text, cut = counting.clip(text, asked.most)
            prompt, reason = counting.prompt(asked.texts), "length" if cut else "stop"
            completion = self.answers.billed_tokens(asked, counting.completion(text)) * asked.n
        else:
            prompt, completion, reason = told.prompt, told.completion, told.finish_reason
        cached = counting.cached(prompt)
        name = None if fault is None else fault.name
        if fault is not None and name == "overbilling":
            completion = asked.most * asked.n * int(fault.options["factor"])
        usage: Any = replies.usage(prompt, cached, completion)
        if fault is not None and name == "strange_usage":
            usage = strange_usage(fault, usage)
        elif name == "missing_usage":
            usage = None
        choices = [] if name == "empty_choices" else [(text, reason)] * asked.n
        head = {"id": call.wire, "created": int(call.arrived_at), "model": asked.model}
        streamed = asked.stream
        body = replies.stream(asked, head, choices, usage) if streamed else replies.completion(head, choices, usage)
        if name == "broken_json":
            body = body[: len(body) * 2 // 3] + b'"}!'
        return Reply(200, body, prompt=prompt, cached=cached, completion=completion)

    def actual(self, call: Call, tokens: int) -> None:
        """The call's true size is known: the token limit is corrected, where the rule says so."""
        if self.options.limits.rule == "correct" and call.entry is not None and call.meter is not None:
            call.meter.tokens.correct(time.monotonic(), call.entry, tokens)

    def end(self, call: Call) -> None:
        """An admitted call is over, whatever became of it."""
        if call.meter is not None and call.entry is not None:
            call.meter.done()
            self.counts["in_flight"] -= 1

    async def write_down(self, call: Call, reply: Reply, *, billed: bool, status: int) -> None:
        """Put the call into the books; returns when it is durable there. A `duplicate` is billed a second time."""
        asked = call.asked
        nano = self.options.tariff.bill(prompt=reply.prompt, cached=reply.cached, completion=reply.completion)
        row = Row(
            number=call.number,
            provider_id=call.wire,
            arrived_s=call.arrived_s,
            arrived_at=call.arrived_at,
            admitted_s=call.admitted_s,
            client_request_id=call.client_request_id,
            api_key=call.key,
            prompt_hash="" if asked is None else asked.prompt_hash,
            model="" if asked is None else asked.model,
            stream=asked is not None and asked.stream,
            fault=None if call.fault is None else call.fault.name,
            status=status,
            error_code=reply.error_code,
            prompt_tokens=reply.prompt if billed else 0,
            cached_tokens=reply.cached if billed else 0,
            completion_tokens=reply.completion if billed else 0,
            billed=billed,
            billed_nano=nano if billed else 0,
            reserved_tokens=call.reserved,
            charged_tokens=0 if call.entry is None else call.entry.amount,
        )
        rows: tuple[Row, ...] = (row,)
        if call.fault is not None and call.fault.name == "duplicate" and billed:
            rows = (row, replace(row, provider_id=f"chatcmpl-{uuid.uuid4().hex}"))
        await self.journal.append(*rows)
        self.statuses[status] += 1
        self.counts["billed_calls"] += len(rows) if billed else 0
        self.counts["billed_nano"] += sum(one.billed_nano for one in rows)
