"""Events: kept in order and bounded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.control import events
from blockyard.control.catalogue import Severity
from blockyard.control.errors import StateError
from blockyard.control.events import Event, EventLog, read_events
from blockyard.control.state import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path)
    yield opened
    opened.close()


def test_events_are_read_back_in_order(state: State, caplog: pytest.LogCaptureFixture) -> None:
    times = iter([100.5, 101.0])
    kept = EventLog(state, clock=lambda: next(times))
    kept.record("login-failed", "alice failed", who="alice", address="192.0.2.1", target="iqn.x")
    kept.record("pool-space", "something")
    assert list(read_events(state)) == []
    kept.flush()
    kept.flush()
    one, other = read_events(state)
    assert one == Event(Severity.WARNING, "login-failed", "alice failed", "alice", "192.0.2.1", "iqn.x", 100.5, 1)
    assert one.as_dict()["time"] == "1970-01-01T00:01:40.500Z"
    assert list(read_events(state, after=1)) == [other]
    assert list(read_events(state, last=1)) == [other]
    assert ("blockyard.control.events", logging.WARNING, "alice failed") in caplog.record_tuples


def test_old_events_make_room(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RETAINED", 3)
    kept = EventLog(state)
    for number in range(5):
        kept.record("pool-space", str(number))
    kept.flush()
    assert [event.text for event in read_events(state)] == ["2", "3", "4"]


def test_a_flood_is_counted(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PENDING", 2)
    kept = EventLog(state)
    for number in range(5):
        kept.record("pool-space", str(number))
    kept.flush()
    assert [event.text for event in read_events(state)] == ["0", "1", "3 events came too fast to be kept"]
    kept.record("pool-space", "later")
    kept.flush()
    assert [event.text for event in read_events(state)][3:] == ["later"]


def test_a_database_that_fails_loses_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = EventLog(state)
    kept.record("pool-space", "kept")
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_write", _failing)
        kept.flush()
    kept.flush()
    assert [event.text for event in read_events(state)] == ["kept"]


def test_only_the_catalogue_is_recorded(state: State) -> None:
    kept = EventLog(state)
    with pytest.raises(KeyError):
        kept.record("n", "of no kind")
    kept.hear("n", "of a worker of another version")
    kept.hear("pool-full", "of ours")
    kept.flush()
    assert [(event.what, event.severity) for event in read_events(state)] == [
        ("unknown-event", "warning"),
        ("pool-full", "error"),
    ]


def _failing(_: object) -> None:
    raise StateError("disk full")
