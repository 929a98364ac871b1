"""A sandbox as each kind of user who may run a worker: as whoever runs the tests and, if that is root, as a normal user
too, in copies of Python and of the service that a normal user can read."""

import os
import sys
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from cope.adapters.sandbox_runner import SandboxPool
from cope_sandbox.home import place

NORMAL_ID = 23_456
_AS_NORMAL_USER = """
import os, sys
python, parent, home = sys.argv[1:4]
os.setgroups([]); os.setresgid({id}, {id}, {id}); os.setresuid({id}, {id}, {id})
told = {{"PATH": os.environ["PATH"], "PYTHONPATH": parent}} | ({{"PYTHONHOME": home}} if home else {{}})
os.execve(python, [python, "-m", "cope_sandbox", "serve"], told)
"""

USERS = ("whoever runs the tests", "a normal user") if os.geteuid() == 0 else ("a normal user",)


def as_user(user: str) -> SandboxPool:
    """A pool of one sandbox, started by that user."""
    if user == "a normal user" and os.geteuid() == 0:
        here = place()
        code = _AS_NORMAL_USER.format(id=NORMAL_ID)
        arguments = (here.python, here.package_parent, here.python_home or "")
        return SandboxPool(1, command=(sys.executable, "-c", code, *arguments))
    return SandboxPool(1)


@pytest_asyncio.fixture(loop_scope="module")
async def sandboxes() -> AsyncIterator[Callable[[str], SandboxPool]]:
    made: list[SandboxPool] = []

    def make(user: str) -> SandboxPool:
        made.append(as_user(user))
        return made[-1]

    yield make
    for pool in made:
        await pool.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[SandboxPool]:
    """One sandbox for a module's tests: starting one takes a second."""
    pool = SandboxPool(1)
    yield pool
    await pool.aclose()
