"""Compare the reference server with CTranslate2: ``python ops/bench/reference_engine.py [FOLDER] [--http]``.

Closed loop: C callers, each with its next request the moment its last one ends; prompts of every role, each asked for
eight times in a row as the cascade does (`--siblings 1`: all different). CTranslate2 takes static batches, so it
decodes C requests together, and the next batch begins when the longest sample has ended. Engines take turns; shown are
medians: tokens per second of wall time and of processor time (which neighbours on the machine disturb less), and each
request's median and 95th percentile latency. Pin it to one core with ``taskset -c 1``. `--http` measures our server as
a process of its own, through its API, without pinning.
"""

import argparse
import asyncio
import functools
import os
import queue
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "ops" / "reference_pair"), str(ROOT / "services")]

import aiohttp  # noqa: E402
import ctranslate2  # noqa: E402
from examples import small_example  # noqa: E402
from tokenizer import prompt_text  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from cope.core.problem import Message  # noqa: E402
from cope_reference.engine import Engine  # noqa: E402
from cope_reference.sequences import Sequence, Settings  # noqa: E402

LIMIT = 256
TEMPERATURE = 0.8
PORT = 18431
Work = list[tuple[Message, ...]]


@dataclass(frozen=True)
class Figures:
    """One run. Processor time is that of the process which decodes."""

    tokens: int
    wall_s: float
    cpu_s: float
    latencies_s: list[float]


class Clock:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def figures(self, tokens: int, latencies: list[float]) -> Figures:
        return Figures(tokens, time.perf_counter() - self.wall, time.process_time() - self.cpu, latencies)


def static_batches(folder: Path, work: Work, callers: int) -> Figures:
    """CTranslate2, bare."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    generator = ctranslate2.Generator(
        str(folder / "ctranslate2"), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1
    )
    pieces = [tokenizer.encode(prompt_text(messages)).tokens for messages in work]
    latencies: list[float] = []
    tokens, clock = 0, Clock()
    for first in range(0, len(pieces), callers):
        batch, begun = pieces[first : first + callers], time.perf_counter()
        results = generator.generate_batch(
            batch,
            beam_size=1,
            max_length=LIMIT,
            sampling_topk=0,
            sampling_temperature=TEMPERATURE,
            include_prompt_in_result=False,
            end_token="<|end|>",
        )
        tokens += sum(len(result.sequences_ids[0]) + 1 for result in results)
        latencies += [time.perf_counter() - begun] * len(batch)
    return clock.figures(tokens, latencies)


def continuous(folder: Path, work: Work, callers: int) -> Figures:
    """Our decoder, bare, without HTTP."""
    engine = Engine(folder, most=64)
    prompts = [engine.tokenizer.encode(prompt_text(messages)).ids for messages in work]
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    begun: dict[int, float] = {}
    sequences = [Sequence(prompt, Settings(LIMIT, TEMPERATURE), _teller(ended, i)) for i, prompt in enumerate(prompts)]
    waiting = iter(range(len(work)))

    def submit() -> None:
        for index in waiting:
            begun[index] = time.perf_counter()
            engine.submit([sequences[index]])
            return

    latencies: list[float] = []
    clock = Clock()
    for _ in range(callers):
        submit()
    for _ in work:
        index = ended.get()
        latencies.append(time.perf_counter() - begun[index])
        submit()
    figures = clock.figures(sum(len(sequence.tokens) for sequence in sequences), latencies)
    engine.close()
    return figures


def _teller(ended: queue.SimpleQueue[int], index: int) -> Callable[[], None]:
    return lambda: ended.put(index)


def over_http(server: int, folder: Path, work: Work, callers: int) -> Figures:
    """Our server in a process of its own, whose id is `server`."""
    return asyncio.run(_over_http(server, work, callers))


def _cpu_s(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _over_http(server: int, work: Work, callers: int) -> Figures:
    waiting, tokens = iter(work), 0
    latencies: list[float] = []
    root = f"http://127.0.0.1:{PORT}"

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        for messages in waiting:
            begun = time.perf_counter()
            body = {
                "model": "m",
                "messages": [{"role": m.role, "content": m.content} for m in messages],
                "max_tokens": LIMIT,
                "temperature": TEMPERATURE,
            }
            async with session.post(f"{root}/v1/chat/completions", json=body) as answer:
                tokens += (await answer.json())["usage"]["completion_tokens"]
            latencies.append(time.perf_counter() - begun)

    async with aiohttp.ClientSession() as session:
        while True:
            try:
                await (await session.get(f"{root}/health")).read()
                break
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
        begun, before = time.perf_counter(), _cpu_s(server)
        await asyncio.gather(*(caller(session) for _ in range(callers)))
        return Figures(tokens, time.perf_counter() - begun, _cpu_s(server) - before, latencies)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "ops" / "reference_pair" / "weights" / "small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 8, 32, 64])
    parser.add_argument("--http", action="store_true")
    arguments = parser.parse_args()
    engines: dict[str, Callable[[Path, Work, int], Figures]] = {
        "ctranslate2": static_batches,
        "cope_reference": continuous,
    }
    server = None
    if arguments.http:
        command = [sys.executable, "-m", "cope_reference", "--model", f"m={arguments.folder}", "--port", str(PORT)]
        server = subprocess.Popen(command, cwd=ROOT)
        engines = {"over HTTP": functools.partial(over_http, server.pid)}
    print(f"{'callers':>7} {'engine':<16} {'tokens/s':>9} {'per cpu s':>9} {'p50 s':>7} {'p95 s':>7}")
    rng = random.Random(5)
    try:
        for callers in arguments.callers:
            runs: dict[str, list[Figures]] = {name: [] for name in engines}
            for _ in range(arguments.rounds):
                distinct = [small_example(rng)[0] for _ in range(max(2, 6 * callers // arguments.siblings))]
                work = [messages for messages in distinct for _ in range(arguments.siblings)]
                for name, run in engines.items():
                    runs[name].append(run(arguments.folder, work, callers))
            for name, figures in runs.items():
                show(callers, name, figures)
        if server:
            print(Path(f"/proc/{server.pid}/status").read_text().split("VmHWM:")[1].splitlines()[0].strip(), "peak")
    finally:
        if server:
            server.terminate()
            server.wait()


def show(callers: int, name: str, runs: list[Figures]) -> None:
    """One line: medians over the runs."""
    rate = statistics.median(run.tokens / run.wall_s for run in runs)
    per_cpu = statistics.median(run.tokens / run.cpu_s for run in runs)
    cuts = statistics.quantiles([latency for run in runs for latency in run.latencies_s], n=20)
    print(f"{callers:>7} {name:<16} {rate:>9.0f} {per_cpu:>9.0f} {cuts[9]:>7.2f} {cuts[18]:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
