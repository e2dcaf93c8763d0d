"""Every state that a loss of power may leave of a short run, and some of long ones (see crashes.py)."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import FAST
from tests.pool import interposed
from tests.pool.crashes import States, verify


@pytest.fixture
def room() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="blockyard-crash-", dir=FAST))
    yield folder
    shutil.rmtree(folder)


def _crash(room: Path, seed: int, count: int, limit: int) -> tuple[int, int]:
    """How many states there were, and of how many moments not all were looked at."""
    interposed.run("tests.pool.crashes", str(room / "pool"), str(room / "log"), str(seed), str(count), directory=room)
    states = States(room / "base", interposed.recorded(room / "log"), limit, random.Random(seed))
    looked = 0
    for files, known in states.run():
        verify(room / "state", files, known)
        looked += 1
    return looked, states.sampled


def test_every_state_that_a_short_run_may_leave(room: Path) -> None:
    looked, sampled = _crash(room, 1, 4, 128)
    assert looked > 100
    assert not sampled


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(50))
def test_some_states_that_a_long_run_may_leave(room: Path, seed: int) -> None:
    looked, _ = _crash(room, seed, 60, 64)
    assert looked > 500
