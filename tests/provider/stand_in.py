"""A provider with a Batch API over HTTP, in the test's own process: files, batches, result files, and its books.

It outlives whatever is killed, and may do the killing: `hooks["create"]` is called with ``"before"`` or ``"after"``
around the handling of that request, and with ``"answered"`` once the answer is on the wire.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Reply = tuple[int, bytes]

_ROUTES = [
    ("POST", r"/v1/files", "upload"),
    ("GET", r"/v1/files/([^/]+)/content", "content"),
    ("POST", r"/v1/batches", "create"),
    ("GET", r"/v1/batches", "list"),
    ("GET", r"/v1/batches/([^/]+)", "retrieve"),
    ("POST", r"/v1/batches/([^/]+)/cancel", "cancel"),
    ("POST", r"/v1/chat/completions", "chat"),
]


class BatchStandIn:
    """Carries every batch out `done_after_s` after its creation (None: when `finish` is called).

    `billed` has the custom id of each line that was carried out, `live` counts chat calls. `refuse` maps a request's
    name to the (status, headers, body) it is answered with instead.
    """

    def __init__(self, *, done_after_s: float | None = 0.0, page: int = 100) -> None:
        self.done_after_s = done_after_s
        self.page = page
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.due: dict[str, float] = {}
        self.billed: list[str] = []
        self.live = 0
        self.asked: list[str] = []
        self.hooks: dict[str, Callable[[str], None]] = {}
        self.refuse: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self._lock = threading.RLock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_GET(self) -> None:
                stand_in._serve(self, "GET")

            def do_POST(self) -> None:
                stand_in._serve(self, "POST")

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller that was killed."""

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

    def finish(self, batch_id: str, *, status: str = "completed", done: int | None = None) -> None:
        """End a batch with its first `done` lines carried out (None: all)."""
        with self._lock:
            batch = self.batches[batch_id]
            lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines() if line.strip()]
            done = len(lines) if done is None else done
            self.billed += [line["custom_id"] for line in lines[:done]]
            batch["output_file_id"] = self._keep([self._line(line) for line in lines[:done]])
            batch["error_file_id"] = self._keep(
                [
                    {
                        "id": f"batch_req_{line['custom_id']}",
                        "custom_id": line["custom_id"],
                        "response": None,
                        "error": {"code": f"batch_{status}", "message": "not carried out"},
                    }
                    for line in lines[done:]
                ]
            )
            batch["request_counts"] = {"total": len(lines), "completed": done, "failed": len(lines) - done}
            batch["status"] = status

    # ---- requests --------------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        raw = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        url = urlsplit(handler.path)
        found = [
            (name, match.groups())
            for verb, pattern, name in _ROUTES
            if verb == method and (match := re.fullmatch(pattern, url.path)) is not None
        ]
        if not found:
            self._answer(handler, 404, {}, _error("There is no such thing."))
            return
        ((name, groups),) = found
        hook = self.hooks.get(name, _nothing)
        hook("before")
        headers: dict[str, str] = {}
        with self._lock:
            self.asked.append(name)
            if name in self.refuse:
                status, headers, body = self.refuse[name]
            else:
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                status, body = self._carry_out(name, groups, query, raw, handler.headers)
        hook("after")
        self._answer(handler, status, headers, body)
        hook("answered")

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        try:
            handler.send_response(status)
            for header, value in {"content-type": "application/json", **headers}.items():
                handler.send_header(header, value)
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            handler.wfile.flush()
        except OSError:
            handler.close_connection = True

    def _carry_out(self, name: str, groups: tuple[str, ...], query: dict[str, str], raw: bytes, headers: Any) -> Reply:
        for batch_id, due in list(self.due.items()):
            if time.monotonic() >= due:
                del self.due[batch_id]
                batch = self.batches[batch_id]
                if batch["status"] == "cancelling":
                    self.finish(batch_id, status="cancelled", done=0)
                else:
                    self.finish(batch_id)
        if name == "upload":
            return self._upload(raw, headers["content-type"])
        if name == "content":
            return (200, self.files[groups[0]]) if groups[0] in self.files else (404, _error("No such file."))
        if name == "create":
            return self._create(json.loads(raw))
        if name == "list":
            return self._list(query)
        if name == "chat":
            self.live += 1
            return 200, json.dumps(_completion(json.loads(raw)["model"])).encode()
        if groups[0] not in self.batches:
            return 404, _error("No such batch.")
        batch = self.batches[groups[0]]
        if name == "cancel":
            if batch["status"] not in {"validating", "in_progress"}:
                return 400, _error(f"A batch that is {batch['status']} can't be cancelled.")
            batch["status"] = "cancelling"
        return 200, json.dumps(batch).encode()

    def _upload(self, raw: bytes, content_type: str) -> Reply:
        message = BytesParser(policy=default).parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + raw)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        assert parts["purpose"].get_payload(decode=True) == b"batch"
        data = parts["file"].get_payload(decode=True)
        assert isinstance(data, bytes)
        file_id = f"file-{len(self.files) + 1:04d}"
        self.files[file_id] = data
        body = {
            "id": file_id,
            "object": "file",
            "bytes": len(data),
            "created_at": int(time.time()),
            "filename": parts["file"].get_filename(),
            "purpose": "batch",
            "status": "processed",
        }
        return 200, json.dumps(body).encode()

    def _create(self, body: dict[str, Any]) -> Reply:
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines() if line.strip()]
        assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
        assert len({line["custom_id"] for line in lines}) == len(lines)
        batch_id = f"batch_{len(self.batches) + 1:04d}"
        self.batches[batch_id] = {
            "id": batch_id,
            "object": "batch",
            "endpoint": body["endpoint"],
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "status": "in_progress",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(time.time()),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }
        if self.done_after_s is not None:
            self.due[batch_id] = time.monotonic() + self.done_after_s
        return 200, json.dumps(self.batches[batch_id]).encode()

    def _list(self, query: dict[str, str]) -> Reply:
        newest_first = list(reversed(self.batches.values()))
        ids = [batch["id"] for batch in newest_first]
        start = ids.index(query["after"]) + 1 if "after" in query else 0
        limit = min(int(query.get("limit", 20)), self.page)
        data = newest_first[start : start + limit]
        body = {"object": "list", "data": data, "has_more": start + limit < len(newest_first)}
        return 200, json.dumps(body).encode()

    def _line(self, line: dict[str, Any]) -> dict[str, Any]:
        response = {"status_code": 200, "request_id": "req_1", "body": _completion(line["body"]["model"])}
        return {
            "id": f"batch_req_{line['custom_id']}",
            "custom_id": line["custom_id"],
            "response": response,
            "error": None,
        }

    def _keep(self, lines: list[dict[str, Any]]) -> str | None:
        if not lines:
            return None
        file_id = f"file-{len(self.files) + 1:04d}"
        # U+2028 stands unescaped in a text: only newlines end a line.
        self.files[file_id] = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        return file_id


def _completion(model: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "First\u2028line. It is \\boxed{9}."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
    }


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": None}}).encode()


def _nothing(_: str) -> None:
    pass
