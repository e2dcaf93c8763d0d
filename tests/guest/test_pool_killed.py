"""Linux writes to a volume of a pool whose worker is killed again and again: nothing is lost, and snapshots do not change."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.pool.pool import Pool
from blockyard.pool.repair import check_offline
from blockyard.pool.volume import SnapshotDevice
from tests.conftest import TargetFactory, need, run
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN, Serving

ROUNDS = 50
SECONDS_A_ROUND = 12


class Killer:
    """Takes a snapshot, notes what is in it, and kills the worker at some moment of the next half second."""

    def __init__(self, serving: Serving, network: Network, folder: Path) -> None:
        self.images: dict[str, str] = {}  # of snapshots: what they were when they had been taken
        self.killed: set[int] = set()
        self._serving = serving
        self._network = network
        self._folder = folder
        self._chance = random.Random(1)

    def __call__(self) -> None:
        name = f"round-{len(self.images)}"
        command(self._folder, "snapshot", "create", f"fast/vm@{name}")
        (self._folder / "serve-0.toml").write_text(configuration(name))
        command(self._folder, "reload")
        self.images[name] = self._image()
        time.sleep(self._chance.random() / 2)
        (worker,) = self._serving.workers
        os.kill(worker, signal.SIGKILL)
        self.killed.add(worker)

    def _image(self) -> str:
        copy = self._folder / "copy"
        url = f"iscsi://{HOST[0]}:3260/{IQN}/1"
        convert = [need("qemu-img", "qemu-utils"), "convert", "-f", "raw", "-O", "raw", url, str(copy)]
        run([*self._network.prefix, *convert])
        return hashlib.sha256(copy.read_bytes()).hexdigest()


def command(folder: Path, *words: str) -> None:
    assert main([*words, "--state", str(folder / "state-0")]) == 0


def configuration(snapshot: str = "") -> str:
    """The volume as LUN 0, a snapshot of it as LUN 1."""
    volumes = "[volumes.vm]\npool = 'fast'\n"
    if snapshot:
        volumes += f"[volumes.snapshot]\npool = 'fast'\nvolume = 'vm'\nsnapshot = '{snapshot}'\n"
    luns = "0 = 'vm', 1 = 'snapshot'" if snapshot else "0 = 'vm'"
    head = f"portal_groups.1.portals = ['{HOST[0]}:3260']\n[pools.fast]\ndirectory = 'fast'\n"
    return f"{head}{volumes}[targets.'{IQN}']\nluns = {{{luns}}}\n"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_nothing_is_lost_when_the_worker_is_killed_under_load(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path
) -> None:
    command(tmp_path, "pool", "create", str(tmp_path / "fast"), "--size", "8G")
    head = f"portal_groups.1.portals = ['{HOST[0]}:3260']\n[pools.fast]\ndirectory = 'fast'\n"
    serving = target(config=head, portals=[], prefix=network.prefix)
    command(tmp_path, "volume", "create", "fast/vm", "128M")
    (tmp_path / "serve-0.toml").write_text(configuration())
    command(tmp_path, "reload")
    killer = Killer(serving, network, tmp_path)
    seconds = ROUNDS * SECONDS_A_ROUND
    guest(
        "outage.sh",
        variables={"OUTAGES": " ".join(map(str, range(ROUNDS)))},
        marks={f"outage-{number}": killer for number in range(ROUNDS)},
        seconds=3 * seconds + 300,
    )
    assert len(killer.killed) == ROUNDS
    serving.stop()
    assert check_offline(tmp_path / "fast").findings == []
    with Pool(tmp_path / "fast") as pool:
        for snapshot in pool.snapshots("vm"):
            data = bytearray(snapshot.size)
            SnapshotDevice(pool, snapshot).preadv([memoryview(data)], 0)
            assert hashlib.sha256(data).hexdigest() == killer.images.pop(snapshot.name), snapshot.name
    assert not killer.images
