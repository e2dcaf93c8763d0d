"""Linux uses an optical drive: every kind of disc, each in the place of the one before, mounted, and looked at by its tools."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from blockyard.cli.main import main
from tests.conftest import TargetFactory, need, run
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.optical.drives import directory, iso
from tests.serving import IQN

_LEAD = 11_400  # blocks from the end of a CD's first session to the beginning of its second


def _with_sums(path: Path, *more: Path) -> Path:
    """A directory with the checksums of its files, and of those that `more` have, in `sums`."""
    files = [file for each in (path, *more) for file in sorted(each.iterdir()) if file.name != "sums"]
    sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (path / "sums").write_text(sums)
    return path


def _two_sessions(folder: Path, result: Path) -> None:
    """An image like what is read from a CD with two sessions; the second one shows the files of both."""
    one = directory(folder / "one", ["first"], 1_000_000)
    two = _with_sums(directory(folder / "two", ["second"], 1_000_000), one)
    first = iso(folder / "first.iso", one)
    start = first.stat().st_size // 2048 + _LEAD
    second = iso(folder / "second.iso", two, "-C", f"0,{start}", "-M", str(first))
    with result.open("wb") as file:
        file.write(first.read_bytes())
        file.seek(start * 2048)
        file.write(second.read_bytes())


def test_discs_of_every_kind_are_used_by_linux(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path
) -> None:
    isos = tmp_path / "isos"
    isos.mkdir()
    files = _with_sums(directory(tmp_path / "files", ["a", "long name of a file.txt", "c"], 1_000_000))
    cd = iso(isos / "cd.iso", files, "-V", "A_CD")
    iso(isos / "dvd.iso", files, "-V", "A_DVD", "-udf")
    bd = isos / "bd.udf"
    run([need("mkudffs", "udftools"), "--new-file", "--media-type=hd", "-b", "2048", "-l", "A_BD", bd, "8192"])
    _two_sessions(tmp_path, isos / "sessions.iso")
    target(
        config=f"""
portal_groups.1.portals = ["{HOST[0]}:3260"]
[drives.dvd]
image = "isos/cd.iso"
jukebox = "isos"
[targets."{IQN}"]
luns = {{0 = "dvd"}}
""",
        portals=[],
        prefix=network.prefix,
    )

    def optical(*words: str) -> None:
        assert main(["optical", *words, "--state", str(tmp_path / "state-0")]) == 0

    def put(*words: str) -> None:
        optical("insert", "dvd", *words)

    output = guest(
        "optical.sh",
        variables={"CD_SIZE": str(cd.stat().st_size), "CD_SUM": hashlib.sha256(cd.read_bytes()).hexdigest()},
        marks={
            "dvd": lambda: put("dvd", "--kind", "dvd", "--force"),
            # udev has locked the drive, and ejects when it is asked to
            "bd": lambda: put("bd", "--kind", "bd", "--wait", "120"),
            "sessions": lambda: put("sessions", "--wait", "120"),
            "blank": lambda: put("burned", "--blank", "64M", "--wait", "120"),
            "eject": lambda: optical("eject", "dvd", "--wait", "120"),
        },
    )
    sums = dict(re.findall(r"^([0-9a-f]{64})  (burned|added)$", output, re.MULTILINE))
    assert len(sums) == 2
    for digest, name in sums.items():  # what was burned is an image like others
        copy = tmp_path / name
        with copy.open("wb") as file:
            subprocess.run(["isoinfo", "-R", "-i", isos / "burned.iso", "-x", f"/{name}"], stdout=file, check=True)
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest
