"""What the tests of iSCSI share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A target with one disk, a file, and no socket."""
    rig = Rig.on_file(tmp_path / "disk")
    yield rig
    rig.close()
