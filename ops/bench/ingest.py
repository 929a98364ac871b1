"""Ingest over HTTP beside raw COPY of the same bytes: ``python ops/bench/ingest.py [--lines 100000] [--pairs 3]``.

Starts a stack of its own. Each pair measures, one after the other, from the first upload byte to `in_progress`
through the stock client, and COPY of the same lines into an ordinary table of one text column, without any index, on
the same server. Prints each pair's ratio, the median, and the API's peak resident memory.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import psycopg
from openai import OpenAI

from cope_local.children import free_port
from cope_local.stack import Stack


def lines(count: int) -> bytes:
    """Batch lines of about 400 bytes."""
    problem = "Ann starts with 12 apples and finds some more of them on the way. " * 4
    rows = (
        json.dumps(
            {
                "custom_id": f"line-{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "cope", "messages": [{"role": "user", "content": f"{problem}{i}?"}]},
            }
        )
        for i in range(count)
    )
    return "\n".join(rows).encode() + b"\n"


def over_http(client: OpenAI, data: bytes) -> tuple[float, float]:
    """Seconds from the first byte to `in_progress`, and of these the upload's; the batch is cancelled afterwards."""
    began = time.perf_counter()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    uploaded = time.perf_counter() - began
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status == "validating":
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    seconds = time.perf_counter() - began
    if batch.status != "in_progress":
        raise SystemExit(f"the batch is {batch.status}: {batch.errors}")
    client.batches.cancel(batch.id)
    while client.batches.retrieve(batch.id).status != "cancelled":
        time.sleep(0.2)
    return seconds, uploaded


def raw_copy(url: str, data: bytes) -> float:
    """Seconds to COPY the same lines into one text column, committed."""
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE raw (line text)")
        conn.commit()
        began = time.perf_counter()
        with conn.cursor().copy("COPY raw FROM STDIN WITH (FORMAT csv, QUOTE e'\\x01', DELIMITER e'\\x02')") as copy:
            copy.write(data)
        conn.commit()
        seconds = time.perf_counter() - began
        conn.execute("DROP TABLE raw")
        return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    data = lines(arguments.lines)
    with tempfile.TemporaryDirectory(prefix="cope-bench-") as folder:
        Path(folder).chmod(0o755)
        stack = Stack(Path(folder) / "stack", port=free_port())
        stack.start()
        try:
            client = OpenAI(base_url=stack.base_url, api_key=stack.secrets.api_key, timeout=600)
            url = str(stack.description()["postgres_url"])
            pairs = [(over_http(client, data), raw_copy(url, data)) for _ in range(arguments.pairs)]
            pids = stack.description()["pids"]
            status = Path(f"/proc/{pids['api']}/status").read_text()  # type: ignore[index]
        finally:
            stack.stop()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    size = f"{arguments.lines} lines, {len(data) / 1e6:.1f} MB"
    for (http, upload), copy in pairs:
        print(f"{size}: over HTTP {http:.2f} s (upload {upload:.2f} s), raw COPY {copy:.2f} s, ratio {copy / http:.3f}")
    ratio = statistics.median(copy / http for (http, _), copy in pairs)
    print(f"median ratio {ratio:.3f}; API peak RSS {int(peak) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
