"""Programs run by `cope_sandbox` processes (the `ProgramRunner` port), and the judge that passes or fails by them.

The sandbox is a service of its own, started as `python -m cope_sandbox serve` and spoken to over pipes.
"""

from cope.adapters.sandbox_runner.judge import CodeJudge
from cope.adapters.sandbox_runner.pool import SandboxPool
from cope.adapters.sandbox_runner.values import SandboxValues

__all__ = ["CodeJudge", "SandboxPool", "SandboxValues"]
