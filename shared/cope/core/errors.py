"""One error tree. `retryable` says whether the same work may succeed later; HTTP statuses are known to the API only.

CopeError
├── BadRequest                what the caller sent can't be served; `param` says where, the message how to mend it
│   └── NotAvailableYet       a documented option whose feature is not built
├── NotFound                  no such thing, or not in this project
├── Conflict                  the same idempotency key with another body, a state that forbids the action
├── Gone                      it was there and is no longer kept
├── TooLarge                  a body, file, line or nesting over its limit
├── StorageFull               the place where files lie takes no more bytes: only the operator can mend it
├── StorageUnavailable        the place where files lie did not answer: retryable
├── BudgetExhausted           a cap refuses the worst case of a paid call
├── Unauthorized / Forbidden  no key, a wrong key / a key that may not
├── Misconfigured             a setting is missing or contradicts another; the process must not start
│   └── Unpriced              a paid model without a price in force: refused, never free
├── SinkUnavailable           what the event log is relayed to did not take it: retryable
├── AnswerHelperUnavailable   no process that reads answers can be started: retryable, nobody's answer is to blame
├── SandboxUnavailable        no sandbox that holds foreign programs: the operator can mend it, no program is to blame
└── ModelError                a model call failed
    ├── ModelUnreachable      nothing was sent, or an idempotent call broke: retryable
    ├── ModelRateLimited      429; `retry_after_s` where the provider says it: retryable, not the task's fault
    ├── ModelOverloaded       5xx or a time-out: retryable
    ├── ModelQuotaExhausted   the provider's own money is gone: a hold, never an attempt
    ├── ModelKeyRefused       401 or 403: the key, not the task; another endpoint, or a hold
    ├── ModelRejected         4xx: repeating can't help
    │   └── ContextTooLong    prompt and output limit do not fit the model's context
    └── ModelMalformed        200 with an unreadable body: retryable, and paid for
"""

from dataclasses import dataclass

from cope.core.limits.hints import NO_HINTS, RateHints


class CopeError(Exception):
    """Root. `code` is stable and machine-readable; `message` is written for the caller."""

    code = "error"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class BadRequest(CopeError):
    """The request can't be served as it stands. `param` is a dotted path into the body, or None for the whole."""

    code = "invalid_value"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


class NotAvailableYet(BadRequest):
    """A documented option whose feature this version does not serve: refused by name, never dropped silently."""

    code = "not_available_yet"


class NotFound(CopeError):
    """No such object in this project."""

    code = "not_found"


class StorageFull(CopeError):
    """The disk, or the account behind the file store, takes no more."""

    code = "storage_full"


class StorageUnavailable(CopeError):
    """The file store did not answer. Nothing half-written is visible."""

    code = "storage_unavailable"
    retryable = True


class Conflict(CopeError):
    """The object's state, or an earlier request, forbids this one."""

    code = "conflict"


class Gone(CopeError):
    """It was there once and is no longer kept. The message says what is."""

    code = "gone"


class TooLarge(CopeError):
    """Over a limit on bytes, lines, line length or nesting."""

    code = "too_large"


class BudgetExhausted(CopeError):
    """The worst case of the next paid call does not fit under the cap."""

    code = "project_spend_limit_exceeded"


class Unauthorized(CopeError):
    """No API key, or one that is unknown, expired or revoked."""

    code = "invalid_api_key"


class Forbidden(CopeError):
    """The key is good, but not for this."""

    code = "insufficient_permissions"


class StoreUnavailable(CopeError):
    """The database did not answer. A write under way may or may not have been committed, wholly."""

    code = "store_unavailable"
    retryable = True


class Misconfigured(CopeError):
    """A setting is missing or contradicts another. The message names it."""

    code = "misconfigured"


class Unpriced(Misconfigured):
    """A paid model has no price in force at the moment. The message holds the command that adds one."""

    code = "model_not_priced"


class SinkUnavailable(CopeError):
    """What the event log is relayed to did not take all of it."""

    code = "sink_unavailable"
    retryable = True


class AnswerHelperUnavailable(CopeError):
    """The helper that reads answers can't be started. Answers must not count as unparsable for it."""

    code = "answer_helper_unavailable"
    retryable = True


class SandboxUnavailable(CopeError):
    """Programs that a model wrote can't be run safely here, so none is run. The message says what is missing."""

    code = "sandbox_unavailable"


class ModelError(CopeError):
    """A model call failed.

    `sent` is False only where it is certain that nothing reached the provider; `answered` is True where the provider
    itself refused with an error status, which no provider bills. Sent and unanswered: it may have been billed. That
    holds for 500, 502 and 504 too: they may come after the work.
    """

    code = "model_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        sent: bool = True,
        answered: bool = False,
        retry_after_s: float | None = None,
        hints: RateHints = NO_HINTS,
    ) -> None:
        super().__init__(message, code=code)
        self.sent = sent
        self.answered = answered
        self.retry_after_s = hints.retry_after_s if retry_after_s is None else retry_after_s
        self.hints = hints


class ModelUnreachable(ModelError):
    """Connection refused, reset or cut."""

    code = "model_unreachable"
    retryable = True


class ModelRateLimited(ModelError):
    """429 with a wait. Costs the task no try."""

    code = "rate_limited"
    retryable = True


class ModelOverloaded(ModelError):
    """5xx or a time-out."""

    code = "model_overloaded"
    retryable = True


class ModelQuotaExhausted(ModelError):
    """429 `insufficient_quota`: the provider wants money. The task is held."""

    code = "provider_quota"
    retryable = True


class ModelKeyRefused(ModelError):
    """401, or a 403 that does not speak of the request's content: the provider refuses the API key, not the task."""

    code = "provider_key_refused"
    retryable = True

    def __init__(self, message: str, *, certain: bool, hints: RateHints = NO_HINTS) -> None:
        super().__init__(message, answered=True, hints=hints)
        self.certain = certain


class ModelRejected(ModelError):
    """Another 4xx: the same request will be refused again."""

    code = "model_rejected"


class ContextTooLong(ModelRejected):
    """Prompt and output limit exceed the model's context."""

    code = "context_length_exceeded"


class ModelMalformed(ModelError):
    """A successful answer that can't be read."""

    code = "model_malformed"
    retryable = True


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as it is stored and shown: code, message and, where known, the parameter and the status to report."""

    code: str
    message: str
    param: str | None = None
    status: int | None = None
