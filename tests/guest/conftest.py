"""The fixtures of tests with the Linux guest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import pytest

from tests.conftest import need
from tests.guest import machine
from tests.guest.network import HOST, Network
from tests.serving import IQN

SECONDS = 600.0  # many times what any script takes where nobody else computes


class Guest(Protocol):
    """See the fixture `guest`."""

    def __call__(
        self,
        script: str,
        *,
        seconds: float = SECONDS,
        variables: Mapping[str, str] | None = None,
        marks: Mapping[str, Callable[[], object]] | None = None,
    ) -> str: ...


@pytest.fixture
def network() -> Iterator[Network]:
    """A namespace of the test's own: give `target` its prefix, and 192.168.77.1 and 192.168.78.1 as portals."""
    need("ip", "iproute2")
    with Network() as made:
        yield made


@pytest.fixture
def guest(network: Network) -> Guest:
    """Runs scripts in the guest: `output = guest("file_systems.sh")`. The test fails when the script does.

    `marks` are functions to call when the script gets to `mark NAME`, which waits for them. The script knows the
    target's name and portal as $IQN and $PORTAL, and what else `variables` says.
    """
    need("qemu-system-x86_64", "qemu-system-x86")

    def run(
        script: str,
        *,
        seconds: float = SECONDS,
        variables: Mapping[str, str] | None = None,
        marks: Mapping[str, Callable[[], object]] | None = None,
    ) -> str:
        known = {"IQN": IQN, "PORTAL": HOST[0]}
        try:
            result = machine.run_script(
                script, network, seconds=seconds, variables=known | dict(variables or {}), marks=marks
            )
        except machine.GuestFailed as error:
            _show_wire(network)
            pytest.fail(f"{script}: {error}", pytrace=False)
        print(result.output)  # noqa: T201  (pytest shows it)
        if result.status:
            _show_wire(network)
            pytest.fail(f"{script} ended with status {result.status}:\n{result.output[-10000:]}", pytrace=False)
        return result.output

    return run


def _show_wire(network: Network) -> None:
    """Print what waits in the target's sockets, and what has passed the taps: whether it was the target that stood still."""
    for command in (["ss", "-tnpio"], ["ip", "-s", "link"]):
        found = subprocess.run([*network.prefix, *command], capture_output=True, text=True, timeout=180, check=False)
        print(found.stdout + found.stderr)  # noqa: T201  (pytest shows it)


@pytest.fixture(autouse=True, scope="session")
def _image() -> None:
    """Build the guest before the first test's time begins to run."""
    need("qemu-system-x86_64", "qemu-system-x86")
    try:
        machine.image()
    except machine.GuestFailed as error:
        pytest.fail(f"the guest cannot be built: {error}", pytrace=False)
