"""The results file as the Markdown table of ops/bench/RESULTS.md."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def table(path: Path) -> str:
    """One row a broker and one of all; then the faults that were injected, and what was violated."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    runs = [line for line in lines if line["run"].startswith("seed")]
    clean = [line for line in lines if line["run"].startswith("clean") and line.get("seconds")]
    names = sorted({run["broker"] for run in runs})
    groups = [(name, [run for run in runs if run["broker"] == name]) for name in names]
    if len(groups) > 1:
        groups.append(("all", runs))
    head = (
        "| broker | runs | tasks | faults | lost | duplicate commits | ledger difference | extra paid calls |"
        " recovery, median and most | throughput kept | the same, whole run | violations |"
    )
    out = [head, "|---" * 12 + "|"]
    out += [_row(name, some, clean) for name, some in groups]
    counts = Counter(fault for run in runs for fault in run["faults"])
    out += ["", "Faults: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) + "."]
    redis = [run["seconds"] for run in clean if run["broker"] != "none"]
    none = [run["seconds"] for run in clean if run["broker"] == "none"]
    if redis and none:
        ratio = statistics.median(redis) / statistics.median(none)
        out += [
            "",
            f"Clean runs without any broker: {ratio:.2f} of the throughput with one ({len(none)}, {len(redis)}).",
        ]
    for run in runs:
        out += [f"- seed {run['seed']} ({run['broker']}): {text}" for text in run["violations"]]
    return "\n".join(out)


def _row(name: str, runs: Sequence[Result], clean: Sequence[Result]) -> str:
    own = [one for one in clean if name in {one["broker"], "all"}] or list(clean)
    calls, extra = _sum(runs, "paid_calls"), _sum(runs, "extra_calls")
    recoveries = [seconds for run in runs for seconds in run.get("recovery_s", ())]
    recovery = f"{statistics.median(recoveries):.2f} s, {max(recoveries):.2f} s" if recoveries else "none"
    cells = [
        name,
        str(len(runs)),
        str(_sum(runs, "tasks")),
        str(sum(len(run["faults"]) for run in runs)),
        str(_sum(runs, "lost")),
        str(_sum(runs, "duplicate_commits")),
        f"{_sum(runs, 'ledger_difference')} nano-dollars",
        f"{extra} of {calls} ({100 * extra / calls:.2f} %)" if calls else "none",
        recovery,
        _kept(runs, own, "seconds_95", outage=True),
        _kept(runs, own, "seconds", outage=False),
        str(sum(1 for run in runs if run["violations"])),
    ]
    return "| " + " | ".join(cells) + " |"


def _kept(runs: Sequence[Result], clean: Sequence[Result], key: str, *, outage: bool) -> str:
    """Clean seconds by the seconds of a run, the median over the runs; without the time in which no database was."""
    if not clean:
        return "no clean run"
    whole = statistics.median(one[key] for one in clean)
    ratios = [whole / max(0.1, run[key] - (run.get("outage_s", 0) if outage else 0)) for run in runs if run.get(key)]
    return f"{statistics.median(ratios):.2f}" if ratios else "none"


def _sum(runs: Sequence[Result], key: str) -> int:
    return sum(int(run.get(key, 0)) for run in runs)
