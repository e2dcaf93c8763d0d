"""Logging in to a server that has just been killed, or whose worker has."""

from __future__ import annotations

import contextlib
from typing import Any

from blockyard.initiator import Lun, connect
from blockyard.initiator.errors import InitiatorError
from tests.waiting import eventually


def log_in(url: str, **options: Any) -> Lun:
    """Try again while it is refused: a worker may take longer to start than a login waits for it (control/worker.py)."""
    found: list[Lun] = []

    def logs_in() -> bool:
        with contextlib.suppress(InitiatorError, OSError):
            found.append(connect(url, timeout=120, **options))
        return bool(found)

    eventually(logs_in, f"a login to {url}")
    return found[0]
