"""Linux on a disk of an NBD server that is away for longer than requests wait: NOT READY, and its I/O resumes by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.block.nbd.servers import SERVERS, serving
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.waiting import eventually


def test_the_server_is_away_under_load(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path / "serve-0.log"
    with serving(SERVERS["nbdkit"], tmp_path_factory.mktemp("n"), size=256 << 20) as server:
        serve = target(
            f"stack:nbd({server.uri}, timeout=2)", size=None, portals=[f"{HOST[0]}:3260"], prefix=network.prefix
        )

        def outage() -> None:
            server.kill()
            eventually(lambda: "cannot be reached" in log.read_text())  # an initiator has been told
            server.start()

        guest("outage.sh", variables={"OUTAGES": "1"}, marks={"outage-1": outage})
        serve.stop()
