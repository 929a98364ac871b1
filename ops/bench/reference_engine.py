"""Compare the reference server's decoder with CTranslate2 on one core: ``python reference_engine.py [FOLDER]``.

Closed loop: C callers, each with its next request the moment its last one ends, prompts of every role in turn.
CTranslate2 takes static batches, so it decodes whatever waits, and the next batch begins when the longest sample ends.
Prints tokens per second and each request's median and 95th percentile latency. Run it alone on the machine, pinned:
``taskset -c 1``.
"""

import argparse
import os
import queue
import statistics
import sys
import time
from pathlib import Path

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "ops" / "reference_pair"), str(ROOT / "services")]

import ctranslate2  # noqa: E402
from examples import small_example  # noqa: E402
from tokenizer import prompt_text  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from cope_reference.engine import Engine  # noqa: E402
from cope_reference.sequences import Sequence, Settings  # noqa: E402

LIMIT = 256
Figures = tuple[float, list[float]]


def prompts(folder: Path, count: int) -> list[list[int]]:
    """Encoded prompts of every role, the same in every run."""
    import random

    rng, tokenizer = random.Random(5), Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(prompt_text(small_example(rng)[0])).ids for _ in range(count)]


def static_batches(folder: Path, work: list[list[int]], callers: int) -> Figures:
    """CTranslate2: tokens a second, and each request's seconds."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    generator = ctranslate2.Generator(
        str(folder / "ctranslate2"), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1
    )
    pieces = [[tokenizer.id_to_token(i) for i in prompt] for prompt in work]
    latencies: list[float] = []
    tokens, started = 0, time.perf_counter()
    for first in range(0, len(pieces), callers):
        batch, begun = pieces[first : first + callers], time.perf_counter()
        results = generator.generate_batch(
            batch,
            beam_size=1,
            max_length=LIMIT,
            sampling_topk=0,
            sampling_temperature=0.8,
            include_prompt_in_result=False,
            end_token="<|end|>",
        )
        tokens += sum(len(result.sequences_ids[0]) + 1 for result in results)
        latencies += [time.perf_counter() - begun] * len(batch)
    return tokens / (time.perf_counter() - started), latencies


def continuous(folder: Path, work: list[list[int]], callers: int) -> Figures:
    """Our decoder, bare, without HTTP."""
    engine = Engine(folder, most=64)
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    sequences: dict[int, tuple[Sequence, float]] = {}
    latencies: list[float] = []
    waiting = iter(enumerate(work))

    def submit() -> bool:
        for index, prompt in waiting:

            def notify(index: int = index) -> None:
                if index in sequences and sequences[index][0].finish:
                    ended.put(index)

            sequence = Sequence(prompt, Settings(LIMIT, 0.8), notify)
            sequences[index] = sequence, time.perf_counter()
            engine.submit([sequence])
            return True
        return False

    started = time.perf_counter()
    for _ in range(callers):
        submit()
    for _ in work:
        index = ended.get()
        latencies.append(time.perf_counter() - sequences[index][1])
        submit()
    elapsed = time.perf_counter() - started
    tokens = sum(len(sequence.tokens) for sequence, _ in sequences.values())
    engine.close()
    return tokens / elapsed, latencies


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "ops" / "reference_pair" / "weights" / "small")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'callers':>7} {'engine':<16} {'tokens/s':>9} {'p50 s':>7} {'p95 s':>7}")
    for callers in (1, 8, 32, 64):
        work = prompts(arguments.folder, 6 * callers + 12)
        runs: dict[str, list[Figures]] = {"ctranslate2": [], "cope_reference": []}
        for _ in range(arguments.rounds):
            runs["ctranslate2"].append(static_batches(arguments.folder, work, callers))
            runs["cope_reference"].append(continuous(arguments.folder, work, callers))
        for name, figures in runs.items():
            rate, latencies = sorted(figures, key=lambda f: f[0])[len(figures) // 2]
            cuts = statistics.quantiles(latencies, n=20)
            print(f"{callers:>7} {name:<16} {rate:>9.0f} {cuts[9]:>7.2f} {cuts[18]:>7.2f}", flush=True)


if __name__ == "__main__":
    main()
