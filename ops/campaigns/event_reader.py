"""One reader of the event log, to be killed at any moment: ``python -m ops.campaigns.event_reader group|stream …``.

Every event is a line of its file, on disk (fsync) before the reader goes on: before the group's offset is committed, or
the next one is read from the stream. What it knows is in that file alone, so that kill -9 takes nothing from it.
"""

import argparse
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

_AWAY_S = 0.1
_GROUP = "campaign"


def main() -> None:
    """Until it is killed."""
    parser = argparse.ArgumentParser(prog="python -m ops.campaigns.event_reader", description=__doc__)
    parser.add_argument("way", choices=["group", "stream"])
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    reader = Reader(given.base_url, os.environ["COPE_API_KEY"], given.out)
    while True:
        try:
            reader.group() if given.way == "group" else reader.stream()
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as away:
            reader.note(f"{type(away).__name__}: {away}")
            time.sleep(_AWAY_S)


class Reader:
    """Appends to `out`; a line that a kill cut short is cut off first."""

    def __init__(self, base_url: str, key: str, out: Path) -> None:
        self._base_url = base_url
        self._key = key
        self._out = out
        whole = out.read_bytes() if out.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        out.write_bytes(whole)
        lines = whole.splitlines()
        self._last = json.loads(lines[-1])["offset"] if lines else "0"
        self._file: IO[bytes] = out.open("ab")

    def note(self, text: str) -> None:
        """What went wrong, beside the file."""
        with self._out.with_suffix(".log").open("a") as log:
            log.write(text + "\n")

    def group(self) -> None:
        """Read, write down, commit."""
        self._call("PUT", f"/event_consumers/{_GROUP}", {})
        while True:
            read = self._call("GET", f"/event_consumers/{_GROUP}/records?member=reader&session=3&max=40&wait=1")
            if read["gap"] is not None:
                raise SystemExit(f"a gap: {read['gap']}")
            self._keep(read["data"])
            done = {"offset": read["next_offset"], "generation": read["generation"]}
            self._call("POST", f"/event_consumers/{_GROUP}/offsets", done)

    def stream(self) -> None:
        """One stream after another, each from where the file ends."""
        for event in self._stream():
            self._keep([event])

    def _stream(self) -> Iterator[dict[str, Any]]:
        request = self._request("GET", "/events")
        request.add_header("Accept", "text/event-stream")
        request.add_header("Last-Event-ID", self._last)
        fields: dict[str, str] = {}
        with urllib.request.urlopen(request, timeout=20) as answer:
            for raw in answer:
                line = raw.decode().rstrip("\n")
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                if fields.get("event") == "cope.gap":
                    raise SystemExit(f"a gap: {fields}")
                if "data" in fields:
                    yield json.loads(fields["data"])
                fields = {}

    def _keep(self, events: list[dict[str, Any]]) -> None:
        kept = [{name: event[name] for name in ("offset", "id", "type", "subject")} for event in events]
        self._file.write(b"".join(json.dumps(one).encode() + b"\n" for one in kept))
        self._file.flush()
        os.fsync(self._file.fileno())
        if kept:
            self._last = kept[-1]["offset"]

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = self._request(method, path)
        if body is not None:
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def _request(self, method: str, path: str) -> urllib.request.Request:
        request = urllib.request.Request(self._base_url + path, method=method)
        request.add_header("Authorization", f"Bearer {self._key}")
        return request


if __name__ == "__main__":
    main()
