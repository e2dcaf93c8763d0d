"""Linux nodes that share a disk: reservations and fencing, multipath with asymmetric access."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.conftest import TargetFactory, run
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.scsi.cluster import REGISTER_AND_IGNORE, parameters, pr_out
from tests.serving import IQN, Serving


def test_reservations_and_fencing(target: TargetFactory, network: Network, guest: Guest) -> None:
    serving = target("disk.img", prefix=network.prefix, portals=[f"{HOST[0]}:3260"])

    def die_and_come_back() -> None:
        serving.kill()
        serving.restart()

    guest("fencing.sh", marks={"restart": die_and_come_back})


def _configuration(directory: Path, ports: list[int], preferred: str) -> Path:
    """One disk by two target port groups, each with the address of one wire and these TCP ports."""
    groups = {tag: [f"{address}:{port}" for port in ports] for tag, address in enumerate(HOST, 1)}
    file = directory / "blockyard.toml"
    file.write_text(
        "\n".join(f"portal_groups.{tag}.portals = {portals}" for tag, portals in groups.items())
        + f"""
        [volumes.disk]
        path = "disk.img"
        size = "128M"
        [targets."{IQN}"]
        portal_groups = [1, 2]
        luns = {{0 = "disk"}}
        alua = {{1 = {{preferred = {preferred}}}, 2 = {{state = "active/non-optimized"}}}}
        """
    )
    return file


@pytest.fixture
def alua(tmp_path: Path, network: Network) -> Iterator[Callable[[list[int], str], Serving]]:
    """Serves one disk by two portal groups; the second is active/non-optimized."""
    served: list[Serving] = []

    def serve(ports: list[int], preferred: str) -> Serving:
        serving = Serving(
            [], state=tmp_path / "state", log=tmp_path / "serve.log", prefix=network.prefix,
            portals=[], config=_configuration(tmp_path, ports, preferred),
        )  # fmt: skip
        served.append(serving)
        return serving

    yield serve
    for serving in served:
        try:
            serving.stop()
        finally:
            serving.kill()
            print(serving.tail())  # noqa: T201  (pytest shows it)


def _set_states(directory: Path, *states: str) -> None:
    """What the administrator does."""
    for group, state in enumerate(states, 1):
        assert main(["alua", "set", IQN, str(group), state, "--state", str(directory / "state")]) == 0


def _register(network: Network, directory: Path, key: int) -> None:
    """Another node comes and registers with a key."""
    data = directory / "parameters"
    data.write_bytes(parameters(0, key))
    url = f"iscsi://{HOST[1]}:3260/{IQN}/0"
    raw: list[str | Path] = [
        sys.executable,
        "-m",
        "blockyard",
        "raw",
        url,
        pr_out(REGISTER_AND_IGNORE).hex(),
        "--out",
        data,
    ]
    run([*network.prefix, *raw, "--initiator-name", "iqn.2024-01.test:rival"])


@pytest.mark.parametrize(
    ("paths", "ports", "preferred"), [(2, [3260], "true"), (4, [3260, 3261], "false")], ids=["two", "four"]
)
def test_multipath(
    paths: int,
    ports: list[int],
    preferred: str,
    alua: Callable[[list[int], str], Serving],
    network: Network,
    guest: Guest,
    tmp_path: Path,
) -> None:
    alua(ports, preferred)
    guest(
        "multipath.sh",
        variables={"PATHS": str(paths), "PREFERRED": preferred},
        marks={
            "pull": lambda: network.link(0, up=False),
            "plug": lambda: network.link(0, up=True),
            "switch": lambda: _set_states(tmp_path, "active/non-optimized", "active/optimized"),
            "standby": lambda: _set_states(tmp_path, "standby", "active/optimized"),
            "back": lambda: _set_states(tmp_path, "active/optimized", "active/non-optimized"),
            "rival": lambda: _register(network, tmp_path, 2),
        },
    )
