"""The command line's alerts, limits, hold and resume, as subprocesses against a real loopback server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api import test_api, test_spend
from tests.api.test_api import ADMIN, Served
from tests.api.test_spend import in_progress

served = test_api.served
project = test_spend.project
key = test_spend.key

Cope = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cope(served: Served, key: tuple[str, str], tmp_path: Path) -> Cope:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cope_cli.main", "--base-url", served.url]
        keys = ["--api-key", key[1], "--admin-key", ADMIN]
        return subprocess.run(
            [*command, *keys, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
        )

    return run


def test_alerts_are_made_listed_and_deleted(cope: Cope, project: str):
    made = cope(
        "alerts", "--project", project, "--create", "80%", "--create", "$2.5", "--create", "projected", "--json"
    )
    assert made.returncode == 0, made.stderr
    kinds = {alert["cope"]["kind"]: alert["id"] for alert in json.loads(made.stdout)["data"]}
    assert set(kinds) == {"percent", "amount", "projected"}

    shown = cope("alerts")
    assert "80 % of the cap  $8.00  armed" in shown.stdout
    assert "amount  $2.50  armed" in shown.stdout
    left = cope("alerts", "--project", project, "--delete", kinds["amount"])
    assert "amount" not in left.stdout
    wrong = cope("alerts", "--project", project, "--create", "soon")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_limits_show_what_is_left(cope: Cope, project: str, key: tuple[str, str]):
    shown = cope("limits").stdout

    assert f"project {project}: cap $10.00 · left $10.00 · used $0.00" in shown
    assert f"key {key[0]}: no cap" in shown
    assert "provider large: no limits known" in shown


def test_a_batch_and_a_project_are_held_and_resumed(served: Served, cope: Cope, project: str, key: tuple[str, str]):
    batch = in_progress(served, key[1])

    assert "held: paused" in cope("hold", batch).stdout
    assert "held" not in cope("resume", batch).stdout
    assert cope("hold", project).stdout == f"{project} is held\n"
    assert json.loads(cope("resume", project, "--json").stdout)["cope"]["paused"] is False
    wrong = cope("hold", "task_1")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
