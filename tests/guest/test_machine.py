"""The guest itself: a test that uses it can rely on its failing when the script does."""

from __future__ import annotations

import time

import pytest

from tests.guest.machine import GuestFailed, run_script
from tests.guest.network import Network


def test_a_script_that_fails_or_never_ends_is_seen(network: Network) -> None:
    marks: list[str] = []
    functions = {name: lambda name=name: marks.append(name) for name in ("one", "two")}
    good = run_script("self_test.sh", network, seconds=300, variables={"TASK": "succeed"}, marks=functions)
    assert (good.status, marks) == (0, ["one", "two"])
    assert "== succeeded" in good.output
    bad = run_script("self_test.sh", network, seconds=300, variables={"TASK": "fail"}, marks=functions)
    assert bad.status == 1
    assert "FAILED: as it was told" in bad.output
    began = time.monotonic()  # the script sleeps for 1000 s
    with pytest.raises(GuestFailed, match="the time is over"):
        run_script("self_test.sh", network, seconds=5, variables={"TASK": "sleep"}, marks=functions)
    assert time.monotonic() - began < 300
