"""A million lines through the whole service: ``python ops/bench/million.py [--lines 1000000] [--run-s 60]``.

Starts a stack of its own with a model that answers at once. Makes the file on disk, uploads it over HTTP in pieces,
waits until it is ingested, runs its first part for `--run-s` seconds while a reader follows the results, cancels, and
collects both files, counting lines. All the while it samples the resident memory of the API, of the upkeep worker and
of the small worker (their children included), and how long listings take. Interrupted (Ctrl-C), it stops the stack and
prints what it has. Progress goes to standard error, one JSON document to standard output.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from cope_local.children import free_port
from cope_local.stack import Stack

MODELS = """
[[model]]
name = "small"
base_url = "http://127.0.0.1:{port}/v1"
tier = "small"
context_length = 4096
prompt_set = "instruct"

[[model]]
name = "large"
base_url = "http://127.0.0.1:{port}/v1"
tier = "paid"
context_length = 4096
prompt_set = "instruct"
price_id = "gpt-4o-2024-08-06"
"""
PIECE = 1 << 20
HOST = "127.0.0.1"


class Progress:
    """One line on standard error: phase, share, time left."""

    def __init__(self) -> None:
        self._phase = ""
        self._began = self._told = 0.0

    def show(self, phase: str, done: float, total: float) -> None:
        """At most four times a second."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._began = phase, now
        elif now - self._told < 0.25 and done < total:
            return
        self._told = now
        left = (now - self._began) * (total - done) / done if done else 0.0
        share = f"{100 * done / total:5.1f} %" if total else "      "
        sys.stderr.write(f"\r{phase:<12} {share}  {now - self._began:6.0f} s, {left:5.0f} s to go   ")
        if done >= total:
            sys.stderr.write("\n")
        sys.stderr.flush()


def make_file(path: Path, lines: int, progress: Progress) -> None:
    """Batch lines of about 300 bytes."""
    problem = "Ann starts with 12 apples and finds some more of them on the way. " * 2
    with path.open("w") as file:
        for number in range(lines):
            body = {"model": "small", "messages": [{"role": "user", "content": f"{problem}{number}?"}]}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
            if number % 10_000 == 0:
                progress.show("file", number, lines)
    progress.show("file", lines, lines)


class Api:
    """Plain HTTP, so that nothing on this side holds a file in memory."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"authorization": f"Bearer {key}"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """JSON in, JSON out."""
        conn = http.client.HTTPConnection(HOST, self._port, timeout=600)
        with contextlib.closing(conn):
            conn.request(method, f"/v1{path}", None if body is None else json.dumps(body), self._headers)
            answer = conn.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
            if answer.status != 200:
                raise SystemExit(f"{method} {path}: {answer.status} {found}")
            return found

    def upload(self, path: Path, progress: Progress) -> str:
        """The file's id."""
        head = (
            b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            b'--x\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        )
        tail, size = b"\r\n--x--\r\n", path.stat().st_size

        def pieces() -> Iterator[bytes]:
            yield head
            sent = 0
            with path.open("rb") as file:
                while piece := file.read(PIECE):
                    yield piece
                    sent += len(piece)
                    progress.show("upload", sent, size)
            yield tail

        conn = http.client.HTTPConnection(HOST, self._port, timeout=600)
        with contextlib.closing(conn):
            length = str(len(head) + size + len(tail))
            headers = {**self._headers, "content-type": "multipart/form-data; boundary=x", "content-length": length}
            conn.request("POST", "/v1/files", pieces(), headers)
            return str(json.loads(conn.getresponse().read())["id"])

    def count_lines(self, path: str) -> tuple[int, int, dict[str, str]]:
        """(lines, bytes, headers) of a streamed answer."""
        conn = http.client.HTTPConnection(HOST, self._port, timeout=600)
        with contextlib.closing(conn):
            conn.request("GET", f"/v1{path}", headers=self._headers)
            answer = conn.getresponse()
            lines = size = 0
            while piece := answer.read(PIECE):
                lines += piece.count(b"\n")
                size += len(piece)
            return lines, size, dict(answer.getheaders())


class Watch:
    """Samples memory and listing times once a second, by phase, until left."""

    def __init__(self, api: Api, pids: dict[str, int]) -> None:
        self._api = api
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._began = time.monotonic()
        self.phase = "idle"
        self.batch: str | None = None
        self.memory: list[tuple[str, int, dict[str, int]]] = []
        self.listings: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            sizes = {name: _resident_mib(pid) for name, pid in self._pids.items()}
            self.memory.append((self.phase, round(time.monotonic() - self._began), sizes))
            paths = {"list of batches": "/batches?limit=20"}
            if self.batch is not None:
                paths["batch"] = f"/batches/{self.batch}"
                paths["tasks"] = f"/batches/{self.batch}/tasks?limit=20"
                paths["failed tasks"] = f"/batches/{self.batch}/tasks?limit=20&status=failed"
            for name, path in paths.items():
                began = time.perf_counter()
                with contextlib.suppress(OSError, http.client.HTTPException, SystemExit):
                    self._api.call("GET", path)
                    self.listings[self.phase][name].append(time.perf_counter() - began)

    def report(self) -> dict[str, Any]:
        """Least and most memory by phase, and a thinned series; listing times in milliseconds."""
        phases: dict[str, dict[str, dict[str, int]]] = {}
        for phase, _, sizes in self.memory:
            for name, mib in sizes.items():
                seen = phases.setdefault(phase, {}).setdefault(name, {"min": mib, "max": mib})
                seen["min"], seen["max"] = min(seen["min"], mib), max(seen["max"], mib)
        step = max(1, len(self.memory) // 60)
        return {
            "pss_mib_by_phase": phases,
            "pss_mib_over_time": [{"at_s": at, "phase": phase, **sizes} for phase, at, sizes in self.memory[::step]],
            "listing_ms_by_phase": {
                phase: {name: _spread(times) for name, times in named.items()} for phase, named in self.listings.items()
            },
        }


def _spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    at_95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return {
        "n": len(times),
        "p50": round(1e3 * statistics.median(times), 1),
        "p95": round(1e3 * at_95, 1),
        "max": round(1e3 * ordered[-1], 1),
    }


def _resident_mib(pid: int) -> int:
    """Of a process and all below it; pages that they share count once (the proportional set size)."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        with contextlib.suppress(OSError, StopIteration):
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")))
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
    return total // 1024


class Bench:
    """The phases, one after the other; `found` has what was measured so far."""

    def __init__(self, api: Api, watch: Watch, arguments: argparse.Namespace, folder: Path) -> None:
        self._api = api
        self._watch = watch
        self._arguments = arguments
        self._folder = folder
        self._progress = Progress()
        self.found: dict[str, Any] = {"lines": arguments.lines}

    def run(self) -> None:
        """All of them."""
        total = self._arguments.lines
        path = self._folder / "in.jsonl"
        make_file(path, total, self._progress)
        self.found["file_mb"] = round(path.stat().st_size / 1e6, 1)
        began = self._phase("upload")
        file_id = self._api.upload(path, self._progress)
        self._took("upload", began, path.stat().st_size / 1e6, "mb_per_s")
        path.unlink()
        began = self._phase("ingest")
        body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "none"}
        batch_id = self._watch.batch = str(self._api.call("POST", "/batches", body)["id"])
        self._until(batch_id, lambda batch: batch["status"] != "validating", "ingest", total)
        self._took("ingest", began, total, "lines_per_s")
        self._run_first_part(batch_id)
        began = self._phase("cancel")
        self._api.call("POST", f"/batches/{batch_id}/cancel")
        batch = self._until(batch_id, lambda batch: batch["status"] == "cancelled", "cancel", total)
        self._took("cancel_to_files", began, total, "lines_per_s")
        self._collect(batch)

    def _run_first_part(self, batch_id: str) -> None:
        began = self._phase("run")
        after, read, batch = 0, 0, {}
        while (passed := time.monotonic() - began) < self._arguments.run_s:
            self._progress.show("run", passed, self._arguments.run_s)
            lines, _, headers = self._api.count_lines(f"/batches/{batch_id}/results?after={after}")
            headers = {name.lower(): value for name, value in headers.items()}
            after, read = int(headers["x-last-line"]), read + lines
            if headers["x-incomplete"] == "false":
                break
            time.sleep(0.5)
            batch = self._api.call("GET", f"/batches/{batch_id}")
        self._progress.show("run", 1, 1)
        self._took("run", began, after, "lines_per_s")
        self.found |= {"followed_lines": read, "followed_offset": after, "eta": batch.get("cope", {}).get("eta")}

    def _collect(self, batch: dict[str, Any]) -> None:
        began = self._phase("collect")
        counted = {}
        for kind in ("output", "error"):
            file_id = batch[f"{kind}_file_id"]
            counted[kind] = self._api.count_lines(f"/files/{file_id}/content")[0] if file_id else 0
        self._took("files", began, sum(counted.values()), "lines_per_s")
        began = self._phase("results")
        lines, size, _ = self._api.count_lines(f"/batches/{batch['id']}/results")
        self._took("results", began, lines, "lines_per_s")
        began = self._phase("results by input")
        by_input, _, _ = self._api.count_lines(f"/batches/{batch['id']}/results?order=input")
        self._took("results_by_input", began, by_input, "lines_per_s")
        self.found |= {
            "output_lines": counted["output"],
            "error_lines": counted["error"],
            "results_lines": lines,
            "results_mb": round(size / 1e6, 1),
            "all_there": sum(counted.values()) == lines == by_input == batch["request_counts"]["total"],
            "errors": batch["cope"]["errors"],
            "outcome": batch["cope"]["outcome"],
        }

    def _phase(self, name: str) -> float:
        self._watch.phase = name
        return time.monotonic()

    def _took(self, name: str, began: float, amount: float, unit: str) -> None:
        seconds = time.monotonic() - began
        self.found[name] = {"s": round(seconds, 2), unit: round(amount / seconds, 1)}

    def _until(self, batch_id: str, over: Callable[[dict[str, Any]], bool], name: str, total: int) -> dict[str, Any]:
        while not over(batch := self._api.call("GET", f"/batches/{batch_id}")):
            counts = batch["request_counts"]
            self._progress.show(name, min(total - 1, counts["completed"] + counts["failed"]), total)
            time.sleep(0.2)
        self._progress.show(name, 1, 1)
        if batch["status"] == "failed":
            raise SystemExit(f"the batch failed: {batch['errors']}")
        return batch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--run-s", type=float, default=60.0, help="how long its first part runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cope-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = free_port()
        models = folder / "models.toml"
        models.write_text(MODELS.format(port=port))
        model = subprocess.Popen([sys.executable, str(Path(__file__).with_name("instant_model.py")), str(port)])
        environment = {**os.environ, "COPE_MODELS_FILE": str(models), "COPE_DEFAULT_CAP_USD": "unlimited"}
        stack = Stack(folder / "stack", port=free_port(), environment=environment)
        try:
            stack.start()
            named: Any = stack.description()["pids"]
            pids = {name: int(named[name]) for name in ("api", "worker-upkeep", "worker-small", "postgres")}
            api = Api(stack.ports.api, stack.secrets.api_key)
            with Watch(api, pids) as watch:
                bench = Bench(api, watch, arguments, folder)
                with contextlib.suppress(KeyboardInterrupt):
                    bench.run()
        finally:
            stack.stop()
            model.terminate()
            model.wait()
    print(json.dumps({**bench.found, **watch.report()}, indent=1))


if __name__ == "__main__":
    main()
