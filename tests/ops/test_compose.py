"""docker-compose.yml keeps what it promises, as far as that can be seen without a Docker engine."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cope.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = {
    line.partition("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"[A-Z]", line)
}
ONE_SHOT = {"migrate"}
NEEDS_ROOT = {"sglang"}  # its image runs as root; the GPU's device files are why
WRITES_ITS_ROOT = {"sglang"}  # it compiles kernels for the GPU it finds, in a dozen places
MAY_CALL_OUT = {"sglang", "worker-large", "worker-upkeep", "api", "flower"}
SECRET = re.compile(r"PASSWORD|SECRET|_KEY$|AUTH|DATABASE_URL")


def test_every_service_of_the_design_is_there():
    wanted = {
        "postgres",
        "redis",
        "sglang",
        "migrate",
        "api",
        "worker-small",
        "worker-large",
        "worker-upkeep",
        "flower",
    }
    assert wanted <= SERVICES.keys()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_hardened_and_watched(name: str):
    service = SERVICES[name]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["cap_drop"] == ["ALL"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "userns_mode"} & service.keys()
    assert service.get("read_only") is (None if name in WRITES_ITS_ROOT else True)
    for place in service.get("tmpfs", []):
        assert {"noexec", "nosuid", "nodev"} <= set(place.partition(":")[2].split(",")), place
    assert not any("docker.sock" in str(volume) or str(volume).startswith(("/", ".")) for volume in service["volumes"])
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
    if name not in NEEDS_ROOT:
        assert str(service["user"]) not in {"", "0", "root"}
    if name not in ONE_SHOT:
        assert service["healthcheck"]["test"]
        assert service["restart"] == "unless-stopped"


def test_only_the_api_and_flower_listen_and_only_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"api", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_the_databases_are_on_a_network_that_leads_nowhere():
    assert COMPOSE["networks"]["back"] == {"internal": True}
    for name in ("postgres", "redis", "migrate"):
        assert SERVICES[name]["networks"] == ["back"]
    outside = {name for name, service in SERVICES.items() if set(service["networks"]) & {"outside", "edge"}}
    assert outside | {"sglang"} == MAY_CALL_OUT
    assert "back" not in SERVICES["sglang"]["networks"]


def test_each_process_is_given_the_secrets_of_its_own_work_only():
    given = {
        name: {key for key in service.get("environment") or {} if SECRET.search(key)}
        for name, service in SERVICES.items()
    }
    workers = {"COPE_WORKER_DATABASE_URL", "COPE_SECRET_KEY"}
    assert given["worker-small"] == workers
    assert given["worker-large"] == given["worker-upkeep"] == workers | {"COPE_LARGE_API_KEY"}
    assert given["api"] == {
        "COPE_API_DATABASE_URL",
        "COPE_SECRET_KEY",
        "COPE_ADMIN_KEY",
        "COPE_BOOTSTRAP_API_KEY",
        "COPE_BOOTSTRAP_WEBHOOK_SECRET",
    }
    assert given["flower"] == {"FLOWER_BASIC_AUTH"}
    assert given["sglang"] == set()


def test_the_image_runs_as_nobody_in_particular_and_takes_locked_packages_only():
    lines = (ROOT / "ops/docker/Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001"]
    assert "pip install --require-hashes" in "\n".join(lines)
    assert not any(line.startswith("ADD ") or "COPY . " in line for line in lines)
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"


def test_every_variable_is_explained_and_no_secret_is_written_down():
    variables = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT))
    assert variables <= EXAMPLE
    assert variables >= EXAMPLE
    for name, service in SERVICES.items():
        for key, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY$|AUTH", key):
                assert str(value).startswith("${"), (name, key)


def test_every_setting_exists():
    fields = {f"COPE_{field.upper()}" for field in Settings.model_fields}
    for service in SERVICES.values():
        for key in service.get("environment") or {}:
            assert not key.startswith("COPE_") or key in fields, key


def test_every_command_exists():
    for name, service in SERVICES.items():
        command = service.get("command")
        if isinstance(command, list) and command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]) is not None, name


def test_a_paid_call_outlives_a_stop():
    grace = int(SERVICES["worker-large"]["stop_grace_period"].rstrip("s"))
    assert grace >= Settings.model_fields["large_timeout_s"].default + 15


def test_docker_itself_accepts_the_file():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose plugin here")
    done = subprocess.run(
        [docker, "compose", "--env-file", "/dev/null", "config", "--quiet", "--no-interpolate"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
