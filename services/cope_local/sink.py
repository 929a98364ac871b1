"""A loopback receiver of webhooks that believes only what the stock client's `webhooks.unwrap` accepts."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openai import InvalidWebhookSignatureError, OpenAI


class WebhookSink:
    """Listens on a free loopback port from construction to `close`; `received` holds (event type, object id)."""

    def __init__(self, secret: str) -> None:
        self.received: list[tuple[str, str]] = []
        self.forged = 0
        client = OpenAI(api_key="unused", webhook_secret=secret)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                try:
                    event = client.webhooks.unwrap(body, dict(self.headers))
                except (InvalidWebhookSignatureError, ValueError):
                    sink.forged += 1
                    self.send_response(400)
                else:
                    sink.received.append((str(event.type), str(getattr(event.data, "id", ""))))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to send to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
