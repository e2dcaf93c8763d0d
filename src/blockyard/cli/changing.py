"""Changing the configuration of a managed server from the command line: read it, edit it as plain data, put it back.

Nothing is lost between the two: it is put back only if the revision that was read still holds, else it is all done again. Where
no server runs, the state directory is changed for the next start.
"""

from __future__ import annotations

import contextlib
import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blockyard.block import records
from blockyard.control.administration import NotServing, alone, ask
from blockyard.control.configuration_commands import read_configuration
from blockyard.control.consistency import checked
from blockyard.control.difference import differences
from blockyard.control.errors import ConfigurationError, Conflict, ControlError, UsageError
from blockyard.control.revisions import Revisions
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration

Data = dict[str, Any]
Edit = Callable[[Data], None]  # changes it in place; raises UsageError

_ATTEMPTS = 5


def change(directory: Path, edit: Edit) -> list[str]:
    """Have `edit` change the configuration; what has changed, in lines. Raises ControlError."""
    for _ in range(_ATTEMPTS):
        try:
            found = ask(directory, "config get")
        except NotServing:
            return _offline(directory, edit)
        edit(found["configuration"])
        try:
            done = ask(
                directory,
                "config apply",
                configuration=found["configuration"],
                expected=found["revision"],
                dry_run=False,
            )
        except ControlError as error:
            if error.exit_status != Conflict.exit_status:
                raise
        else:
            return list(done["changes"])
    raise Conflict("others change the configuration all the time: try again")


def look(directory: Path) -> Data:
    """The configuration that is served, or that the next start begins with, as plain data. Raises ControlError."""
    try:
        found: Data = ask(directory, "config get")["configuration"]
    except NotServing:
        if not directory.is_dir():
            raise
        with contextlib.closing(State(directory)) as state:
            latest = Revisions(state).current()
        found = _plain(Configuration() if latest is None else latest.configuration)
    return found


def _offline(directory: Path, edit: Edit) -> list[str]:
    with contextlib.closing(State(directory)) as state, alone(directory):
        revisions = Revisions(state)
        latest = revisions.current()
        before = Configuration() if latest is None else latest.configuration
        data = _plain(before)
        edit(data)
        try:
            after = checked(read_configuration(data))
        except records.RecordError as error:
            raise ConfigurationError(str(error)) from None
        revisions.put(after, getpass.getuser())
    return differences(before, after)


def _plain(configuration: Configuration) -> Data:
    """As it would have come from a server: JSON knows no sizes."""
    found: Data = json.loads(json.dumps(records.write(configuration)))
    return found


def table_of(data: Data, *path: str) -> Data:
    """A table in it, made where it is missing."""
    for name in path:
        data = data.setdefault(name, {})
    return data


def entry(data: Data, kind: str, table: str, name: str) -> Data:
    """One that is there. Raises UsageError."""
    found = data.get(table, {}).get(name)
    if found is None:
        there = ", ".join(data.get(table, {})) or "none"
        raise UsageError(f"there is no {kind} {name}; there are: {there}")
    assert isinstance(found, dict)
    return found
