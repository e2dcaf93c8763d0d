"""Tape libraries that are served: `blockyard tape`, and changes while initiators are logged in."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.configuration_file import load
from blockyard.control.errors import ConfigurationError
from blockyard.initiator import Lun, connect
from tests.conftest import TargetFactory
from tests.media.drives import REWIND, filemarks, read, write
from tests.media.test_library import DRIVE, SLOT, move
from tests.serving import IQN
from tests.waiting import eventually

CONFIGURATION = f"""
[libraries.vault]
directory = "vault"
drives = 2
slots = 4
[targets."{IQN}"]
library = "vault"
"""
CAP = pytest.CaptureFixture[str]


class Tape:
    """`blockyard tape` with the state directory of the server."""

    def __init__(self, state: Path, capsys: CAP) -> None:
        self._state = ["--state", str(state)]
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        """What a command prints that ends well."""
        self._capsys.readouterr()
        assert main(["tape", *words, *self._state]) == 0, self._capsys.readouterr().err
        return self._capsys.readouterr().out

    def fails(self, *words: str) -> str:
        """What it says that does not make sense."""
        self._capsys.readouterr()
        assert main(["tape", *words, *self._state]) == 2
        return self._capsys.readouterr().err


@pytest.fixture
def tape(tmp_path: Path, capsys: CAP) -> Tape:
    return Tape(tmp_path / "state-0", capsys)


def ready(lun: Lun) -> None:
    """Take the unit attentions that are pending."""
    while (response := lun.command(bytes(6))).status and response.sense[2] & 0xF == 6:
        pass


def test_cartridges_are_made_moved_and_taken_away(target: TargetFactory, tape: Tape) -> None:
    serving = target(config=CONFIGURATION)
    assert tape("library", "list").splitlines()[1].split()[:5] == ["vault", "blockyard", "2", "4", "1"]
    assert tape("cartridge", "create", "vault", "A00001L8", "--size", "16M") == "A00001L8 is in slot-1\n"
    assert tape("cartridge", "create", "vault", "A00002LY", "--element", "slot-3") == "A00002LY is in slot-3\n"
    with connect(serving.url(0)) as changer, connect(serving.url(1)) as drive:
        assert changer.luns() == [0, 1, 2]
        ready(changer)
        changer.execute(move(SLOT, DRIVE))
        ready(drive)
        drive.execute(write(6), b"served")
        drive.execute(filemarks(1))
        status = json.loads(tape("library", "status", "vault", "--json"))
        assert [(one["cartridge"], one["state"]) for one in status["drives"]] == [
            ("A00001L8", "loaded"),
            (None, "empty"),
        ]
        assert status["elements"] == {"slot-3": "A00002LY"}
        assert tape("move", "vault", "A00001L8", "drive-2") == "moved from drive-1 to drive-2\n"
        assert "loaded" in tape("library", "status", "vault")
    found = json.loads(tape("cartridge", "list", "vault", "--json"))
    assert (found["A00001L8"]["loads"], found["A00001L8"]["capacity"]) == (2, 16 << 20)
    assert (found["A00002LY"]["worm"], found["A00002LY"]["generation"]) == (True, "LTO-8")
    assert "drive-2: move it to a slot first" in tape.fails("cartridge", "export", "vault", "A00001L8")
    tape("move", "vault", "drive-2", "slot-2")
    assert tape("cartridge", "export", "vault", "A00001L8") == "A00001L8 was in slot-2, and is on the shelf\n"
    assert "shelf" in tape("cartridge", "list", "vault")
    assert tape("cartridge", "import", "vault", "A00001L8") == "A00001L8 is in io-1\n"


def test_a_cartridge_is_copied_to_a_file_and_made_of_it(target: TargetFactory, tape: Tape, tmp_path: Path) -> None:
    serving = target(config=CONFIGURATION)
    tape("cartridge", "create", "vault", "A00001L8", "--size", "16M")
    tape("move", "vault", "slot-1", "drive-1")
    file = str(tmp_path / "a.tap")
    with connect(serving.url(1)) as drive:
        ready(drive)
        drive.execute(write(6), b"served")
        drive.execute(filemarks(1))
    assert "drive-1: move it to a slot first" in tape.fails("cartridge", "export", "vault", "A00001L8", "--file", file)
    tape("move", "vault", "drive-1", "slot-1")
    assert tape("cartridge", "export", "vault", "A00001L8", "--file", file) == f"{file} has 2 blocks and filemarks\n"
    assert "does not say" in tape.fails("cartridge", "import", "vault", "B00001", "--file", file)
    assert tape("cartridge", "import", "vault", "B00001L8", "--file", file, "--size", "16M") == "B00001L8 is in io-1\n"
    tape("move", "vault", "B00001L8", "drive-1")
    with connect(serving.url(1)) as drive:
        ready(drive)
        assert drive.execute(read(6), read_length=6) == b"served"
    said = tape("cartridge", "import", "vault", "C00001L8", "--file", file, "--element", "slot-4", "--no-wait")
    assert re.fullmatch(r"job library:vault\.\d+ has begun: `blockyard optical jobs` shows it\n", said)
    eventually(
        lambda: json.loads(tape("library", "status", "vault", "--json"))["elements"].get("slot-4") == "C00001L8",
        "the cartridge in its slot",
    )


def test_the_switch_of_a_cartridge_protects_it(target: TargetFactory, tape: Tape) -> None:
    serving = target(config=CONFIGURATION)
    tape("cartridge", "create", "vault", "A00001L8", "--size", "16M")
    assert tape("cartridge", "protect", "vault", "A00001L8") == "A00001L8 is write-protected\n"
    assert "write protected" in tape("cartridge", "list", "vault")
    tape("move", "vault", "slot-1", "drive-1")
    assert "move it to a slot first" in tape.fails("cartridge", "protect", "vault", "A00001L8", "--off")
    with connect(serving.url(1)) as drive:
        ready(drive)
        assert drive.command(write(6), b"x" * 6).sense[2] & 0xF == 7  # DATA PROTECT
    tape("move", "vault", "drive-1", "slot-1")
    assert tape("cartridge", "protect", "vault", "A00001L8", "--off") == "A00001L8 can be written\n"
    tape("move", "vault", "slot-1", "drive-1")
    with connect(serving.url(1)) as drive:
        ready(drive)
        drive.execute(write(6), b"served")
    assert "there is no cartridge B" in tape.fails("cartridge", "protect", "vault", "B00001L8")


def test_what_makes_no_sense_is_told(target: TargetFactory, tape: Tape) -> None:
    target(config=CONFIGURATION)
    tape("cartridge", "create", "vault", "A00001L8", "--size", "16M")
    assert "no tape library attic" in tape.fails("library", "status", "attic")
    assert "There is a cartridge" in tape.fails("cartridge", "create", "vault", "A00001L8")
    assert "no barcode" in tape.fails("cartridge", "create", "vault", "a.b")
    assert "1M at least" in tape.fails("cartridge", "create", "vault", "A00002L8", "--size", "4K")
    assert "slot-1 of vault is full" in tape.fails("cartridge", "create", "vault", "A00002L8", "--element", "slot-1")
    assert "no slot-9" in tape.fails("move", "vault", "A00001L8", "slot-9")
    assert "no element" in tape.fails("move", "vault", "A00001L8", "cupboard")
    assert "medium source element empty" in tape.fails("move", "vault", "slot-2", "slot-3")
    assert "no cartridge B00001L8" in tape.fails("cartridge", "import", "vault", "B00001L8")


def test_cartridges_are_labelled_and_thrown_away(target: TargetFactory, tape: Tape, tmp_path: Path) -> None:
    serving = target(config=CONFIGURATION)
    for barcode in ("A00001L8", "A00002L8", "A00003LY"):
        tape("cartridge", "create", "vault", barcode, "--size", "16M")
    assert tape("cartridge", "label", "vault", "A00001L8", "B00001L8") == "A00001L8 is B00001L8 now, and is in slot-1\n"
    assert "LTO-7 has barcodes with L7" in tape.fails("cartridge", "create", "vault", "C1L8", "--generation", "LTO-7")
    assert "LTO-8 WORM has barcodes with LY" in tape.fails("cartridge", "create", "vault", "C1L8", "--worm")
    assert "LTO-8 WORM has barcodes with LY" in tape.fails("cartridge", "label", "vault", "A00003LY", "A00003L8")
    said = tape("cartridge", "create", "vault", "D099L8", "--count", "2", "--size", "16M")
    assert said == "D099L8 to D100L8 are in vault\n"
    assert tape("cartridge", "delete", "vault", "D099L8", "D100L8", "--yes")
    for words, problem in (
        (("A00001L8", "--count", "2"), "there is a cartridge A00002L8 in vault"),
        (("D9L8", "--count", "2"), "2 barcodes cannot be counted from D9L8 on: its number has 1 digits"),
        (("DL8", "--count", "2"), "its number has 0 digits"),
        (("D01L8", "--count", "3"), "vault has room for 2 cartridges, not for 3"),
        (("d/../01L8", "--count", "2"), "'d/../01L8' is no barcode"),
        (("D" * 1000 + "01L8", "--count", "2"), "is no barcode"),
        (("D1L8", "--count", "0"), "10000 cartridges can be made at a time, not 0"),
        (("D1L8", "--count", "2", "--worm"), "LTO-8 WORM has barcodes with LY"),
    ):
        assert problem in tape.fails("cartridge", "create", "vault", *words)
    tape("cartridge", "export", "vault", "A00002L8")
    assert "on the shelf" in tape("cartridge", "label", "vault", "A00002L8", "B00002L8")
    tape("move", "vault", "B00001L8", "drive-1")
    assert "drive-1: move it" in tape.fails("cartridge", "label", "vault", "B00001L8", "C00001L8")
    assert "drive-1: move it" in tape.fails("cartridge", "delete", "vault", "B00001L8", "--yes")
    assert "say --yes" in tape.fails("cartridge", "delete", "vault", "B00002L8")
    assert (
        tape("cartridge", "delete", "vault", "B00002L8", "A00003LY", "--yes") == "B00002L8 is gone\nA00003LY is gone\n"
    )
    serving.restart()
    assert list(json.loads(tape("cartridge", "list", "vault", "--json"))) == ["B00001L8"]
    assert json.loads(tape("library", "status", "vault", "--json"))["drives"][0]["cartridge"] == "B00001L8"


def test_a_killed_worker_comes_back_with_the_cartridge_in_its_drive(target: TargetFactory, tape: Tape) -> None:
    serving = target(config=CONFIGURATION)
    tape("cartridge", "create", "vault", "A00001L8", "--size", "16M")
    tape("move", "vault", "A00001L8", "drive-1")
    with connect(serving.url(1)) as drive:
        ready(drive)
        drive.execute(write(4), b"kept")
        drive.execute(filemarks(1))
        drive.execute(write(4), b"lost")
        killed = serving.workers
        os.kill(killed[0], signal.SIGKILL)
    eventually(lambda: set(serving.workers) - set(killed), "a new worker")
    assert "loaded" in tape("library", "status", "vault")
    with connect(serving.url(1)) as drive:
        ready(drive)  # at the end of data, where a write that is tried again harms nothing
        drive.execute(REWIND)
        assert drive.execute(read(4), read_length=4) == b"kept"


def test_a_library_changes_and_goes_while_it_is_served(target: TargetFactory, tape: Tape, tmp_path: Path) -> None:
    serving = target(config=CONFIGURATION)
    tape("cartridge", "create", "vault", "A00001L8", "--size", "16M")
    file, state = tmp_path / "serve-0.toml", str(tmp_path / "state-0")
    with connect(serving.url(0)) as changer:
        ready(changer)
        file.write_text(CONFIGURATION.replace("drives = 2", "drives = 3"))
        assert main(["reload", "--state", state]) == 0
        assert changer.luns() == [0, 1, 2, 3]
        ready(changer)
        changer.execute(move(SLOT, DRIVE + 2))
        file.write_text(f"[volumes.disk]\npath = 'disk.img'\nsize = '1M'\n[targets.'{IQN}']\nluns = {{0 = 'disk'}}\n")
        assert main(["reload", "--state", state]) == 0
        assert changer.luns() == [0]
    assert "no tape library vault" in tape.fails("library", "status", "vault")
    file.write_text(CONFIGURATION)  # with two drives: the third had a cartridge
    assert main(["reload", "--state", state]) == 0
    assert "shelf" in tape("cartridge", "list", "vault")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("library = 'attic'", "there is no library 'attic'"),
        ("library = 'vault'\nluns = {0 = 'vault'}", "there is no volume"),
        ("library = 'vault'\n[libraries.other]\ndirectory = 'vault'", "vault has the same"),
        ("[libraries.other]\ndirectory = 'other'\nmodel = 'ibm-ts9'", "model is one of blockyard, ibm-ts3500"),
        ("[libraries.other]\ndirectory = 'other'\ndrives = 0", "drives: a blockyard has 1 to 768, not 0"),
        ("[libraries.other]\ndirectory = ''", "the directory of its cartridges belongs here"),
    ],
)
def test_configurations_that_make_no_sense(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "blockyard.toml"
    file.write_text(f"[libraries.vault]\ndirectory = 'vault'\n[targets.'{IQN}']\n{text}\n")
    with pytest.raises(ConfigurationError, match=problem):
        load(file)
