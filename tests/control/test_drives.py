"""`blockyard optical` and drives in a configuration, with a server that runs and with other people's initiators."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.cli.main import main
from blockyard.control.configuration_file import load
from blockyard.control.errors import ConfigurationError
from blockyard.initiator import Lun, connect
from blockyard.optical.events import MediaEvent
from blockyard.scsi.sense import Asc
from tests.conftest import need, run
from tests.control.killing import Killer
from tests.control.serving import Served, serve
from tests.control.test_live import attention, settle
from tests.optical.burners import SYNCHRONIZE, write
from tests.optical.drives import EJECT, blank, event_status, prevent
from tests.waiting import eventually

IQN = "iqn.2026-11.test:drives"
_CONFIGURATION = f"""
[volumes.disk]
path = "disk.img"
size = "1M"
[drives.dvd]
image = "isos/first.iso"
jukebox = "isos"
[drives.empty]
kind = "bd"
[targets."{IQN}"]
luns = {{0 = "disk", 1 = "dvd", 2 = "empty"}}
"""


class Site:
    """A server of two drives, and what its commands say."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.state = folder / "s"
        self.file = folder / "blockyard.toml"
        self._capsys = capsys
        self.served: Served

    def attempt(self, *words: str) -> tuple[int, str]:
        self._capsys.readouterr()
        status = main([*words, "--state", str(self.state)])
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def run(self, *words: str) -> str:
        status, printed = self.attempt(*words)
        assert not status, printed
        return printed

    def status(self, drive: str) -> Any:
        return json.loads(self.run("optical", "status", "--json"))[drive]

    def url(self, lun: int) -> str:
        return f"iscsi://{self.served.portals[0]}/{IQN}/{lun}"

    def read(self, lun: int) -> bytes:
        """All of a disc, as qemu-img reads it."""
        copy = self.folder / "copy"
        run([need("qemu-img", "qemu-utils"), "convert", "-f", "raw", "-O", "raw", self.url(lun), copy])
        return copy.read_bytes()


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    site = Site(tmp_path, capsys)
    (tmp_path / "isos").mkdir()
    for number, name in enumerate(("first", "second"), 1):
        (tmp_path / "isos" / f"{name}.iso").write_bytes(bytes([number]) * (100_000 * number // 2048 * 2048))
    site.file.write_text(_CONFIGURATION)
    with serve(site.state, "--config", str(site.file)) as site.served:
        yield site
        assert site.served.stop() == 0, site.served.log


def _event(lun: Lun) -> tuple[int, int]:
    """Code and status of the next media event."""
    data = lun.execute(event_status(1 << 4), b"", 8)
    return data[4], data[5]


def test_discs_are_put_in_and_taken_out_while_hosts_are_there(site: Site) -> None:
    assert "dvd (optical drive)" in site.served.printed
    assert site.status("dvd")["disc"] == {
        "kind": "cd", "size": 48 * 2048, "layers": 1, "sessions": [0], "capacity": 48 * 2048, "state": "pressed",
        "tracks": [{"number": 1, "start": 0, "blocks": 48, "form": "mode1"}],
    }  # fmt: skip
    assert site.status("empty")["state"] == "empty"
    with connect(site.url(1)) as lun:
        settle(lun)
        assert lun.execute(struct.pack(">BBIxHx", 0x28, 0, 47, 1), b"", 2048) == b"\1" * 2048
        _event(lun)
        site.run("optical", "insert", "dvd", "second", "--kind", "dvd")
        assert _event(lun) == (MediaEvent.NEW_MEDIA, 2)
        assert attention(lun) == Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED
        assert lun.execute(struct.pack(">BBIxHx", 0x28, 0, 96, 1), b"", 2048) == b"\2" * 2048
        site.run("optical", "eject", "dvd")
        assert _event(lun) == (MediaEvent.MEDIA_REMOVAL, 0)
        assert bytes(lun.command(bytes(6)).sense)[12:14] == b"\x3a\x01"  # not present, tray closed
        assert "dvd    empty  -" in site.run("optical", "status")


def test_who_keeps_the_disc_in_is_asked_to_eject_it(site: Site) -> None:
    with connect(site.url(1), initiator_name="iqn.test:keeper") as lun:
        settle(lun)
        lun.execute(prevent(1))
        _event(lun)
        for words in (("eject", "dvd"), ("insert", "dvd", "second")):
            status, printed = site.attempt("optical", *words, "--wait", "0")
            assert (status, "iqn.test:keeper keeps the disc in dvd" in printed) == (2, True), printed
            assert _event(lun) == (MediaEvent.EJECT_REQUEST, 2)
        lun.execute(prevent(0))
        lun.execute(EJECT)
        assert site.status("dvd")["state"] == "open"
        assert site.status("dvd")["image"].endswith("first.iso")  # nobody waits for it any more
        site.run("optical", "insert", "dvd", "first")
        settle(lun)
        lun.execute(prevent(1))
        inserting = threading.Thread(target=site.run, args=("optical", "insert", "dvd", "second", "--wait", "60"))
        inserting.start()
        eventually(lambda: _event(lun)[0] == MediaEvent.EJECT_REQUEST)
        lun.execute(prevent(0))
        lun.execute(EJECT)
        inserting.join()
        assert site.status("dvd")["disc"]["size"] == 97 * 2048
        settle(lun)
        lun.execute(prevent(1))
        site.run("optical", "insert", "dvd", "second", "--force")
        assert site.status("dvd")["locked_by"] == ["iqn.test:keeper"]


def test_foreign_initiators_read_the_disc_that_is_in(site: Site) -> None:
    ls = need("iscsi-ls", "libiscsi-bin")
    listing = run([ls, "-s", f"iscsi://{site.served.portals[0]}"], check=False).stdout  # it fails for empty drives
    assert re.search(r"Lun:1 +Type:MMC", listing), listing
    inquiry = run([need("iscsi-inq", "libiscsi-bin"), site.url(1)]).stdout
    assert "Peripheral Device Type:MMC" in inquiry
    assert "Removable:1" in inquiry
    assert site.read(1) == b"\1" * (48 * 2048)
    site.run("optical", "insert", "empty", str(site.folder / "isos" / "second.iso"))
    assert site.read(2) == b"\2" * (97 * 2048)
    assert site.status("empty")["disc"]["kind"] == "bd"


def test_what_is_inserted_survives_a_restart_and_the_death_of_the_worker(site: Site) -> None:
    site.run("optical", "insert", "dvd", "second")
    for process in site.served.workers():
        os.kill(process, signal.SIGKILL)
    assert site.read(1) == b"\2" * (97 * 2048)
    site.run("optical", "eject", "dvd")
    site.run("optical", "insert", "empty", "./../" * 20 + str(site.folder / "isos" / "first.iso").lstrip("/"))
    assert site.served.stop() == 0
    with serve(site.state, "--config", str(site.file)) as site.served:
        assert site.status("dvd")["state"] == "empty"
        assert site.read(2) == b"\1" * (48 * 2048)
        site.file.write_text(_CONFIGURATION.replace("first.iso", "second.iso"))
        assert site.run("reload").startswith("~ drives.dvd.image")
        assert site.read(1) == b"\2" * (97 * 2048)
        site.file.write_text(_CONFIGURATION.replace(', 2 = "empty"', ""))
        site.run("reload")
        assert site.attempt("optical", "eject", "empty")[0] == 2
        assert site.served.stop() == 0


_IMPOSSIBLE = [
    ("insert dvd third", "there is no image 'third'"),
    ("insert dvd /nowhere.iso", "/nowhere.iso: No such file or directory"),
    ("insert dvd huge --kind cd", "a CD has 449850 at most"),
    ("insert dvd nothing", "smaller than one sector"),
    ("insert none first", "no target shows a drive none"),
    ("insert empty first", "the drive has no jukebox"),
    ("insert dvd first --blank 1M", "first.iso: File exists"),
    ("insert dvd new --blank 1M --kind dvd", "a blank disc is cd-r, "),
    ("insert dvd new --blank 1000", "has 1 to 62500864 blocks of 2048 bytes"),
    ("eject empty", "there is nothing in empty"),
    ("list empty", "empty has no jukebox"),
]


def test_the_jukebox_is_listed_and_what_cannot_be_is_said(site: Site) -> None:
    assert site.run("optical", "list", "dvd").splitlines()[1:] == [
        "first.iso   96 KiB   -     -",
        "second.iso  194 KiB  -     -",
    ]
    found = json.loads(site.run("optical", "list", "dvd", "--json"))
    assert {name: image["size"] for name, image in found.items()} == {"first.iso": 98304, "second.iso": 198656}
    assert re.search(r"1 +dvd +- +optical", site.run("status"))
    blank(site.folder / "isos" / "huge.iso", 449_851)
    blank(site.folder / "isos" / "nothing.iso", 0)
    before = site.status("dvd")
    for words, why in _IMPOSSIBLE:
        status, printed = site.attempt("optical", *words.split())
        assert (status, why in printed) == (2, True), printed
    assert site.status("dvd") == before
    site.run("optical", "insert", "dvd", "new", "--blank", "1M")
    assert site.status("dvd")["disc"]["kind"] == "bd-re"
    qemu_io = [need("qemu-io", "qemu-utils"), "-f", "raw", "-c", "write -P 7 64k 64k", "-c", "flush", site.url(1)]
    assert "wrote 65536" in run(qemu_io).stdout
    assert (site.folder / "isos" / "new.iso").read_bytes() == bytes(1 << 16) + b"\7" * (1 << 16) + bytes(
        (1 << 20) - (1 << 17)
    )


@pytest.mark.parametrize(
    ("change", "at"),
    [
        (('kind = "bd"', 'kind = "hd"'), "drives.empty: kind is cd, dvd, bd, bd-re or auto, not 'hd'"),
        (("[drives.empty]", "[drives.disk]"), "drives.disk: a volume is called 'disk' too"),
        (('kind = "bd"', 'uuid = "x"'), "drives.empty.uuid: 'x' is not a UUID"),
        (('2 = "empty"', '2 = "emty"'), "there is no volume 'emty'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, change: tuple[str, str], at: str) -> None:
    (tmp_path / "x.toml").write_text(_CONFIGURATION.replace(*change))
    with pytest.raises(ConfigurationError, match=re.escape(at)):
        load(tmp_path / "x.toml")


def test_discs_are_made_burned_closed_blanked_and_exported(site: Site) -> None:
    said = site.run("optical", "create", "dvd", "once", "--kind", "cd-r", "--size", "74min")
    assert "once.iso is a blank CD-R of 650.1" in said
    site.run("optical", "create", "dvd", "again", "--kind", "dvd-rw", "--size", "8M")
    site.run("optical", "create", "dvd", "formatted.udf", "--kind", "dvd-ram")
    found = json.loads(site.run("optical", "list", "dvd", "--json"))
    assert found["once.iso"] == {"name": "once.iso", "size": 0, "kind": "cd-r", "state": "blank"}
    assert found["formatted.udf"]["state"] == "formatted"
    data = bytes(range(256)) * 8 * 300
    for name in ("once", "again"):
        site.run("optical", "insert", "dvd", name)
        with connect(site.url(1)) as lun:
            settle(lun)
            lun.execute(write(0, 300), data, 0)
            lun.execute(SYNCHRONIZE)
            assert site.status("dvd")["disc"]["state"] == "appendable"
            status, said = site.attempt("optical", "close", "dvd", name)
            assert (status, "in use by" in said) == (2, True), said
            lun.execute(EJECT)
    for name in ("once", "again"):
        site.run("optical", "close", "dvd", name)
        site.run("optical", "export", "dvd", name, str(site.folder / f"{name}-copy.iso"))
        assert (site.folder / f"{name}-copy.iso").read_bytes() == data
    site.run("optical", "export", "dvd", "once", str(site.folder / "once.cue"))
    assert (site.folder / "once.bin").stat().st_size == 2352 * 300
    site.run("optical", "blank", "dvd", "again")
    found = json.loads(site.run("optical", "list", "dvd", "--json"))
    assert (found["once.iso"]["state"], found["again.iso"]["state"]) == ("closed", "blank")
    for words, message in (
        (("blank", "dvd", "once"), "what is written on such a disc stays"),
        (("close", "dvd", "again"), "there is nothing to close"),
        (("close", "dvd", "first"), "was not made as a blank disc"),
        (("export", "dvd", "again", "x.iso"), "nothing is on the disc"),
        (("export", "dvd", "once", str(site.folder / "once.cue")), "File exists"),
        (("create", "dvd", "once"), "File exists"),
        (("create", "dvd", "x", "--size", "never"), "the usual sizes of a CD-R are 80min, 74min"),
    ):
        status, said = site.attempt("optical", *words)
        assert (status, message in said) == (2, True), said
    site.run("optical", "rename", "dvd", "once", "single")
    assert json.loads(site.run("optical", "list", "dvd", "--json"))["single.iso"]["state"] == "closed"
    site.run("optical", "rename", "dvd", "single", "once.iso")
    site.run("optical", "import", "dvd", str(site.folder / "once.cue"), "sheet.cue")
    site.run("optical", "convert", "dvd", "sheet.cue", "plain")
    assert (site.folder / "isos" / "plain.iso").read_bytes() == data
    for name in ("plain", "sheet.cue"):
        site.run("optical", "remove", "dvd", name, "--yes")
    assert not [path.name for path in (site.folder / "isos").iterdir() if path.stem in ("plain", "sheet")]
    site.run("optical", "insert", "dvd", "once")
    for words in (("rename", "dvd", "once", "other"), ("remove", "dvd", "once", "--yes")):
        status, said = site.attempt("optical", *words)
        assert (status, "in use by" in said) == (2, True), said
    site.run("optical", "eject", "dvd")
    status, said = site.attempt("optical", "rename", "dvd", "once", "again")
    assert (status, "There is a disc of that name" in said) == (2, True), said
    (site.folder / "isos" / "once.iso.disc.json").write_text("{}")
    assert "damaged" in site.run("optical", "list", "dvd")
    status, said = site.attempt("optical", "insert", "dvd", "once")
    assert (status, "The file is damaged" in said) == (1, True), said


def test_a_rename_that_a_crash_cuts_short_is_continued(site: Site) -> None:
    killer, names = Killer(site.folder), ("x.img.audio", "x.img", "x.img.disc.json")
    site.run("optical", "create", "dvd", str(site.folder / "isos/x.img"), "--kind", "cd-r")
    (site.folder / "isos/x.img.audio").write_bytes(b"sound")
    script = (
        "import sys; from pathlib import Path; from blockyard.optical.keeping import rename; input();"
        "rename(Path(sys.argv[1]), 'y')"
    )
    command = [sys.executable, "-c", script, str(site.folder / "isos/x.img")]
    cut = set()
    for number in range(1, 10):
        with subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, **killer.environment}) as process:
            killer.arm(process.pid, number)
            process.communicate(b"\n", timeout=120)
        left = [(site.folder / "isos" / name).exists() for name in names]
        cut.add(sum(left))
        if left[2]:
            if not left[1]:
                assert "There is no such disc" in site.attempt("optical", "rename", "dvd", "x", "third")[1]
            site.run("optical", "rename", "dvd", "x", "y")
        assert not any((site.folder / "isos" / name).exists() for name in names)
        assert json.loads(site.run("optical", "list", "dvd", "--json"))["y.img"]["kind"] == "cd-r"
        site.run("optical", "rename", "dvd", "y", "x")
        assert (site.folder / "isos/x.img.audio").read_bytes() == b"sound"
        if process.returncode == 0:
            break
    assert cut == {0, 1, 2, 3}
    status, said = site.attempt("optical", "rename", "dvd", str(site.folder / "none.iso"), "y")
    assert (status, "There is no such disc" in said) == (2, True), said


def test_a_long_copy_is_watched_and_stopped(site: Site) -> None:
    with (site.folder / "isos" / "large.iso").open("wb") as file:
        file.truncate(100 << 30)  # zeros that take minutes to read
    copy = site.folder / "copy.iso"
    said = site.run("optical", "export", "dvd", "large", str(copy), "--no-wait")
    name = said.split()[1]
    assert name in site.run("optical", "jobs")
    status, said = site.attempt("optical", "export", "dvd", "large", str(copy))
    assert (status, "File exists" in said) == (2, True), said
    site.run("optical", "cancel", name)

    def job() -> Any:
        [job] = json.loads(site.run("optical", "jobs", "--json"))
        return job

    eventually(lambda: job()["state"] != "running", "the end of the job")
    assert (job()["state"], job()["total"], job()["unit"]) == ("cancelled", 100 << 30, "bytes")
    assert not copy.exists()
    for words, message in ((("cancel", "drive:dvd.999"), "there is no job 999"), (("cancel", "x"), "is no job")):
        status, said = site.attempt("optical", *words)
        assert (status, message in said) == (2, True), said
