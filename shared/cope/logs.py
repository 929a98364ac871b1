"""Logging for every process: one record is one line, and no secret is in any."""

import copy
import logging
from collections.abc import Iterable
from types import TracebackType

from cope.core.redaction import one_line, redact
from cope.settings import Settings

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LONGEST = 8000
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class GuardedFormatter(logging.Formatter):
    """Writes control characters out, indents tracebacks (a caller's text in them must not pass for a record of ours)
    and blots secrets out, those it was given and whatever has the form of one."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(_FORMAT)
        self._secrets = tuple(secrets)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """The first line."""
        return one_line(super().formatMessage(record), longest=_LONGEST)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging's own name
        """The traceback, each line behind a bar."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  | {one_line(line, longest=_LONGEST)}" for line in lines)

    def format(self, record: logging.LogRecord) -> str:
        """The whole record, without secrets."""
        # Another handler may have left its own form of the traceback on the record.
        ours = copy.copy(record)
        ours.exc_text = None
        return redact(super().format(ours), self._secrets)


def set_up_logs(settings: Settings) -> None:
    """Everything goes to standard error in this form, what libraries say too. Call once the settings are read."""
    handler = logging.StreamHandler()
    handler.setFormatter(GuardedFormatter(settings.secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
