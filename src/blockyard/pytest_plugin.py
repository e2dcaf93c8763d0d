"""Fixtures for tests that need a target; pytest finds them by itself where Blockyard is installed.

def test_backup(blockyard_target):
    target = blockyard_target("1G")
    run_backup(target.url)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from blockyard.embedded import Disk, Target


class MakeTarget(Protocol):
    """Makes a target that lasts until the test is over; takes what blockyard.Target takes."""

    def __call__(self, *disks: Disk, **options: Any) -> Target: ...


@pytest.fixture
def blockyard_target() -> Iterator[MakeTarget]:
    """Targets for this test: as many as it makes, each gone when it ends."""
    from blockyard.embedded import Target  # noqa: PLC0415  (only tests that use it pay for it)

    with ExitStack() as open_ones:
        yield lambda *disks, **options: open_ones.enter_context(Target(*disks, **options))
