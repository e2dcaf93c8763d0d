"""`blockyard alua`: port groups of targets that are served, by the control socket, kept over a restart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.administration import ask
from blockyard.control.errors import ControlError
from blockyard.initiator import Lun, ScsiError, connect
from blockyard.scsi.sense import Asc
from tests.control.serving import serve
from tests.scsi.test_alua import report
from tests.serving import free_port

TARGET = "iqn.2026-11.test:disk"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "blockyard.toml"
    path.write_text(f"""
    portal_groups.1.portals = ["127.0.0.1:{free_port()}"]
    portal_groups.2.portals = ["127.0.0.1:{free_port()}"]
    [volumes.disk]
    path = "disk.img"
    size = "8M"
    [targets."{TARGET}"]
    portal_groups = [1, 2]
    luns = {{0 = "disk"}}
    alua = {{1 = {{preferred = true}}, 2 = {{state = "active/non-optimized"}}}}
    """)
    return path


def states(lun: Lun) -> list[int]:
    """PREF and state of each group, as REPORT TARGET PORT GROUPS has them."""
    data = lun.execute(report(), read_length=4096)
    return [data[at] for at in range(4, len(data), 12)]


def test_states_are_shown_changed_and_kept(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path / "s")]
    with serve(tmp_path / "s", "--config", str(file), portal=None) as served:
        first, second = (f"iscsi://{portal}/{TARGET}/0" for portal in served.portals)
        with connect(first) as good, connect(second) as worse:
            assert states(good) == [0x80, 0x01]
            worse.write(0, bytes(512))
            assert main(["alua", "set", TARGET, "2", "standby", *state]) == 0
            assert states(good) == [0x80, 0x02]
            with pytest.raises(ScsiError) as error:
                worse.read(0, 1)
            assert error.value.sense is not None
            assert error.value.sense.code == Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE
            assert main(["alua", "set", TARGET, "2", "--preferred", *state]) == 0
            assert main(["alua", "set", TARGET, "1", "--not-preferred", *state]) == 0
            assert states(good) == [0x00, 0x82]
        capsys.readouterr()
        assert main(["alua", "show", *state]) == 0
        assert capsys.readouterr().out == (
            f"{TARGET}\n"
            "  portal group 1: active/optimized; sessions: 0\n"
            "  portal group 2: standby, preferred; sessions: 0\n"
        )
        assert served.stop() == 0
    with serve(tmp_path / "s", "--config", str(file), portal=None) as served:
        assert main(["alua", "show", "--json", *state]) == 0
        found = json.loads(capsys.readouterr().out)[TARGET]
        assert (found["2"]["state"], found["2"]["preferred"]) == ("standby", True)
        assert served.stop() == 0


def test_a_new_configuration_changes_what_nobody_else_has(file: Path, tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "s")]
    with serve(tmp_path / "s", "--config", str(file), portal=None) as served:
        with connect(f"iscsi://{served.portals[0]}/{TARGET}/0") as lun:
            assert main(["alua", "set", TARGET, "1", "active/non-optimized", *state]) == 0
            file.write_text(file.read_text().replace("active/non-optimized", "unavailable").replace("true", "false"))
            assert main(["reload", *state]) == 0
            assert states(lun) == [0x81, 0x03]
        assert served.stop() == 0


def test_a_worker_that_hangs_holds_up_the_paths_of_no_other_target(file: Path, tmp_path: Path) -> None:
    """Paths are changed when something is wrong: the worker of that target is asked, and no other."""
    with file.open("a") as more:
        more.write(
            '[volumes.other]\npath = "other.img"\nsize = "8M"\n[targets."iqn.2026-11.test:other"]\nluns = {0 = "other"}\n'
        )
    with serve(tmp_path / "s", "--config", str(file), "--workers", "2", portal=None) as served:
        (hung,) = (pid for pid in served.workers() if has_open(pid, tmp_path / "other.img"))
        os.kill(hung, signal.SIGSTOP)
        try:
            assert main(["alua", "set", TARGET, "1", "standby", "--state", str(tmp_path / "s")]) == 0
            assert hung in served.workers(), "it was waited for until it was found to hang"
            with pytest.raises(ControlError, match="the request has no target"):
                ask(tmp_path / "s", "alua set", target={}, group=1, state="standby")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(hung, signal.SIGCONT)
        assert served.stop() == 0


def has_open(pid: int, path: Path) -> bool:
    return any(os.path.realpath(fd) == str(path) for fd in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["iqn.2026-11.test:none", "1", "standby"], "there is no target iqn.2026-11.test:none"),
        ([TARGET, "3", "standby"], "there is no target port group 3; there are 1, 2"),
        ([TARGET, "1", "asleep"], "a state is one of active/optimized, active/non-optimized, standby, unavailable"),
        ([TARGET, "1"], "there is nothing to change"),
    ],
)
def test_what_cannot_be(
    words: list[str], message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(tmp_path / "s", "--config", str(file), portal=None) as served:
        assert main(["alua", "set", *words, "--state", str(tmp_path / "s")]) != 0
        assert message in capsys.readouterr().err
        assert served.stop() == 0


@pytest.mark.parametrize(
    ("alua", "message"),
    [
        ('{2 = {state = "asleep"}}', "state is one of"),
        ("{9 = {preferred = true}}", "alua.9: the target has portal groups 1, 2"),
    ],
)
def test_what_the_file_cannot_say(alua: str, message: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = file.read_text()
    file.write_text(text[: text.index("alua =")] + f"alua = {alua}\n")
    assert main(["config", "check", str(file)]) == 6
    assert message in capsys.readouterr().err
