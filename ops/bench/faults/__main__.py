"""``python -m ops.bench.faults --seeds 100 --tasks 500 --resume results.jsonl``: the fault campaign.

Each seed is one run; runs that the results file holds already are not made again. Every few seeds a clean run on the
same stack is the measure of the throughput kept. ``--table results.jsonl`` prints the table of ops/bench/RESULTS.md.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ops.bench.faults.place import Place
from ops.bench.faults.plan import ALL, broker_of, plan
from ops.bench.faults.run import Run
from ops.bench.faults.table import table
from ops.bench.faults.verdict import ALLOWANCE_S


class Campaign:
    """Runs one after another, several to a place; a place where something went wrong is not used again."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.results: Path = given.resume
        self.place: Place | None = None
        self._used = self._number = 0
        self.violated = 0

    def go(self) -> int:
        """All seeds; how many violated the pass line."""
        done = self._done()
        seeds = [s for s in range(self.given.first, self.given.first + self.given.seeds) if f"seed {s}" not in done]
        began = time.monotonic()
        for number, seed in enumerate(seeds):
            broker = self.given.broker if self.given.only else broker_of(seed, self.given.broker)
            self._go_to(broker)
            if self._used % self.given.clean_every == 0 and not self.given.only and f"clean before {seed}" not in done:
                self._run(seed, clean=True)
                self._go_to(broker)
            self._run(seed, clean=False)
            self._used += 1
            left = (time.monotonic() - began) / (number + 1) * (len(seeds) - number - 1)
            self._say(f"{number + 1} of {len(seeds)} seeds, {self.violated} violated, {left / 60:.0f} min left")
        self._leave()
        return self.violated

    def _done(self) -> set[str]:
        if not self.results.exists():
            return set()
        return {json.loads(line)["run"] for line in self.results.read_text().splitlines() if line.strip()}

    def _run(self, seed: int, *, clean: bool) -> None:
        assert self.place is not None
        faults = () if clean else plan(seed, self.place.broker, only=self.given.only)
        name = f"clean before {seed}" if clean else f"seed {seed}"
        events = self.results.with_suffix(".events")
        events.mkdir(parents=True, exist_ok=True)
        log = events / f"{name.replace(' ', '-')}.jsonl"
        allowance_s = self.given.allow_s
        result = Run(self.place, seed, self.given.tasks, faults, name=name, log=log, allowance_s=allowance_s).go()
        with self.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        self._tell(result)
        if result["violations"] or self.given.keep_logs:
            self._keep(name)
        if result["violations"]:
            self.violated += 1
            self._leave()

    def _tell(self, result: dict[str, Any]) -> None:
        pace = f"{result.get('seconds', 0):5.1f} s, recovery {max(result.get('recovery_s') or [0]):.2f} s"
        self._say(
            f"{result['run']:<16} {pace}, took {result['took_s']:.0f} s: {', '.join(result['faults']) or 'clean'}"
        )
        for violation in result["violations"]:
            again = f"--first {result['seed']} --seeds 1 --tasks {result['tasks']} --broker {result['broker']}"
            again += "".join(f" --only '{name}'" for name in self.given.only)
            self._say(f"  VIOLATED seed {result['seed']}: {violation}")
            self._say(f"    again: python -m ops.bench.faults {again} --resume again.jsonl")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _go_to(self, broker: str) -> None:
        if self.place is not None and (self.place.broker != broker or self._used >= self.given.seeds_per_place):
            self._leave()
        if self.place is None:
            self._number += 1
            self._used = 0
            self.place = Place(self.folder / f"place-{self._number}", broker)

    def _leave(self) -> None:
        place, self.place = self.place, None
        if place is not None:
            place.close()
            shutil.rmtree(place.folder, ignore_errors=True)

    def _keep(self, name: str) -> None:
        """The logs of a place in which something went wrong."""
        assert self.place is not None
        kept = self.results.with_suffix(".events") / f"{name.replace(' ', '-')}.logs"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.place.folder / "stack" / "logs", kept)


def main() -> int:
    """Run, or print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--tasks", type=int, default=500, help="lines a batch")
    parser.add_argument("--resume", type=Path, default=Path("faults.jsonl"), help="the results, appended to")
    parser.add_argument("--broker", choices=("redis", "rabbitmq", "none"), default="redis")
    parser.add_argument("--clean-every", type=int, default=5, help="seeds to one clean run")
    parser.add_argument("--seeds-per-place", type=int, default=5, help="seeds to one stack")
    parser.add_argument("--only", action="append", default=[], choices=ALL, metavar="FAULT", help="just this fault")
    parser.add_argument("--allow-s", type=float, default=ALLOWANCE_S, help="added to the recovery that is promised")
    parser.add_argument("--keep-logs", action="store_true", help="of every run, not only of those that violate")
    parser.add_argument("--table", type=Path, metavar="RESULTS", help="print the table of a results file and end")
    given = parser.parse_args()
    if given.table is not None:
        print(table(given.table))
        return 0
    with tempfile.TemporaryDirectory(prefix="cope-faults-") as folder:
        Path(folder).chmod(0o755)
        campaign = Campaign(given, Path(folder))
        try:
            return 1 if campaign.go() else 0
        finally:
            campaign._leave()  # noqa: SLF001 - also after Ctrl-C


if __name__ == "__main__":
    raise SystemExit(main())
