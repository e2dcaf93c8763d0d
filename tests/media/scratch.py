"""Where tests with many examples keep their files: in memory, where a sync costs nothing."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.memory import FAST


@cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="by-tape-", dir=FAST))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def scratch() -> Path:
    """An empty directory."""
    return Path(tempfile.mkdtemp(dir=_root()))
