"""`cope doctor`: looks at the database, broker, files, models and books, and says what to mend. Changes nothing."""

import asyncio
import ipaddress
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import aiohttp
from fastapi import APIRouter, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.doctor import Finding, Level, judge_store, worst
from cope.core.errors import CopeError, StoreUnavailable
from cope.core.models import ModelEntry
from cope.core.money import format_usd
from cope.usecases.watch_prices import unpriced
from cope_api.context import admin_of
from cope_api.failures import json_response

router = APIRouter()
_MODEL_TIMEOUT_S = 5.0
_LOW_DISK = 0.05
_OLD_DOUBT_S = 86_400.0
_SHORT_ADMIN_KEY = 24


@router.get("/v1/organization/doctor")
async def doctor(request: Request) -> Response:
    """Every check's finding, the worst first. No paid call is made: models are asked for their list only."""
    parts = await admin_of(request)
    findings = [finding async for finding in _look(parts)]
    order = (Level.FAIL, Level.WARN, Level.OK)
    findings.sort(key=lambda finding: order.index(finding.level))
    return json_response(
        {
            "object": "cope.doctor",
            "status": worst(findings).value,
            "findings": [
                {"check": one.check, "status": one.level.value, "message": one.says, "mend": one.mend or None}
                for one in findings
            ],
        }
    )


async def _look(parts: ApiParts) -> AsyncIterator[Finding]:
    try:
        for finding in judge_store(await parts.store.facts(), host_now=parts.clock.now()):
            yield finding
        async for finding in _books(parts):
            yield finding
    except StoreUnavailable as away:
        yield Finding("postgres", Level.FAIL, away.message, "Start Postgres, and look at COPE_API_DATABASE_URL.")
    yield await _broker(parts)
    yield await _files(parts)
    for finding in await asyncio.gather(*(_model(entry) for entry in _asked(parts))):
        yield finding
    for finding in _settings(parts):
        yield finding


async def _books(parts: ApiParts) -> AsyncIterator[Finding]:
    notice = await parts.store.restore_notice()
    if notice is not None:
        says = f"restored from a backup of {notice.backup_at.isoformat(timespec='seconds')}: every project is paused"
        mend = "cope reconcile usage.csv --apply --complete-from … --complete-until … --unknown-to PROJECT"
        yield Finding("restore", Level.FAIL, says, mend if notice.reconciled_at is None else "cope restored --release")
    differing = await parts.store.ledger_difference(None)
    if differing:
        names = ", ".join(sorted({row.project_id for row in differing})[:5])
        mend = "Raise no cap of theirs; report it with `cope spend --json` and the ledger's export."
        yield Finding("ledger", Level.FAIL, f"budgets differ from the ledger in {names}", mend)
    else:
        yield Finding("ledger", Level.OK, "every budget is what the ledger adds up to")
    ages = await parts.store.unconfirmed_ages(None)
    old = sum(group.attempts for group in ages if group.from_s >= _OLD_DOUBT_S)
    if old:
        mend = "cope reconcile usage.csv with the provider's usage export settles them."
        yield Finding("unconfirmed", Level.WARN, f"{old} paid calls in doubt for over a day keep their reserves", mend)
    else:
        yield Finding("unconfirmed", Level.OK, "no paid call has been in doubt for over a day")
    standings = await parts.store.standings()
    over = [standing for standing in standings if standing.budget.overrun]
    if over:
        told = ", ".join(f"{one.budget.project_id} by {format_usd(one.budget.overrun)} USD" for one in over[:5])
        yield Finding("overrun", Level.FAIL, f"billed beyond the bound: {told}", "Look at it, then resume the project.")
    capped = [one.budget.project_id for one in standings if one.budget.cap == 0]
    if capped:
        yield Finding(
            "caps", Level.WARN, f"a cap of 0 in {', '.join(capped[:5])}", "cope budget --set … if it is meant."
        )


async def _broker(parts: ApiParts) -> Finding:
    url = parts.settings.broker_url
    if not url.startswith(("redis://", "rediss://")):
        known = url.startswith(("amqp://", "amqps://"))
        says = "RabbitMQ" if known else "no broker is set"
        mend = "" if known else "Set COPE_BROKER_URL: without it workers only poll, a little later."
        return Finding("broker", Level.OK if known else Level.WARN, says, mend)
    try:
        async with Redis.from_url(url, socket_connect_timeout=3, socket_timeout=3, decode_responses=True) as client:
            policy = (await client.config_get("maxmemory-policy")).get("maxmemory-policy", "noeviction")
    except (RedisError, OSError) as away:
        mend = "Start Redis. Meanwhile the work goes on by polling, and the limiter keeps its books in Postgres."
        return Finding("broker", Level.WARN, f"Redis does not answer: {type(away).__name__}", mend)
    if policy != "noeviction":
        mend = "redis-cli CONFIG SET maxmemory-policy noeviction: it may drop the limiter's books."
        return Finding("broker", Level.WARN, f"Redis evicts keys ({policy})", mend)
    return Finding("broker", Level.OK, "Redis answers and evicts nothing")


async def _files(parts: ApiParts) -> Finding:
    if parts.settings.files_url:
        try:
            await parts.files.check()
        except CopeError as wrong:
            mend = "See COPE_FILES_URL and the AWS_… settings: nothing can be uploaded, and no batch gets its files."
            return Finding("files", Level.FAIL, wrong.message, mend)
        return Finding("files", Level.OK, f"{parts.settings.files_url}: written, read and removed a byte")
    return await asyncio.to_thread(_folder, parts)


def _folder(parts: ApiParts) -> Finding:
    folder = parts.settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"cope")
            os.fsync(probe.fileno())
        usage = shutil.disk_usage(folder)
    except OSError as wrong:
        mend = "Make COPE_DATA_DIR a folder that the API and the workers share and may write."
        return Finding("files", Level.FAIL, f"{folder} can't be written: {wrong.strerror}", mend)
    free = f"{usage.free / 1e9:.1f} GB free"
    if usage.free < _LOW_DISK * usage.total:
        return Finding("files", Level.WARN, f"{folder}: {free}", "Delete old files or shorten their time, or add disk.")
    return Finding("files", Level.OK, f"{folder}: {free}")


def _asked(parts: ApiParts) -> Iterator[ModelEntry]:
    """Each endpoint of each model once."""
    for entry in parts.catalog.entries.values():
        for place in entry.places:
            yield entry.at(place.endpoint)


async def _model(entry: ModelEntry) -> Finding:
    check, url = f"model {entry.name}", entry.base_url.rstrip("/") + "/models"
    headers = {"authorization": f"Bearer {entry.api_key}"} if entry.api_key else {}
    timeout = aiohttp.ClientTimeout(total=_MODEL_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
            listed = await answer.json(content_type=None) if status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as away:
        mend = f"Start the server at {entry.base_url}, or mend the address. Its tasks wait meanwhile."
        return Finding(check, Level.FAIL, f"does not answer: {type(away).__name__}", mend)
    if status in {401, 403}:
        return Finding(check, Level.FAIL, f"the key is refused ({status})", "Set its API key anew and start again.")
    if status != 200:
        return Finding(check, Level.OK, f"answers, with {status} to a question for its models")
    served = listed.get("data") if isinstance(listed, dict) else None
    names = {one.get("id") for one in served if isinstance(one, dict)} if isinstance(served, list) else set()
    if names and entry.served_name not in names:
        says = f"{entry.served_name!r} is not among the {len(names)} models it lists"
        return Finding(check, Level.WARN, says, "Look at the model's name, unless the provider lists only some.")
    return Finding(check, Level.OK, "answers")


def _settings(parts: ApiParts) -> Iterator[Finding]:
    missing = list(unpriced(parts.catalog, parts.prices, parts.clock.now()))
    for says in missing:
        yield Finding("prices", Level.FAIL, str(says), "cope prices add …")
    if not missing:
        yield Finding("prices", Level.OK, "every paid model has a price in force")
    settings = parts.settings
    if len(settings.admin_key.get_secret_value()) < _SHORT_ADMIN_KEY:
        mend = "Set a longer one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        yield Finding("admin key", Level.WARN, f"COPE_ADMIN_KEY has under {_SHORT_ADMIN_KEY} characters", mend)
    if settings.default_cap is None:
        says = "new projects have no cap (COPE_DEFAULT_CAP_USD=unlimited)"
        yield Finding("default cap", Level.WARN, says, "Set an amount, unless each project is given its own.")
    for entry in parts.catalog.entries.values():
        if entry.price_id is not None and urlsplit(entry.base_url).scheme == "http" and not _near(entry.base_url):
            says = f"{entry.name}'s key goes over the network in clear text ({entry.base_url})"
            yield Finding("transport", Level.WARN, says, "Use https.")


def _near(url: str) -> bool:
    """Whether an address is on this machine or in a private network, or a bare name of one."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host
