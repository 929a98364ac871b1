"""Logs of every process: one record is one line of ours, and no secret is in it."""

import io
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr, ValidationError

from cope.logs import GuardedFormatter
from cope.settings import Settings


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    settings = Settings(
        large_api_key=SecretStr("the-large-models-key"),
        bootstrap_api_key=SecretStr("the-first-projects-key"),
        secret_key=SecretStr("the-sealing-key"),
        small_api_key=SecretStr("none"),
        worker_database_url="postgresql://cope_worker:pass%2Fword-of-worker@db/cope",
        broker_url="redis://:the-brokers-word@redis/0",
    )
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(GuardedFormatter(settings.secrets))
    logger = logging.getLogger("tests.guarded")
    logger.addHandler(handler)
    logger.propagate = False
    yield logger, out
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.parametrize(
    "secret",
    ["the-large-models-key", "the-first-projects-key", "the-sealing-key", "pass/word-of-worker", "the-brokers-word"],
)
def test_no_setting_that_is_a_secret_is_logged(log: tuple[logging.Logger, io.StringIO], secret: str):
    logger, out = log
    logger.error("refused with %s", secret)
    try:
        raise ValueError(f"connection to {secret} failed")
    except ValueError:
        logger.exception("it failed")

    assert secret not in out.getvalue()
    assert out.getvalue().count("[secret]") >= 2


def test_an_ordinary_word_is_left_alone(log: tuple[logging.Logger, io.StringIO]):
    logger, out = log
    logger.error("none of it is a secret")
    assert "none of it" in out.getvalue()


def test_a_message_can_not_look_like_two(log: tuple[logging.Logger, io.StringIO]):
    logger, out = log
    logger.error("no %s", "a\n2026-11-25 00:00:00 CRITICAL cope: all is lost\x1b[2J\u2028b")

    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()


def test_no_line_of_a_traceback_can_look_like_a_record(log: tuple[logging.Logger, io.StringIO]):
    logger, out = log
    try:
        raise ValueError("a\n2026-11-25 00:00:00,000 CRITICAL cope: all is lost")
    except ValueError:
        logger.exception("it failed")

    first, *rest = out.getvalue().splitlines()
    assert first.endswith("ERROR tests.guarded: it failed")
    assert rest
    assert all(line.startswith("  | ") for line in rest)


def test_a_setting_that_is_refused_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COPE_DEFAULT_CAP_USD", "not-money-but-maybe-a-secret")
    monkeypatch.setenv("COPE_LARGE_RPM", "sk-a-key-in-the-wrong-variable")

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert "sk-a-key" not in str(refused.value)
    assert "large_rpm" in str(refused.value)
