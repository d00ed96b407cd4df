"""Log lines: for people as text, for machines as one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

#: What these say below an error tells secrets (signed URLs, session tokens, answers of credential services), or is a traceback.
_TALKATIVE = ("boto3", "botocore", "urllib3")
#: What every record has; anything else was given with `extra` and belongs into the JSON.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Time (RFC 3339), level, logger, message, and whatever the record was given besides."""

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
    """Time, level where it is more than a notice, message."""

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
        verbosity: -1 warnings only; 0 what autosync does as a whole; 1 each transfer too; 2 everything that is no secret.
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
    """Have the libraries that tell secrets say errors only, whoever has set up the logging and however much it wants to know."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
