"""Known advisories against the locked dependencies: ``python ops/security/audit.py requirements.lock …``

Two looks. The first needs no network: `advisories.toml` says which versions mended what. The second asks OSV's database
for everything it knows of the locked versions, in one request. Exit code 1 where either finds something that is not
accepted there. Where OSV can't be reached the second look is missing: that is said, loudly, and is no failure, because
a service that is away says nothing about our dependencies. Standard library only: it must run before anything is
installed. COPE_ADVISORY_URL names another server of the same protocol; empty asks nobody.
"""

import json
import os
import re
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

OSV = "https://api.osv.dev/v1/querybatch"
RULES = Path(__file__).with_name("advisories.toml")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_TIMEOUT_S = 20
_WIDTH = 100

Pin = tuple[str, str]


class OutOfReach(Exception):
    """The advisory server did not answer as one."""


def pins(lock: str) -> list[Pin]:
    """(name, version) of everything that a lock file pins, each once."""
    return sorted({(name.lower().replace("_", "-"), version) for name, version in _PIN.findall(lock)})


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them: ``1.24.0.post1`` → (1, 24, 0)."""
    numbers = []
    for part in version.split("."):
        digits = re.match(r"[0-9]+", part)
        if digits is None:
            break
        numbers.append(int(digits[0]))
        if digits[0] != part:
            break
    return tuple(numbers)


def below(locked: Iterable[Pin], mended: Mapping[str, Any]) -> list[str]:
    """What is locked below the version that mended it."""
    return [
        f"{name} {version}: {', '.join(rule['ids'])}, mended in {rule['version']}"
        for name, version in locked
        if (rule := mended.get(name)) and release(version) < release(rule["version"])
    ]


def known(locked: list[Pin], answer: Mapping[str, Any], accepted: Mapping[str, Any], today: date) -> list[str]:
    """What OSV's answer names, less what is accepted until a day that has not passed."""
    results = answer.get("results")
    if not isinstance(results, list) or len(results) != len(locked):
        raise OutOfReach("its answer is not one to our question")
    found = []
    for (name, version), result in zip(locked, results, strict=True):
        for advisory in (result or {}).get("vulns") or []:
            rule = accepted.get(advisory["id"])
            if rule is None or rule["until"] < today:
                found.append(f"{name} {version}: {advisory['id']} (https://osv.dev/{advisory['id']})")
    return found


def ask(url: str, locked: list[Pin]) -> Mapping[str, Any]:
    """OSV's answer for these versions. Raises `OutOfReach`."""
    queries = [{"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in locked]
    request = urllib.request.Request(
        url, json.dumps({"queries": queries}).encode(), {"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
            answer = json.loads(reply.read())
    except (OSError, ValueError, urllib.error.URLError) as away:
        raise OutOfReach(f"{type(away).__name__}: {away}") from None
    if not isinstance(answer, dict):
        raise OutOfReach("its answer is not one to our question")
    return answer


def main(locks: list[str], *, url: str) -> int:
    """0: nothing known. 1: something is. 2: wrongly called."""
    if not locks:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    rules = tomllib.loads(RULES.read_text())
    locked = pins("\n".join(Path(lock).read_text() for lock in locks))
    found = below(locked, rules["mended"])
    asked = f"{len(locked)} locked versions: {len(rules['mended'])} packages have known lower bounds"
    try:
        if not url:
            raise OutOfReach("COPE_ADVISORY_URL is empty")
        found += known(locked, ask(url, locked), rules.get("accepted", {}), datetime.now(UTC).date())
        asked += f"; {url} was asked for everything else"
    except OutOfReach as away:
        _shout(f"OSV WAS NOT ASKED ({away}).", "Only advisories.toml was looked at: new advisories are NOT seen here.")
    for line in found:
        sys.stderr.write(f"audit: {line}\n")
    sys.stderr.write(f"audit: {asked}; {len(found)} known advisories.\n")
    return 1 if found else 0


def _shout(*lines: str) -> None:
    bar = "!" * _WIDTH
    sys.stderr.write("\n".join([bar, *(f"!! {line}" for line in lines), bar]) + "\n")
    if "GITHUB_ACTIONS" in os.environ:
        sys.stderr.write(f"::warning::{' '.join(lines)}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], url=os.environ.get("COPE_ADVISORY_URL", OSV)))
