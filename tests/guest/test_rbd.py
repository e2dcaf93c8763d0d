"""Linux on an image of RBD, whose cluster stands still for a while."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.ceph import Ceph
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN, free_port
from tests.waiting import eventually

STILL = 3.0  # seconds: longer than the timeout of the image, so that commands fail and Linux tries them again


def test_a_file_system_outlives_a_cluster_that_stands_still(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Ceph(tmp_path / "ceph", free_port(), prefix=network.prefix) as ceph:  # in the namespace, as the target is
        image = ceph.image("guest", "96M")

        def stand_still() -> None:
            """Until the load has had to do with it, and a moment more: Linux tries again what has failed."""
            ceph.stop_osd()
            eventually(lambda: "rbd-away" in told())
            time.sleep(STILL)
            ceph.continue_osd()

        def told() -> set[str]:
            capsys.readouterr()
            assert main(["events", "--json", "--state", str(tmp_path / "state-0")]) == 0
            return {json.loads(line)["what"] for line in capsys.readouterr().out.splitlines()}

        stack = f"rbd({image}, conf={ceph.conf}, timeout=2)"
        configuration = f"[volumes.disk]\nstack = '{stack}'\n[targets.'{IQN}']\nluns = {{0 = 'disk'}}\n"
        portals = f"portal_groups.1.portals = ['{HOST[0]}:3260']\n"
        serving = target(config=portals + configuration, portals=[], prefix=network.prefix)
        guest("rbd.sh", marks={"still": stand_still})
        eventually(lambda: "rbd-ready" in told())
        serving.stop()
        assert int(json.loads(ceph.rbd("du", image, "--format", "json"))["images"][0]["used_size"]) < 64 << 20
        ceph.rbd("export", "--no-progress", image, tmp_path / "exported")
        assert (tmp_path / "exported").read_bytes()[1080:1082] == b"\x53\xef", "Ceph's own tool finds the file system"
