"""What a sandbox is asked and what it answers: one JSON object a line, both ways."""

import json

from cope.core.programs import Ending, ProgramRun, ProgramVerdict, RunLimits

MAX_LINE_BYTES = 8 * 2**20


def encode_run(run: ProgramRun, limits: RunLimits) -> bytes:
    """One line."""
    asked = {
        "program": run.program,
        "setup": run.setup,
        "tests": list(run.tests),
        "entry_point": run.entry_point,
        "probes": list(run.probes),
        "cpu_s": limits.cpu_s,
        "wall_s": limits.wall_s,
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
    }
    return json.dumps(asked).encode() + b"\n"


def decode_verdict(line: bytes, *, total: int) -> ProgramVerdict | None:
    """None where the sandbox could not be closed around the program, so that nothing was run.

    Raises `KeyError` or `ValueError` for a line that no sandbox sent.
    """
    told = json.loads(line)
    if told["ending"] == "not_locked":
        return None
    return ProgramVerdict(
        passed=told["passed"],
        total=total,
        loaded=told["loaded"],
        ending=Ending(told["ending"]),
        errors=tuple(told["errors"]),
        output=told["output"],
        behaviour=told["behaviour"],
    )


def decode_start(line: bytes) -> tuple[bool, str]:
    """Whether a started sandbox is sound, and its layers or what is wrong. Raises `ValueError` for anything else."""
    told = json.loads(line)
    return told["state"] == "ready", ", ".join(told.get("layers") or told.get("why") or ())
