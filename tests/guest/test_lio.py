"""LIO, the Linux kernel's target, against this project's initiator: what Linux's own initiator cannot drive."""

from __future__ import annotations

import sys

from tests.conftest import run
from tests.guest.conftest import Guest
from tests.guest.network import GUEST, Network
from tests.serving import IQN


def test_several_connections_and_data_that_is_sent_again(network: Network, guest: Guest) -> None:
    """MC/S, and SNACK for damaged data (ErrorRecoveryLevel 1), with a target that somebody else has written."""
    output: list[str] = []

    def work() -> None:
        command = [*network.prefix, sys.executable, "-m", "tests.guest.lio_client", GUEST[0], IQN]
        output.append(run(command, seconds=300).stdout)

    guest("lio.sh", variables={"ADDRESS": GUEST[0]}, marks={"ready": work})
    assert "several connections: right" in output[0]
    assert "damaged data: right" in output[0]
