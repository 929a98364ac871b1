"""Every setting, read once from the environment. Names are `COPE_` plus the field's, in capitals (see .env.example)."""

import hashlib
import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cope.core.errors import Misconfigured
from cope.core.keeping import Keeping, days
from cope.core.money import NanoUSD, parse_usd
from cope.core.webhooks import SCHEDULE_S

_HASHED = "sha256:"
_SHORTEST_ADMIN_KEY = 16


class Settings(BaseSettings):
    """Typed settings. A process that lacks one it needs says its name and does not start."""

    # A refusal of a setting names it and says why, and never repeats its value: it may be a secret.
    model_config = SettingsConfigDict(env_prefix="COPE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    api_database_url: str = ""
    worker_database_url: str = ""
    owner_database_url: str = ""
    broker_url: str = ""
    secret_key: SecretStr = SecretStr("")
    data_dir: Path = Path(".cope/files")
    files_url: str = ""

    api_host: str = "127.0.0.1"
    api_port: int = 8000
    admin_key: SecretStr = SecretStr("")  # kept as hashes, see `admin_key_hashes`
    bootstrap_api_key: SecretStr = SecretStr("")
    bootstrap_webhook_secret: SecretStr = SecretStr("")
    default_cap_usd: str = "10"
    webhook_allow: str = ""
    webhook_timeout_s: float = Field(default=20.0, gt=0, le=30)
    webhook_retries_s: str = ""
    metrics_open: bool = False
    hsts_s: int = Field(default=0, ge=0)
    body_idle_s: float = Field(default=30.0, gt=0)

    models_file: Path | None = None
    prices_file: Path | None = None
    prompts_file: Path | None = None
    scorers_dir: Path | None = None
    allow_reference: bool = False
    small_base_url: str = ""
    small_model: str = ""
    small_api_key: SecretStr = SecretStr("")
    small_prompt_set: str = "instruct"
    small_context: int = 32_768
    small_price: str = ""
    small_concurrency: int = Field(default=64, ge=1, le=4096)
    small_abort: Literal["none", "rid"] = "none"
    small_logprobs: Literal["none", "original", "temperature_scaled"] = "none"
    large_base_url: str = ""
    large_model: str = ""
    large_api_key: SecretStr = SecretStr("")
    large_prompt_set: str = "instruct"
    large_context: int = 128_000
    large_price: str = ""
    large_rpm: int | None = None
    large_tpm: int | None = None
    large_concurrency: int = Field(default=32, ge=1, le=4096)
    large_processes: int = Field(default=1, ge=1, le=1024)
    large_output_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    large_timeout_s: float = 600.0
    large_batch_tier: bool = False
    large_batch_min: int | None = Field(default=None, ge=1)
    large_batch_turnaround_s: float = Field(default=86_400.0, gt=0)
    large_batch_price: str = ""

    kafka_bootstrap: str = ""
    kafka_topic: str = "cope.events"
    kafka_options: dict[str, str] = Field(default_factory=dict)

    sandbox_processes: int = Field(default=2, ge=0, le=256)

    lease_s: float = Field(default=30.0, gt=0)
    sweep_s: float = Field(default=1.0, gt=0)
    max_file_bytes: int = 4 * 1024**3
    max_file_lines: int = 1_000_000
    max_line_bytes: int = 8 * 1024**2
    max_project_bytes: int | None = Field(default=None, ge=0)

    # For tests that make processes fail (ops/guide/faults.md); without `testing` the others say nothing.
    testing: bool = False
    fault_point: str = ""
    test_clock_offset_s: float = 0.0

    keep_files_days: int = Field(default=0, ge=0, le=36_500)
    keep_tasks_days: int = Field(default=90, ge=0, le=36_500)
    keep_live_days: int = Field(default=30, ge=0, le=36_500)
    keep_events_days: int = Field(default=30, ge=0, le=36_500)
    keep_deliveries_days: int = Field(default=30, ge=0, le=36_500)

    @field_validator("large_rpm", "large_tpm", "max_project_bytes", mode="before")
    @classmethod
    def _empty_is_no_limit(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("admin_key")
    @classmethod
    def _no_admin_key_is_kept(cls, value: SecretStr) -> SecretStr:
        given = (one.strip() for one in value.get_secret_value().split(","))
        return SecretStr(",".join(_hashed(one) for one in given if one))

    @field_validator("default_cap_usd")
    @classmethod
    def _cap_is_money(cls, value: str) -> str:
        if value != "unlimited":
            parse_usd(value)
        return value

    @field_validator("webhook_retries_s")
    @classmethod
    def _retries_are_seconds(cls, value: str) -> str:
        _seconds(value)
        return value

    @property
    def webhook_schedule(self) -> tuple[float, ...]:
        """Seconds until the second, third, … attempt of a webhook: COPE_WEBHOOK_RETRIES_S, else the published ones."""
        return _seconds(self.webhook_retries_s) or SCHEDULE_S

    @property
    def admin_key_hashes(self) -> tuple[bytes, ...]:
        """SHA-256 of each of the operator's keys: COPE_ADMIN_KEY holds one, or several with commas for rotation."""
        kept = self.admin_key.get_secret_value()
        return tuple(bytes.fromhex(one.removeprefix(_HASHED)) for one in kept.split(",") if one)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret among these settings, longest first: what may stand in no log."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        told = {field.get_secret_value() for field in fields if isinstance(field, SecretStr)}
        urls = (self.api_database_url, self.worker_database_url, self.owner_database_url, self.broker_url)
        told |= {unquote(url.rpartition("@")[0].rpartition(":")[2]) for url in urls if "@" in url}
        return tuple(sorted((one for one in told if one and _HASHED not in one), key=len, reverse=True))

    @property
    def default_cap(self) -> NanoUSD | None:
        """The cap of a new project; None only where `unlimited` is said."""
        return None if self.default_cap_usd == "unlimited" else parse_usd(self.default_cap_usd)

    @property
    def keeping(self) -> Keeping:
        """How long things are kept; 0 days is for ever."""
        return Keeping(
            files=days(self.keep_files_days),
            tasks=days(self.keep_tasks_days),
            live=days(self.keep_live_days),
            events=days(self.keep_events_days),
            deliveries=days(self.keep_deliveries_days),
        )

    @property
    def allowed_webhook_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks of COPE_WEBHOOK_ALLOW."""
        return tuple(network for entry in self._webhook_entries() if (network := _network(entry)) is not None)

    @property
    def allowed_webhook_hosts(self) -> frozenset[str]:
        """The host names of COPE_WEBHOOK_ALLOW, lower case."""
        return frozenset(entry.lower() for entry in self._webhook_entries() if _network(entry) is None)

    def _webhook_entries(self) -> list[str]:
        return [entry.strip() for entry in self.webhook_allow.split(",") if entry.strip()]

    def need(self, name: str) -> str:
        """The non-empty text of a setting. Raises `Misconfigured` naming its environment variable."""
        value = getattr(self, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not text:
            raise Misconfigured(f"Set COPE_{name.upper()}: this process can't start without it.")
        return text


def _hashed(key: str) -> str:
    """An admin key as it is kept. One that is given as its hash already (``sha256:…``) is taken as it is."""
    if key.startswith(_HASHED):
        if len(key) != len(_HASHED) + 64 or not set(key.removeprefix(_HASHED)) <= set("0123456789abcdef"):
            raise ValueError(f"a hashed admin key is {_HASHED} and 64 hexadecimal digits in lower case")
        return key
    if len(key) < _SHORTEST_ADMIN_KEY:
        raise ValueError(f"an admin key has at least {_SHORTEST_ADMIN_KEY} characters, such as `openssl rand -hex 32`")
    return _HASHED + hashlib.sha256(key.encode()).hexdigest()


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _seconds(listed: str) -> tuple[float, ...]:
    seconds = tuple(float(part) for part in listed.split(",") if part.strip())
    if not all(0 < one <= 7 * 86_400 for one in seconds):
        raise ValueError("a comma list of seconds, each above 0 and at most a week, such as 5,300,1800")
    return seconds
