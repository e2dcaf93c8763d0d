"""`blockyard serve` without disks and without a file: what is configured by commands lasts, and nothing is done by halves."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.block import records
from blockyard.cli.main import main
from blockyard.control.administration import NotServing, ask
from blockyard.control.configuration_file import load
from blockyard.control.errors import ControlError
from blockyard.initiator import connect
from blockyard.worker.configuration import Configuration
from tests.control.killing import Killer
from tests.control.serving import Served, serve, start
from tests.waiting import LIMIT

IQN = "iqn.2026-11.test:managed"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def blockyard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command with the state directory `s`; its exit status, and what it printed."""

    def run(*words: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        status = main([*map(str, words), "--state", str(tmp_path / "s")])
        return status, "".join(capsys.readouterr())

    return run


def configuration(tmp_path: Path, portal: str, *, disks: int = 1, size: str = "1M") -> Path:
    """A file with so many disks, each a LUN."""
    file = tmp_path / "wanted.toml"
    volumes = "".join(f'[volumes.d{n}]\npath = "d{n}.img"\nsize = "{size}"\n' for n in range(disks))
    luns = ", ".join(f'{n} = "d{n}"' for n in range(disks))
    file.write_text(
        f'[api]\nlisten = ""\n[portal_groups.1]\nportals = ["{portal}"]\n{volumes}[targets."{IQN}"]\nluns = {{{luns}}}\n'
    )
    return file


def test_the_demo_disk_is_only_the_beginning(tmp_path: Path, blockyard: Command) -> None:
    with serve(tmp_path / "s") as served:
        status, shown = blockyard("config", "show")
        assert status == 0
        assert tomllib.loads(shown)["volumes"]["demo.img"] == {"path": str(tmp_path / "s/demo.img"), "size": "1G"}
        file = configuration(tmp_path, "127.0.0.1:0", disks=2)
        status, printed = blockyard("apply", "-f", file, "--dry-run")
        assert status == 9
        assert printed.splitlines() == [
            '- volumes."demo.img"',
            "+ volumes.d0",
            "+ volumes.d1",
            f'- targets."{served.targets[0]}"',
            f'+ targets."{IQN}"',
            "blockyard: something would change",
        ]
        assert not (tmp_path / "d0.img").exists()
        status, printed = blockyard("apply", "-f", file)
        assert (status, printed.splitlines()[-1]) == (0, "revision 2")
        assert blockyard("apply", "-f", file, "--dry-run") == (0, "nothing differs\n")
        assert blockyard("apply", "-f", file) == (0, "nothing differs\n")
        with connect(f"iscsi://{served.portals[0]}/{IQN}/1") as lun:
            lun.write(0, b"kept" * 128)
        assert served.stop() == 0
    with serve(tmp_path / "s") as served:  # with the same options, as the unit of a service has them
        assert served.targets == [IQN]
        with connect(f"iscsi://{served.portals[0]}/{IQN}/1") as lun:
            assert lun.read(0, 1) == b"kept" * 128
        assert served.stop() == 0


def test_going_back(tmp_path: Path, blockyard: Command) -> None:
    with serve(tmp_path / "s") as served:
        blockyard("apply", "-f", configuration(tmp_path, "127.0.0.1:0"))
        status, printed = blockyard("config", "history", "--json")
        first, second = json.loads(printed)
        assert (first["who"], first["revision"], second["revision"]) == ("command line", 1, 2)
        assert blockyard("config", "rollback", "1", "--expect", "1")[0] == 8
        assert blockyard("config", "rollback", "7")[0] == 2
        assert blockyard("config", "rollback", "1", "--dry-run")[0] == 9
        status, printed = blockyard("config", "rollback", "1", "--expect", "2")
        assert (status, printed.splitlines()[-1]) == (0, "revision 3")
        assert ask(tmp_path / "s", "status")["targets"].keys() == set(served.targets)
        assert blockyard("config", "show") == blockyard("config", "show", "--revision", "1")
        assert served.stop() == 0
    status, printed = blockyard("audit", "--json")
    assert [entry["what"].partition(":")[0] for entry in json.loads(printed)] == [
        f"configuration {number}" for number in (1, 2, 3)
    ]


def test_without_a_server_the_next_start_has_it(tmp_path: Path, blockyard: Command) -> None:
    file = configuration(tmp_path, "127.0.0.1:0")
    assert blockyard("apply", "-f", file, "--dry-run")[0] == 9
    assert blockyard("apply", "-f", file)[1].splitlines()[-1] == "revision 1, for the next start"
    assert blockyard("apply", "-f", file) == (0, "nothing differs\n")
    assert load_shown(blockyard) == load(file)
    with serve(tmp_path / "s", portal=None) as served:
        assert served.targets == [IQN]
        assert served.stop() == 0
    assert blockyard("config", "history")[1].splitlines()[1].split()[0] == "1"
    file.write_text("[volumes.x]\n")
    assert blockyard("apply", "-f", file)[0] == 6


def load_shown(blockyard: Command) -> Configuration:
    return records.read(Configuration, tomllib.loads(blockyard("config", "show")[1]))


def test_what_cannot_be_served_changes_nothing(tmp_path: Path, blockyard: Command) -> None:
    with serve(tmp_path / "s") as served:
        before = blockyard("config", "show")
        file = configuration(tmp_path, "127.0.0.1:0", disks=2)
        file.write_text(file.read_text() + '[volumes.missing]\npath = "missing.img"\n')
        status, printed = blockyard("apply", "-f", file)
        assert status == 4
        assert "missing.img does not exist" in printed
        assert not (tmp_path / "d0.img").exists()
        assert blockyard("config", "show") == before
        assert len(json.loads(blockyard("config", "history", "--json")[1])) == 1
        assert served.stop() == 0
    with serve(tmp_path / "s") as again:
        assert again.targets == served.targets
        assert again.stop() == 0


def test_where_the_configuration_stands_elsewhere(tmp_path: Path, blockyard: Command) -> None:
    file = configuration(tmp_path, "127.0.0.1:0")
    with serve(tmp_path / "s", "--config", str(file), portal=None) as served:
        status, printed = blockyard("apply", "-f", file)
        assert status == 2
        assert f"the configuration stands in {file}: change it there, then `blockyard reload`" in printed
        assert served.stop() == 0
    with serve(tmp_path / "s", str(tmp_path / "d0.img")) as served:
        status, printed = blockyard("apply", "-f", file)
        assert status == 2
        assert "what is served stands on the command line" in printed
        assert blockyard("config", "history")[0] == 2
        assert served.stop() == 0


def test_options_are_for_the_first_start_or_a_new_wish(tmp_path: Path) -> None:
    with serve(tmp_path / "s", "--target", IQN, "--size", "1M", "--thick") as served:
        assert served.targets == [IQN]
        assert served.stop() == 0
    with serve(tmp_path / "s", "--target", IQN, "--size", "1M", "--thick") as served:  # as the unit of a service does
        assert served.stop() == 0
    with serve(tmp_path / "s", portal="127.0.0.2:0") as served:
        assert served.portals[0].startswith("127.0.0.2:")
        assert served.stop() == 0
    with serve(tmp_path / "s", portal=None) as served:
        assert served.portals[0].startswith("127.0.0.2:")
        assert served.stop() == 0
    process = start(tmp_path / "s", "--read-only")
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert "--read-only: that was for the first start" in error


# ---- killed


class Change:
    """A change to a server that dies within: one disk grows, another one comes."""

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self.state = tmp_path / "s"
        self.killer = Killer(tmp_path)
        self.before = records.write(load(configuration(tmp_path, "127.0.0.1:0")))
        self.after = records.write(load(configuration(tmp_path, "127.0.0.1:0", disks=2, size="2M")))

    def serve(self) -> Any:
        return serve(self.state, portal=None, **self.killer.environment)

    def make(self, served: Served, number: int) -> None:
        """From before to after; the server may die at call `number`."""
        self.killer.arm(served.process.pid, number)
        try:
            ask(self.state, "config apply", configuration=self.after)
        except NotServing:
            assert served.process.wait(LIMIT) == -signal.SIGKILL

    def reset(self) -> None:
        """Nobody serves; all is as before the change."""
        for name in ("d0.img", "d1.img"):
            (self.directory / name).unlink(missing_ok=True)
        file = configuration(self.directory, "127.0.0.1:0")
        assert main(["apply", "-f", str(file), "--state", str(self.state)]) == 0

    def check(self, served: Served) -> bool:
        """All is as before, or all is as after: whether the latter."""
        shown = records.write(records.read(Configuration, tomllib.loads(ask(self.state, "config show"))))
        assert shown in (self.before, self.after)
        changed = bool(shown == self.after)
        size = 2 << 20 if changed else 1 << 20
        volumes = ask(self.state, "status")["volumes"]
        assert {name: volume["size"] for name, volume in volumes.items()} == (
            {"d0": size, "d1": size} if changed else {"d0": size}
        )
        assert (self.directory / "d0.img").stat().st_size == size
        assert (self.directory / "d1.img").exists() == changed
        with connect(f"iscsi://{served.portals[0]}/{IQN}/0") as lun:
            capacity = lun.capacity()
        assert capacity.blocks * capacity.block_size == size
        return changed


def killed(change: Change, numbers: range) -> list[bool]:
    """What became of the change when the server was killed at each of these calls."""
    outcomes = []
    for number in numbers:
        change.reset()
        with change.serve() as served:
            change.make(served, number)
        with change.serve() as served:
            outcomes.append(change.check(served))
            assert served.stop() == 0
    return outcomes


def calls_of(change: Change) -> int:
    """How many calls the whole change makes."""
    change.reset()
    with change.serve() as served:
        change.killer.arm(served.process.pid)
        ask(change.state, "config apply", configuration=change.after)
        calls = change.killer.disarm()
        assert change.check(served)
        assert served.stop() == 0
    return calls


def test_a_server_that_is_killed_in_a_change(tmp_path: Path) -> None:
    change = Change(tmp_path)
    calls = calls_of(change)
    assert calls > 10
    outcomes = killed(change, range(2, calls, calls // 3))
    assert True in outcomes


@pytest.mark.soak
def test_a_server_that_is_killed_at_every_step_of_a_change(tmp_path: Path) -> None:
    change = Change(tmp_path)
    outcomes = killed(change, range(1, calls_of(change) + 1))
    assert outcomes == sorted(outcomes)
    assert {False, True} == set(outcomes)


def test_who_waits_while_the_server_dies_is_told(tmp_path: Path) -> None:
    change = Change(tmp_path)
    change.reset()
    with change.serve() as served:
        change.killer.arm(served.process.pid, 1)
        with pytest.raises(ControlError):
            ask(change.state, "config apply", configuration=change.after)
        assert not os.path.exists(change.directory / "d1.img")
        served.process.wait(LIMIT)
