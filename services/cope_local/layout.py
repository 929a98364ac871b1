"""What a data directory holds: secrets, ports and logs, made once and kept."""

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from cope_local.children import free_port, port_is_free
from cope_local.errors import CannotStart

DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated once per data directory; the file is readable by its owner only."""

    postgres: str
    owner: str
    api: str
    worker: str
    redis: str
    flower: str
    api_key: str
    admin_key: str
    webhook_secret: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports, chosen once, so that a child that dies comes back where its clients look for it."""

    api: int
    postgres: int
    redis: int
    flower: int
    small: int
    large: int


def prepare(data_dir: Path) -> None:
    """Make the directory. Raises `CannotStart` if it can't be written."""
    try:
        (data_dir / "logs").mkdir(parents=True, exist_ok=True)
        probe = data_dir / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as wrong:
        raise CannotStart(f"The data directory {data_dir} can't be written: {wrong.strerror}.") from None


def load_secrets(data_dir: Path) -> Secrets:
    """The directory's secrets, made at the first start."""
    path = data_dir / "secrets.json"
    if path.exists():
        return Secrets(**json.loads(path.read_text()))
    made = Secrets(
        **{name: secrets.token_urlsafe(24) for name in ("postgres", "owner", "api", "worker", "redis", "flower")},
        api_key=f"cope-sk-{secrets.token_urlsafe(32)}",
        admin_key=f"cope-admin-{secrets.token_urlsafe(32)}",
        webhook_secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(),
        secret_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    )
    write_private(path, asdict(made))
    return made


def load_ports(data_dir: Path, wanted: int | None) -> Ports:
    """The directory's ports. Raises `CannotStart` if the API's is taken."""
    path = data_dir / "ports.json"
    if path.exists():
        known = Ports(**json.loads(path.read_text()))
        ports = known if wanted is None else Ports(**{**asdict(known), "api": wanted})
    else:
        ports = Ports(wanted or DEFAULT_PORT, *(free_port() for _ in range(5)))
    for name, port in asdict(ports).items():
        if not port_is_free(port):
            mend = "choose another with --port" if name == "api" else f"stop what uses it, or remove {path}"
            raise CannotStart(f"Port {port} ({name}) is taken: {mend}.")
    write_private(path, asdict(ports))
    return ports


def write_private(path: Path, content: object) -> None:
    """Write JSON that only its owner may read, replaced whole."""
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    part.replace(path)
