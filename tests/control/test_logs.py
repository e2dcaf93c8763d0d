"""The log cannot be flooded, and is one object a line for machines."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from blockyard.control.logs import BURST, WINDOW, JsonFormatter, RateLimit, TextFormatter


def _record(level: int = logging.WARNING, message: str = "peer %s", *, error: bool = False) -> logging.LogRecord:
    return logging.LogRecord("test", level, "", 0, message, ("192.0.2.1",), sys.exc_info() if error else None)


def test_one_kind_of_record_is_limited() -> None:
    limit = RateLimit()
    passed = [limit.filter(_record()) for _ in range(BURST + 100)]
    assert passed == [True] * BURST + [False] * 100
    assert limit.filter(_record(message="another kind %s"))
    assert limit.filter(_record(logging.ERROR))


def test_what_was_left_out_is_told_in_the_next_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("blockyard.control.logs.time.monotonic", lambda: now[0])
    limit = RateLimit()
    for _ in range(BURST + 7):
        limit.filter(_record())
    now[0] += WINDOW
    record = _record()
    assert limit.filter(record)
    assert record.getMessage() == "peer 192.0.2.1 (7 more like this in the last minute)"


def test_json_lines() -> None:
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        text = JsonFormatter().format(_record(error=True))
    assert "\n" not in text
    fields = json.loads(text)
    assert (fields["level"], fields["message"]) == ("WARNING", "peer 192.0.2.1")
    assert "line one\nline two" in fields["traceback"]


def test_tracebacks_are_for_verbose() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        quiet = TextFormatter(verbose=False).format(_record(error=True))
        loud = TextFormatter(verbose=True).format(_record(error=True))
    assert "Traceback" not in quiet
    assert quiet.endswith("peer 192.0.2.1")
    assert "Traceback" in loud


def test_both_forms_have_the_fields_of_an_event() -> None:
    fields = {"event": "login-failed", "who": "alice smith", "address": "2001:db8::1"}
    record = _record()
    record.fields = fields
    found = json.loads(JsonFormatter().format(record))
    assert fields.items() <= found.items()
    text = TextFormatter(verbose=True).format(record)
    assert text.endswith('WARNING test: peer 192.0.2.1 event=login-failed who="alice smith" address=2001:db8::1')


def test_kinds_of_events_are_limited_apart() -> None:
    limit = RateLimit()
    for _ in range(BURST + 1):
        limit.filter(_record())
    other = _record()
    other.fields = {"event": "pool-soft-threshold"}
    assert limit.filter(other)
