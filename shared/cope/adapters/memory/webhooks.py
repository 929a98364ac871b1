"""A webhook sender that keeps what it was given."""

from collections.abc import Callable

from cope.ports.support import WebhookReply, WebhookRequest

_ACCEPTED = WebhookReply(status=200, error=None, excerpt="", retry_after_s=None)


def _accept(request: WebhookRequest) -> WebhookReply:
    return _ACCEPTED


class RecordingWebhookSender:
    """`sent` keeps every request in order; `answer` decides what the receiver says (200 unless told otherwise).

    Addresses in `refused` are refused with their reason; the others must begin with ``http``.
    """

    def __init__(
        self,
        answer: Callable[[WebhookRequest], WebhookReply] = _accept,
        *,
        refused: dict[str, str] | None = None,
    ) -> None:
        self._answer = answer
        self._refused = refused or {}
        self.sent: list[WebhookRequest] = []

    async def send(self, request: WebhookRequest) -> WebhookReply:
        """Keep it and answer."""
        self.sent.append(request)
        return self._answer(request)

    def refuse_reason(self, url: str) -> str | None:
        """The reason given for this address, or None."""
        if not url.startswith(("http://", "https://")):
            return "a webhook address begins with https:// or http://"
        return self._refused.get(url)

    async def aclose(self) -> None:
        """Nothing to close."""
