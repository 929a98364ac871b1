"""A pool of helper processes, started when first needed, killed and replaced when an answer outlasts its limits.

`subprocess` children, not `multiprocessing`: a Celery worker child is daemonic and may not have the latter. A pool
belongs to the event loop it is first used in.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from cope.adapters.answer_helper import messages
from cope.core.errors import AnswerHelperUnavailable

_MAX_LINE_BYTES = 4 * 2**20
_BLAMED = frozenset({-signal.SIGPROF, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL})
"""Endings that the answer itself brought about. Any other death is an accident, and the request is tried once more."""


@dataclass(frozen=True, slots=True)
class HelperLimits:
    """What one answer may cost.

    `cpu_s`: processor seconds, so that on a machine with a core to spare no answer takes a second by the clock.
    `wall_s`: seconds by the clock, much longer, for a machine that stalls. `start_s`:
    seconds for a helper to get ready or to load sympy. `memory_bytes`: of address space. `max_uses`: requests until a
    helper is replaced (sympy's caches grow).
    """

    cpu_s: float = 0.7
    wall_s: float = 15.0
    start_s: float = 60.0
    memory_bytes: int = 512 * 2**20
    max_uses: int = 5_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """`certain`: asking again would give the same value, so it may be kept."""

    value: messages.Value
    certain: bool


class _Died(Exception):
    """The helper ended before it answered; its return code is known by now."""


class _Helper:
    def __init__(self, process: Process, limits: HelperLimits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._limits = limits
        self._uses = 0
        self.spent = False

    async def ready(self) -> None:
        """Raises `AnswerHelperUnavailable` with what the process said."""
        try:
            async with asyncio.timeout(self._limits.start_s):
                line = await self._stdout.readline()
        except TimeoutError:
            await self.stop()
            raise AnswerHelperUnavailable(
                f"The answer helper was not ready after {self._limits.start_s:g} s."
            ) from None
        if line != messages.READY:
            stderr = self._process.stderr
            said = (await stderr.read(4_000)).decode(errors="replace").strip() if stderr else ""
            await self.stop()
            raise AnswerHelperUnavailable(
                f"The answer helper can't start (exit {self._process.returncode}): {said.splitlines()[-1:] or line!r}"
            )

    async def ask(self, request: messages.Request) -> messages.Reply:
        """Raises `_Died`, `TimeoutError` past the clock's limit, or `AnswerHelperUnavailable` if sympy does not load.

        After any of them, or a cancellation, the helper is spent.
        """
        self.spent = True  # until the reply is here, what comes out of the pipe belongs to this request
        self._uses += 1
        state = messages.WORKING
        try:
            self._stdin.write(messages.encode_request(request))
            await self._stdin.drain()
            async with asyncio.timeout(self._limits.wall_s) as deadline:
                while (line := await self._stdout.readline()) in {messages.LOADING, messages.WORKING}:
                    state = line
                    more = self._limits.start_s if state == messages.LOADING else self._limits.wall_s
                    deadline.reschedule(asyncio.get_running_loop().time() + more)
        except (BrokenPipeError, ConnectionResetError):
            raise _Died from None
        except TimeoutError:
            if state == messages.LOADING:
                raise AnswerHelperUnavailable("The answer helper takes too long to load sympy.") from None
            raise
        if not line.endswith(b"\n"):
            if state == messages.LOADING:  # no fault of the answer: it was not even looked at
                raise AnswerHelperUnavailable("The answer helper can't load sympy within its limits.")
            raise _Died
        reply = messages.decode_reply(line)
        self.spent = reply.tired or self._uses >= self._limits.max_uses
        return reply

    async def stop(self) -> int:
        """Kill it and wait; its return code."""
        with suppress(ProcessLookupError):
            self._process.kill()
        return await self._process.wait()

    async def returncode(self) -> int:
        """Wait for a helper that has died by itself."""
        return await self._process.wait()


class HelperPool:
    """At most `size` helpers at work; requests beyond that wait their turn, outside every limit."""

    def __init__(self, size: int, limits: HelperLimits, *, python: str = sys.executable) -> None:
        if size < 1:
            raise ValueError("a pool has at least one helper")
        self._limits = limits
        self._python = python
        self._turn = asyncio.Semaphore(size)
        self._idle: deque[_Helper] = deque()
        self._busy: set[_Helper] = set()
        self._stopping: set[asyncio.Task[int]] = set()
        self._closed = False

    async def perform(self, request: messages.Request) -> Outcome:
        """The request's value; None (False for a grade) where the limits ended it.

        Raises `AnswerHelperUnavailable` if no helper can be started.
        """
        nothing = False if isinstance(request, messages.Grade) else None
        async with self._turn:
            for _ in range(2):
                helper = self._idle.pop() if self._idle else await self._start()
                self._busy.add(helper)
                try:
                    return Outcome((await helper.ask(request)).value, certain=True)
                except TimeoutError:
                    return Outcome(nothing, certain=False)
                except _Died:
                    if await helper.returncode() in _BLAMED:
                        return Outcome(nothing, certain=True)
                finally:
                    self._give_back(helper)
            return Outcome(nothing, certain=False)

    async def aclose(self) -> None:
        """Kill every helper and wait for it. A request under way, or later, raises `AnswerHelperUnavailable`."""
        self._closed = True
        for helper in (*self._idle, *self._busy):
            await helper.stop()
        self._idle.clear()
        await asyncio.gather(*self._stopping)

    async def _start(self) -> _Helper:
        if self._closed:
            raise AnswerHelperUnavailable("The answer helper is closed.")
        try:
            process = await asyncio.create_subprocess_exec(
                self._python,
                "-m",
                "cope.adapters.answer_helper.child",
                str(self._limits.memory_bytes),
                str(self._limits.cpu_s),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=_MAX_LINE_BYTES,
                # No secrets of ours in a process that reads hostile text; our own import path, whatever set it.
                env={
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "LC_ALL": "C.UTF-8",
                },
            )
        except OSError as error:
            raise AnswerHelperUnavailable(f"The answer helper can't start: {error}") from None
        helper = _Helper(process, self._limits)
        try:
            await helper.ready()
        except asyncio.CancelledError:
            self._stop_soon(helper)
            raise
        return helper

    def _give_back(self, helper: _Helper) -> None:
        self._busy.discard(helper)
        if helper.spent or self._closed:
            self._stop_soon(helper)
        else:
            self._idle.append(helper)

    def _stop_soon(self, helper: _Helper) -> None:
        # A task of its own: the caller may be in the midst of a cancellation.
        task = asyncio.get_running_loop().create_task(helper.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
