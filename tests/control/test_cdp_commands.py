"""`blockyard cdp` against a server that runs, with qemu as initiator."""

from __future__ import annotations

import time
from pathlib import Path

from blockyard.initiator import connect
from blockyard.pool.instant import show
from tests.control.test_live import settle
from tests.control.test_pool_commands import Site, site

__all__ = ["site"]  # the fixture


def test_a_volume_is_protected(site: Site, tmp_path: Path) -> None:
    site.run("volume", "create", "fast/vm", "64M", "--chunk", "4K")
    site.io("vm", "write -P 1 0 1M", "write -P 1 32M 4k")
    assert site.run("cdp", "show") == "no volume is protected continuously\n"
    assert "fast/vm is protected" in site.run("cdp", "on", "fast/vm", "--time", "1h", "--size", "100M")
    first = site.run("cdp", "bookmark", "fast/vm", "before")
    assert first.startswith("before is fast/vm@20")
    site.io("vm", "write -P 2 0 512k", "write -P 2 32M 4k")
    between = show(time.time_ns())
    site.io("vm", "write -P 3 0 1M", "discard 32M 4k")
    site.run("cdp", "bookmark", f"fast/vm@{between}", "between", "--keep")

    (found,) = site.json("cdp", "show").values()
    assert (found["on"], found["time"], found["size"]) == (True, 3600 * 10**9, 100 << 20)
    assert (found["writes"], found["held"]) == (128 + 1 + 256 + 1, (256 + 128 + 2) << 12)
    shown = site.run("cdp", "show", "fast/vm")
    assert "window     1h and 100 MiB" in shown
    assert f"between: {between}, kept" in shown
    assert "fast/vm" in site.run("cdp", "show")

    assert "fast/copy begins as fast/vm@" in site.run("cdp", "open", "fast/vm@before", "fast/copy")
    site.io("copy", "read -P 1 0 1M", "read -P 1 32M 4k", "write -P 9 0 4k", "read -P 9 0 4k")
    site.run("cdp", "copy", f"fast/vm@{between}", str(tmp_path / "image"))
    image = (tmp_path / "image").read_bytes()
    assert len(image) == 64 << 20
    assert image[: 1 << 20] == bytes([2]) * (512 << 10) + bytes([1]) * (512 << 10)
    assert image[32 << 20 : (32 << 20) + 4096] == bytes([2]) * 4096
    assert (tmp_path / "image").stat().st_blocks * 512 < 8 << 20
    status, printed = site.attempt("cdp", "copy", "fast/vm@now", str(tmp_path / "image"))
    assert (status, "File exists" in printed) == (1, True), printed

    with connect(site.url("vm")) as vm:
        settle(vm)
        status, printed = site.attempt("cdp", "rollback", "fast/vm@before", "--yes")
        assert (status, "fast/vm is in use by iqn." in printed) == (2, True), printed
    undo = site.run("cdp", "rollback", "fast/vm@before", "--yes").splitlines()[1].removeprefix("to undo this: ")
    site.io("vm", "read -P 1 0 1M", "read -P 1 32M 4k")
    site.run(*undo.split()[1:], "--yes")
    site.io("vm", "read -P 3 0 1M", "read -P 0 32M 4k")

    assert "is not protected any more" in site.run("cdp", "off", "fast/vm", "--yes")
    site.io("vm", "write -P 4 0 1M")
    assert "fast/then begins" in site.run("cdp", "open", "fast/vm@between", "fast/then"), "a bookmark keeps it"
    site.io("then", "read -P 2 0 512k", "read -P 1 512k 512k")
    site.run("cdp", "bookmark", "fast/vm", "between", "--delete")


_REFUSED = (
    ("cdp on fast/none", "there is no volume fast/none"),
    ("cdp on fast/vm --time 5", "'5' is not a length of time"),
    ("cdp on fast", "'fast' is not POOL/VOLUME"),
    ("cdp off fast/vm", "say --yes"),
    ("cdp off fast/plain --yes", "plain is not protected continuously"),
    ("cdp show fast/plain", "plain is not protected continuously"),
    ("cdp bookmark fast/vm now", "cannot be the name of a bookmark"),
    ("cdp bookmark fast/vm@-9d old", "does not reach"),
    ("cdp bookmark fast/vm none --delete", "vm has no bookmark none"),
    ("cdp bookmark fast/vm@now x --delete", "say of which volume"),
    ("cdp open fast/vm@tuesday fast/new", "no bookmark 'tuesday'"),
    ("cdp open fast/vm@2099-01-01T00:00Z fast/new", "has not come yet"),
    ("cdp open fast/vm@now fast/plain", "There is a volume of this name"),
    ("cdp open fast/vm@now slow/new", "in the same pool"),
    ("cdp rollback fast/plain@-5m --yes", "plain is not protected continuously"),
    ("cdp copy fast/plain@-5m /tmp/x", "plain is not protected continuously"),
)


def test_what_cannot_be_is_told(site: Site) -> None:
    for name in ("vm", "plain"):
        site.run("volume", "create", f"fast/{name}", "8M")
    site.run("cdp", "on", "fast/vm")
    for words, message in _REFUSED:
        status, printed = site.attempt(*words.split())
        assert (status, message in printed, printed.count("\n")) == (2, True, 1), printed
