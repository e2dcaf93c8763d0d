"""LIO, the Linux kernel's target, as the reference: the same commands to both."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TargetFactory
from tests.guest.compared import DIFFERENCES, document, statuses
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network


def test_where_the_two_differ_and_why_is_known(target: TargetFactory, guest: Guest, network: Network) -> None:
    target("disk.img", size="64M", prefix=network.prefix, portals=[f"{address}:3260" for address in HOST])
    found = statuses(guest("compared.sh"))
    assert found["lio"].keys() == found["ours"].keys()
    assert len(found["ours"]) > 85
    differing = {
        name: (status, found["ours"][name]) for name, status in found["lio"].items() if status != found["ours"][name]
    }
    assert differing == {name: (each.lio, each.ours) for name, each in DIFFERENCES.items()}


def test_the_page_is_current() -> None:
    assert Path("docs/compared-with-lio.md").read_text(encoding="utf-8") == document()
