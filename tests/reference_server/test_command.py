"""The command: names of models, one clear line for what is wrong, and an end when told to."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from cope_reference.__main__ import named_folder
from tests.reference_server.tiny import write_tiny


def command(*arguments: str) -> subprocess.Popen[str]:
    whole = [sys.executable, "-m", "cope_reference", *arguments]
    return subprocess.Popen(whole, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=dict(os.environ))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_folder_gives_the_name_unless_one_is_given() -> None:
    assert named_folder("weights/small") == ("cope-reference-small", Path("weights/small"))
    assert named_folder("mine=weights/small") == ("mine", Path("weights/small"))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        ("config.json", "No such file"),
        ("tokenizer.json", "No such file"),
        ("tokenizer_config.json", "No such file"),
        ("model.safetensors", "No such file"),
    ],
)
def test_a_folder_that_lacks_a_file_is_named_in_one_line(tmp_path: Path, spoil: str, line: str) -> None:
    (write_tiny(tmp_path) / spoil).unlink()
    with command("--model", f"m={tmp_path}", "--port", "1") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert line in errors
    assert spoil in errors


def test_it_serves_two_models_and_ends_when_told_to(tiny: Path) -> None:
    port = free_port()
    with command("--model", f"a={tiny}", "--model-dir", f"b={tiny}", "--port", str(port)) as process:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models") as answer:
                    models = answer.read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail("it never answered")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert b'"id":"a"' in models
    assert b'"id":"b"' in models
