"""A model server whose answers and delays a test decides, and which sees what becomes of every call."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """Answers every chat completion after `delay_s` with 5, or with the call's number (from 1), or as `script` says to
    the last message. Tokens have a log-probability of -0.5 each, where they are asked for.

    `answered` counts replies that were written to their end, `broken` callers that had gone by then.
    """

    def __init__(
        self, *, delay_s: float = 0.0, same_answer: bool = True, script: Callable[[str], str] | None = None
    ) -> None:
        self.delay_s = delay_s
        self.calls = self.answered = self.broken = self.in_flight = 0
        self._same_answer, self._script = same_answer, script
        self._lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                stand_in._serve(self, body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller that is gone: counted where the reply is written."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        """Its address, as the openai client wants it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.calls += 1
            number = self.calls
            self.in_flight += 1
        time.sleep(self.delay_s)
        text = f"It is \\boxed{{{5 if self._same_answer else number}}}."
        if self._script is not None:
            text = self._script(body["messages"][-1]["content"])
        scores = {"content": [{"token": word, "logprob": -0.5} for word in text.split()]}
        reply = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": scores if body.get("logprobs") else None,
                    "finish_reason": "stop",
                }
                for index in range(body.get("n") or 1)
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
        }
        data = json.dumps(reply).encode()
        try:
            handler.send_response(200)
            handler.send_header("content-type", "application/json")
            handler.send_header("content-length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:
            handler.close_connection = True
            with self._lock:
                self.broken += 1
                self.in_flight -= 1
            return
        with self._lock:
            self.answered += 1
            self.in_flight -= 1
