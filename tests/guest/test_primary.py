"""Log pages, self-tests, buffers, timestamps, saved mode pages and the rest of SPC-5, with sg3_utils and smartctl."""

from __future__ import annotations

import re
from functools import partial

import pytest

from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network


@pytest.fixture
def serve(target: TargetFactory, network: Network) -> TargetFactory:
    """`target` in the namespace, on both of its addresses."""

    return partial(target, prefix=network.prefix, portals=[f"{address}:3260" for address in HOST])


def test_tools_find_everything_in_order(serve: TargetFactory, guest: Guest) -> None:
    serving = serve("disk.img", size="64M")
    output = guest("primary_commands.sh", marks={"restart": serving.restart})
    for page in ("0x00", "0x02", "0x03", "0x05", "0x06", "0x0d", "0x0e", "0x10", "0x15", "0x19", "0x2f"):
        assert f"-- log page {page}" in output
    complaints = re.findall(r"(?i)[^\n]*(?:malformed|too short|truncat|unexpected|unable to decode|bad )[^\n]*", output)
    assert not complaints, complaints
    assert "SMART Health Status: OK" in output
