"""Programs run by `cope_sandbox` processes (the `ProgramRunner` port).

The sandbox is a service of its own, started as `python -m cope_sandbox serve` and spoken to over pipes.
"""

from cope.adapters.sandbox_runner.pool import SandboxPool

__all__ = ["SandboxPool"]
