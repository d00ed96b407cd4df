"""Formats log lines: as text, or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

#: Loggers whose lines below ERROR contain secrets (signed URLs, session tokens, responses of credential services) or tracebacks.
_LEAKY = ("azure", "boto3", "botocore", "google.auth", "msal", "urllib3")
#: Attributes that every record has. Others come from `extra`, and become fields of the JSON.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Time (RFC 3339), level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Time, level unless it is INFO, message."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        about = ""
        if hasattr(record, "bytes") and hasattr(record, "seconds"):
            about = f" ({record.bytes} bytes, {record.seconds:.3f} s)"
        line = f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}{about}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(form: str, verbosity: int) -> None:
    """Send log lines to stderr.

    Args:
        form: "text" or "json".
        verbosity: -1 for warnings only; 0 for notices; 1 for each transfer too; 2 for everything but secrets.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter() if form == "json" else TextFormatter()
    if form == "json":
        formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbosity > 1 else logging.WARNING)
    keep_secrets()
    ours = logging.getLogger("autosync")
    ours.setLevel(logging.WARNING if verbosity < 0 else logging.DEBUG if verbosity > 1 else logging.INFO)
    logging.getLogger("autosync.transfer").setLevel(logging.NOTSET if verbosity > 0 else logging.WARNING)


def keep_secrets() -> None:
    """Log only errors of libraries whose other lines contain secrets, at any verbosity, also if another program has set up the logging."""
    for name in _LEAKY:
        logging.getLogger(name).setLevel(logging.ERROR)
