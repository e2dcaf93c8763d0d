"""The log: to stderr, as text for people or as JSON for machines, and never faster than anybody can read."""

from __future__ import annotations

import json
import logging
import re
import sys
import time

BURST = 10  # records of one kind
WINDOW = 60.0  # seconds
_PLAIN = re.compile(r"[\w.:@/-]+")  # a value that needs no quotes


class RateLimit(logging.Filter):
    """Lets through BURST records of one kind (logger, message template, kind of event) in WINDOW seconds.

    A peer that sends rubbish all day must not fill a disk. How many were left out stands in the next one
    of that kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str, str], list[float]] = {}  # kind → [begin of its window, records in it]

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        now = time.monotonic()
        kind = self._kinds.setdefault((record.name, str(record.msg), _fields(record).get("event", "")), [now, 0])
        if now - kind[0] >= WINDOW:
            left_out = int(kind[1]) - BURST
            kind[:] = [now, 0]
            if left_out > 0:
                record.msg = f"{record.msg} ({left_out} more like this in the last minute)"
        kind[1] += 1
        return kind[1] <= BURST


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """What an event has besides its text (events.py)."""
    fields: dict[str, str] = getattr(record, "fields", {})
    return fields


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, what an event has besides, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level, message, what an event has besides as `key=value`; the logger and a traceback only when `verbose`."""

    def __init__(self, *, verbose: bool) -> None:
        logger = " %(name)s:" if verbose else ""
        super().__init__(f"%(asctime)s %(levelname)s{logger} %(message)s", "%Y-%m-%d %H:%M:%S")
        self._verbose = verbose

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name is logging's
        return super().formatException(ei) if self._verbose else ""  # type: ignore[arg-type]

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        words = [super().formatMessage(record)]
        words += [
            f"{name}={value if _PLAIN.fullmatch(value) else json.dumps(value)}"
            for name, value in _fields(record).items()
        ]
        return " ".join(words)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).rstrip("\n")


def set_up(*, verbose: bool, json_lines: bool) -> None:
    """Log to stderr: warnings and errors, and with `verbose` what happens to connections as well."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else TextFormatter(verbose=verbose))
    if not verbose:
        handler.addFilter(RateLimit())
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)
