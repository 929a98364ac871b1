"""The audit of dependencies fails on what is known, and says loudly what it could not ask."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("audit", ROOT / "ops/security/audit.py")
assert SPEC is not None
assert SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

LOCK = """\
aiohttp==3.14.5 \\
    --hash=sha256:00
    # via cope
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:00
Some_Thing==1.24.0.post1
"""
LOCKED = [("aiohttp", "3.14.5"), ("colorama", "0.4.6"), ("some-thing", "1.24.0.post1")]


def test_a_lock_file_is_read():
    assert audit.pins(LOCK) == LOCKED


def test_our_own_locks_are_above_every_version_that_mended_something():
    locks = [str(ROOT / "requirements.lock"), str(ROOT / "requirements-dev.lock")]
    assert audit.main(locks, url="") == 0
    rules = audit.tomllib.loads(audit.RULES.read_text())
    locked = {name for lock in locks for name, _ in audit.pins(Path(lock).read_text())}
    assert rules["mended"].keys() <= locked, "a rule for what is not locked any more says nothing"


@pytest.mark.parametrize(
    ("version", "is_below"),
    [("3.14.2", True), ("3.9.0", True), ("3.14.3", False), ("3.14.10", False), ("4.0", False), ("3.14", True)],
)
def test_a_version_below_the_one_that_mended_it_is_found(version: str, is_below: bool):
    found = audit.below([("aiohttp", version)], {"aiohttp": {"version": "3.14.3", "ids": ["CVE-1"]}})
    assert (found != []) is is_below


def test_what_osv_names_is_found_unless_it_is_accepted_for_now():
    answer = {"results": [{"vulns": [{"id": "GHSA-1"}]}, {}, {"vulns": [{"id": "GHSA-2"}, {"id": "GHSA-3"}]}]}
    accepted = {"GHSA-2": {"why": "…", "until": date(2027, 1, 1)}, "GHSA-3": {"why": "…", "until": date(2026, 1, 1)}}

    found = audit.known(LOCKED, answer, accepted, date(2026, 11, 25))

    assert [line.split()[2] for line in found] == ["GHSA-1", "GHSA-3"]


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """(address, what it was asked, what it answers)."""
    asked: list[bytes] = []
    answers: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[0])

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/v1/querybatch", asked, answers
        made.shutdown()
        thread.join()


def test_one_request_asks_for_everything_and_a_known_advisory_fails(
    server: tuple[str, list[bytes], list[bytes]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    url, asked, answers = server
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    answers[:] = [json.dumps({"results": [{}, {"vulns": [{"id": "GHSA-new"}]}, {}]}).encode()]

    assert audit.main([str(lock)], url=url) == 1

    assert [query["version"] for query in json.loads(asked[0])["queries"]] == [version for _, version in LOCKED]
    assert "colorama 0.4.6: GHSA-new" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"results": []}', None])
def test_a_server_that_is_away_or_another_is_a_loud_warning_and_no_failure(
    server: tuple[str, list[bytes], list[bytes]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answer: bytes | None,
):
    url, _, answers = server
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    answers[:] = [answer or b""]

    assert audit.main([str(lock)], url=url if answer is not None else "http://127.0.0.1:9/") == 0

    assert "OSV WAS NOT ASKED" in capsys.readouterr().err


def test_a_lock_that_is_too_old_fails_with_or_without_a_network(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("h11==0.14.0 \\\n")
    assert audit.main([str(lock)], url="") == 1


def test_ci_runs_it_before_anything_is_installed():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd ", "export "))]
    assert commands[0].startswith("./run audit")
