"""A change of a managed configuration in the process: `python -m tests.control.changing DIRECTORY STEP`.

It ends with status 0 when the change is done, killed by a signal when it came to call number STEP; see test_revisions.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from blockyard.control.managed import Managed
from blockyard.worker.configuration import Configuration, Metrics

BEFORE = Configuration()
AFTER = replace(BEFORE, metrics=Metrics("127.0.0.1:9464"))


def adjust(stored: Configuration | None, arguments: object) -> Configuration:
    """What a start makes of what is stored."""
    return BEFORE if stored is None else stored


def change(directory: Path) -> None:
    """From `BEFORE` to `AFTER`; the file `served` tells that the latter is served."""
    managed = Managed(directory)
    managed.serves(managed.candidates(adjust)[-1], {})

    async def apply(configuration: Configuration) -> None:
        (directory / "served").touch()

    asyncio.run(managed.change(lambda _: AFTER, lambda: BEFORE, apply, expected=None, who="somebody"))
