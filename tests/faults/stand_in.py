"""A model server whose answers and delays a test decides, and which sees what becomes of every call."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """Answers every chat completion with `answers(number)` after `delay_s`; numbers count calls from 1.

    `answered` counts replies that were written to their end, `broken` callers that had gone by then.
    """

    def __init__(self, *, delay_s: float = 0.0, same_answer: bool = True) -> None:
        self.delay_s = delay_s
        self.calls = self.answered = self.broken = self.in_flight = 0
        self._same_answer = same_answer
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
        answer = 5 if self._same_answer else number
        reply = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": f"It is \\boxed{{{answer}}}."},
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
