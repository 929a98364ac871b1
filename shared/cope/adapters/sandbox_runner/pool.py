"""A pool of sandbox processes, started when first needed, each running one program at a time.

`subprocess` children, not `multiprocessing`: a Celery worker child is daemonic and may not have the latter. A pool
belongs to the event loop it is first used in.
"""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Sequence

from cope.adapters.sandbox_runner import messages
from cope.core.errors import SandboxUnavailable
from cope.core.programs import Ending, ProgramRun, ProgramVerdict, RunLimits

_START_S = 120.0  # with a copy of the standard library and the self-test, twice, on a machine that stalls
_GRACE_S = 30.0
_STARVED = 10  # what a run on a busy machine may take of its `wall_s` (see RunLimits)
_RECHECK_S = 60.0
_COMMAND = (sys.executable, "-m", "cope_sandbox", "serve")
_MENDING = (
    "Programs that a model wrote run only where Landlock and seccomp hold them: Linux 5.13 or newer on x86-64 or "
    "aarch64. `python -m cope_sandbox check` says what is missing on a worker's machine."
)


class _Sandbox:
    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self.spent = False

    async def ready(self) -> str:
        """Its layers. Raises `SandboxUnavailable` with what it said instead."""
        try:
            async with asyncio.timeout(_START_S):
                line = await self._stdout.readline()
            sound, said = messages.decode_start(line)
        except TimeoutError:
            sound, said = False, f"it was not ready after {_START_S:g} s"
        except (ValueError, KeyError, AttributeError):
            sound, said = False, await self._last_words()
        if not sound:
            await self.stop()
            raise SandboxUnavailable(f"No sound sandbox here: {said}. {_MENDING}")
        return said

    async def ask(self, run: ProgramRun, limits: RunLimits) -> ProgramVerdict | None:
        """None where the sandbox ended before it answered, or ran nothing. It is spent then, and after any error."""
        self.spent = True  # until the reply is here, what comes out of the pipe belongs to this run
        try:
            self._stdin.write(messages.encode_run(run, limits))
            await self._stdin.drain()
            async with asyncio.timeout(_STARVED * limits.wall_s + _GRACE_S):
                line = await self._stdout.readline()
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return None
        if not line.endswith(b"\n"):
            return None
        verdict = messages.decode_verdict(line, total=len(run.tests))
        self.spent = verdict is None
        return verdict

    async def stop(self) -> None:
        """End it, with the run under way: that one's monitor is told by the kernel."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _last_words(self) -> str:
        stderr = self._process.stderr
        said = (await stderr.read(4_000)).decode(errors="replace").strip() if stderr else ""
        return said.splitlines()[-1] if said else "it ended without a word"


class SandboxPool:
    """A `ProgramRunner`: at most `size` programs at a time; others wait their turn, outside every limit.

    Of size 0 it runs none: every run raises `SandboxUnavailable`.
    """

    def __init__(self, size: int, *, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)
        self._size = size
        self._turn = asyncio.Semaphore(size)
        self._idle: deque[_Sandbox] = deque()
        self._busy: set[_Sandbox] = set()
        self._running: set[asyncio.Task[ProgramVerdict]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._refusal: tuple[float, SandboxUnavailable] | None = None
        self._closed = False
        self.layers: str | None = None

    async def run(self, run: ProgramRun, limits: RunLimits | None = None) -> ProgramVerdict:
        """See `ProgramRunner.run`. A run whose caller is cancelled goes on to its end: a decided step aborts its other
        programs all the time, and starting a sandbox anew costs more than most of them take."""
        if self._size == 0:
            raise SandboxUnavailable("COPE_SANDBOX_PROCESSES is 0 for this worker, so no program is run here.")
        await self._turn.acquire()
        running = asyncio.get_running_loop().create_task(self._run(run, limits or RunLimits()))
        self._running.add(running)
        running.add_done_callback(self._ended)
        return await asyncio.shield(running)

    async def _run(self, run: ProgramRun, limits: RunLimits) -> ProgramVerdict:
        for _ in range(2):
            sandbox = self._idle.pop() if self._idle else await self._start()
            self._busy.add(sandbox)
            try:
                verdict = await sandbox.ask(run, limits)
            finally:
                self._give_back(sandbox)
            if verdict is not None:
                return verdict
        # Twice in a row, in two sandboxes: it is the program's doing.
        return ProgramVerdict(0, len(run.tests), loaded=False, ending=Ending.DIED)

    def _ended(self, running: "asyncio.Task[ProgramVerdict]") -> None:
        self._turn.release()
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # seen: its caller may be gone

    async def aclose(self) -> None:
        """See `ProgramRunner.aclose`. A run under way, or later, raises `SandboxUnavailable` or fails."""
        self._closed = True
        for sandbox in (*self._idle, *self._busy):
            await sandbox.stop()
        self._idle.clear()
        await asyncio.gather(*self._running, return_exceptions=True)
        await asyncio.gather(*self._stopping)

    async def _start(self) -> _Sandbox:
        if self._closed:
            raise SandboxUnavailable("The sandbox is closed.")
        now = asyncio.get_running_loop().time()
        if self._refusal is not None and now < self._refusal[0]:
            raise self._refusal[1]
        try:
            return await self._started()
        except SandboxUnavailable as refusal:
            self._refusal = (now + _RECHECK_S, refusal)  # every program of a batch asks; once a minute will do
            raise

    async def _started(self) -> _Sandbox:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=messages.MAX_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is the worker's to handle
                # No secrets of ours in a process that others are forked from; our own import path, whatever set it.
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "LC_ALL": "C.UTF-8",
                },
            )
        except OSError as error:
            raise SandboxUnavailable(f"The sandbox can't start: {error}. {_MENDING}") from None
        sandbox = _Sandbox(process)
        try:
            self.layers = await sandbox.ready()
        except asyncio.CancelledError:
            self._stop_soon(sandbox)
            raise
        return sandbox

    def _give_back(self, sandbox: _Sandbox) -> None:
        self._busy.discard(sandbox)
        if sandbox.spent or self._closed:
            self._stop_soon(sandbox)
        else:
            self._idle.append(sandbox)

    def _stop_soon(self, sandbox: _Sandbox) -> None:
        # A task of its own: the caller may be in the midst of a cancellation.
        task = asyncio.get_running_loop().create_task(sandbox.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
