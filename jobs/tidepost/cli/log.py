"""The log on standard error: one line an event, as text or as JSON, and never a row's values."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from tidepost.cli.output import instant

LOG: Final = logging.getLogger("tidepost.cli")


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def set_up(log_format: LogFormat, *, verbose: bool) -> None:
    """Send tidepost's own log to standard error. Other libraries' stays silent below a warning: what they would
    tell of a request is not ours to vouch for."""
    logging.raiseExceptions = False  # a reader of the log that has gone away does not end a run
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format is LogFormat.JSON else _Text())
    root = logging.getLogger("tidepost")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(logging.DEBUG if verbose else logging.WARNING)
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


def tell(level: int, text: str, **fields: Any) -> None:
    """Log a line; as JSON it carries the fields beside its text."""
    LOG.log(level, "%s", text, extra={"fields": fields})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"{prefix}{record.getMessage()}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line = {
            "at": instant(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        return json.dumps(line, ensure_ascii=False, default=str)
