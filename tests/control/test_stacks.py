"""Volumes that are stacks of layers, in a real server."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from blockyard.block.file import FileDevice
from blockyard.control.configuration_file import dump, load
from blockyard.control.errors import ConfigurationError
from blockyard.initiator import Lun, ScsiError, connect
from tests.serving import IQN, ServeFailed, Serving, free_port
from tests.waiting import eventually

MiB = 1 << 20

_TREE = """
[layers.low]
kind = "file"
path = "a.img"

[layers.both]
kind = "concat"
on = ["low", "./b.img"]
sizes = ["4M"]

[volumes.head]
stack = "slice(length=2M, both)"

[volumes.tail]
stack = "slice(offset=2M, both)"

[volumes.ram]
stack = "memory(1M)"
"""
_TARGETS = """
[targets."iqn.2024-01.test.blockyard:head"]
luns = {0 = "head"}
[targets."iqn.2024-01.test.blockyard:tail"]
luns = {0 = "tail", 1 = "ram"}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.img", "b.img"), 1):
        (tmp_path / name).write_bytes(bytes([number]) * 4 * MiB)
    return tmp_path


@pytest.fixture
def serve(files: Path) -> Iterator[Callable[[str], Serving]]:
    started: list[Serving] = []

    def start(text: str) -> Serving:
        config = files / "blockyard.toml"
        config.write_text(text)
        started.append(Serving([], state=files / "state", log=files / "log", config=config))
        return started[-1]

    yield start
    for server in started:
        with server:
            server.stop()


def run(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blockyard", *arguments, "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def blockyard(state: Path, *arguments: str) -> str:
    """What a command prints."""
    result = run(state, *arguments)
    assert not result.returncode, result.stderr
    return result.stdout


def status(state: Path) -> Any:
    return json.loads(blockyard(state, "status", "--json"))


def test_slices_of_one_array_are_two_disks(files: Path, serve: Callable[[str], Serving]) -> None:
    server = serve(_TREE + _TARGETS)
    head, tail = (server.url(target=f"iqn.2024-01.test.blockyard:{name}") for name in ("head", "tail"))
    with connect(head) as one, connect(tail) as other:
        assert one.capacity().size == 2 * MiB
        assert other.capacity().size == 6 * MiB
        one.write(0, b"h" * 512)
        other.write(0, b"t" * 512)
        other.write((2 * MiB >> 9), b"u" * 512)
        one.flush()
        other.flush()
    assert (files / "a.img").read_bytes()[:512] == b"h" * 512
    assert (files / "a.img").read_bytes()[2 * MiB : 2 * MiB + 512] == b"t" * 512
    assert (files / "b.img").read_bytes()[:512] == b"u" * 512
    shown = status(files / "state")["volumes"]
    assert {name: volume["size"] for name, volume in shown.items()} == {"head": 2 * MiB, "tail": 6 * MiB, "ram": MiB}
    assert len(server.workers) == 1  # what stands on one layer belongs to one worker


def test_reload_grows_and_changes_stacks(files: Path, serve: Callable[[str], Serving]) -> None:
    server = serve(_TREE + _TARGETS)
    uuids = {name: volume["uuid"] for name, volume in status(files / "state")["volumes"].items()}
    with (files / "b.img").open("ab") as file:
        file.truncate(5 * MiB)
    with connect(server.url(target="iqn.2024-01.test.blockyard:tail")) as tail:
        assert "tail has 7M now, after 6M" in blockyard(files / "state", "reload")
        assert status(files / "state")["volumes"]["tail"]["size"] == 7 * MiB
        tail.test_unit_ready()
        assert tail.capacity().size == 7 * MiB
    (files / "blockyard.toml").write_text(
        _TREE.replace("length=2M", "length=1M").replace("offset=2M", "offset=3M") + _TARGETS
    )
    assert "volumes.head.stack" in blockyard(files / "state", "reload")
    after = status(files / "state")["volumes"]
    assert after["head"]["size"] == MiB
    assert {name: volume["uuid"] for name, volume in after.items()} == uuids
    server.restart()
    assert {name: volume["uuid"] for name, volume in status(files / "state")["volumes"].items()} == uuids


def test_what_is_wrong_with_a_stack_changes_nothing(files: Path, serve: Callable[[str], Serving]) -> None:
    server = serve(_TREE + _TARGETS)
    wrong = _TREE.replace("length=2M", "length=2000M").replace("offset=2M", "offset=2000M")
    (files / "blockyard.toml").write_text(wrong + _TARGETS)
    result = run(files / "state", "reload")
    assert result.returncode
    assert "ends at 8388608" in result.stderr
    with connect(server.url(target="iqn.2024-01.test.blockyard:head")) as head:
        assert head.capacity().size == 2 * MiB


def _is_there(lun: Lun) -> bool:
    try:
        lun.test_unit_ready()
    except ScsiError:
        return False
    return True


def test_what_is_not_there_when_a_change_is_taken_back_is_served_when_it_is(
    files: Path, serve: Callable[[str], Serving]
) -> None:
    server = serve(_TREE + _TARGETS)
    os.rename(files / "a.img", files / "aside")
    (files / "a.img").write_bytes(bytes([3]) * 4 * MiB)
    other = FileDevice(files / "a.img")  # somebody else has taken it
    (files / "blockyard.toml").write_text(
        _TREE.replace("length=2M", "length=1M").replace("offset=2M", "offset=3M") + _TARGETS
    )
    result = run(files / "state", "reload")
    assert result.returncode
    assert "It is in use by" in result.stderr
    with connect(server.url(target="iqn.2024-01.test.blockyard:tail", lun=1)) as ram:
        assert ram.capacity().size == MiB, "what can be served is"
    with connect(server.url(target="iqn.2024-01.test.blockyard:head")) as head:
        assert not _is_there(head)
        other.close()
        eventually(lambda: _is_there(head))
        assert head.capacity().size == 2 * MiB
        assert bytes(head.read(0, 1)) == bytes([3]) * 512


def test_identity_is_that_of_the_file_beneath(files: Path, serve: Callable[[str], Serving]) -> None:
    plain = '[volumes.a]\npath = "a.img"\n[targets."iqn.2024-01.test.blockyard:a"]\nluns = {0 = "a"}\n'
    server = serve(plain)
    before = status(files / "state")["volumes"]["a"]["uuid"]
    (files / "blockyard.toml").write_text(plain.replace('path = "a.img"', 'stack = "concat(sizes=[1M], ./a.img)"'))
    blockyard(files / "state", "reload")
    after = status(files / "state")["volumes"]["a"]
    assert (after["uuid"] == before, after["size"]) == (True, MiB)
    assert server.workers


def test_a_stack_on_the_command_line(files: Path) -> None:
    portal_and_state = {"state": files / "state", "log": files / "log"}
    with Serving([f"stack:concat({files}/a.img, {files}/b.img)"], **portal_and_state) as server:  # type: ignore[arg-type]
        with connect(server.url(target=IQN)) as lun:
            assert lun.capacity().size == 8 * MiB
        server.stop()
    with pytest.raises(ServeFailed, match="ended with status 2"):
        Serving(["stack:concat("], **portal_and_state)  # type: ignore[arg-type]
    assert "here should be a path" in (files / "log").read_text()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("kind = \"concat\"", "kind = \"concta\""), r"layers.both: there is no kind of layer 'concta'; did you mean concat"),
        (("kind = \"concat\"\n", ""), r"layers.both.kind: it is missing"),
        (("\"low\", ", "7, "), r"layers.both.on: that is not a list"),
        (("\"./b.img\"", "\"x(\""), r"layers.both.on\[1\]: here should be"),
        (("[\"4M\"]", "[{a = 1}]"), r"layers.both.sizes\[0\]: a layer has no such option"),
        (("offset=2M", "offset=1M"), r"is used twice"),
        (("memory(1M)", "concat(both)"), r"is used twice"),
        (("memory(1M)", "boht"), r"there is no layer 'boht'"),
        (("memory(1M)", "pool(fast/vm)"), r"volumes.ram.stack: there is no pool 'fast'"),
        (("memory(1M)\"", "memory(1M)\"\nsize = \"1M\""), r"volumes.ram.size: a stack has the size"),
        (("memory(1M)\"", "memory(1M)\"\npath = \"x\""), r"volumes.ram.path: a volume has a path or a stack"),
        (("memory(1M)", "slice(length=1M, ./a.img)"), r"is used twice"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(files: Path, change: tuple[str, str], problem: str) -> None:
    path = files / "blockyard.toml"
    assert change[0] in _TREE
    path.write_text(_TREE.replace(*change))
    with pytest.raises(ConfigurationError, match=problem):
        load(path)


def test_a_tree_of_tables_is_shown_as_it_was_given(files: Path) -> None:
    path = files / "blockyard.toml"
    path.write_text(_TREE)
    configuration = load(path)
    shown = files / "elsewhere" / "shown.toml"
    shown.parent.mkdir()
    shown.write_text(dump(configuration))
    assert load(shown) == configuration
    assert "on = [" in shown.read_text()


def test_layers_are_shown_and_told_what_to_do(files: Path, serve: Callable[[str], Serving]) -> None:
    stack = "throttle(iops=100000, concat(faults(./a.img), ./b.img))"
    metrics = f"127.0.0.1:{free_port()}"
    server = serve(
        f'[metrics]\nlisten = "{metrics}"\n[volumes."a/b"]\nstack = "{stack}"\n[targets."{IQN}"]\nluns = {{0 = "a/b"}}\n'
    )
    state = files / "state"
    shown = blockyard(state, "layer", "show", "a/b").splitlines()
    assert [line.split()[0] for line in shown] == ["LAYER", "throttle(iops=100000)", "└─", "├─", "│", "└─"]
    assert "8 MiB  ok" in shown[1]
    tree = json.loads(blockyard(state, "layer", "show", "a/b", "--json"))
    assert tree["children"][0]["children"][1]["label"] == f'file("{files}/b.img")'
    assert "inject" in blockyard(state, "layer", "actions", "a/b/faults")
    assert "No space left" in blockyard(
        state, "layer", "do", "a/b/0/0", "inject", "operation=write", "errno=ENOSPC", "length=4K"
    )
    with connect(server.url()) as lun:
        with pytest.raises(ScsiError):
            lun.write(0, b"x" * 512)
        assert blockyard(state, "layer", "do", "a/b", "heal") == "no faults\n"
        lun.write(0, b"x" * 512)
    assert "iops=77" in blockyard(state, "layer", "do", "a/b", "throttle", "iops=77")
    assert blockyard(state, "layer", "jobs") == "nothing goes on\n"
    with urlopen(f"http://{metrics}/metrics") as page:
        text = page.read().decode()
    assert 'blockyard_layer_events_total{volume="a/b",layer="0/0/0",kind="faults",counter="struck"} 0' in text
    assert 'blockyard_layer_healthy{volume="a/b",layer="0/0/1",kind="file"} 1' in text
    assert f'blockyard_volume_size_bytes{{volume="a/b"}} {8 * MiB}' in text
    for arguments, problem in (
        (("show", "c"), "there is no volume 'c'"),
        (("do", "a/b", "scrub"), "no layer can scrub: there is heal, inject, throttle"),
        (("do", "a/b/0", "heal"), "cannot heal"),
        (("do", "a/b", "throttle", "iosp=1"), "did you mean iops?"),
        (("do", "a/b", "throttle", "x"), "'x' is not OPTION=VALUE"),
        (("actions", "a/b/7"), "there is no 7"),
        (("cancel", "7"), "there is no job 7"),
        (("kinds", "raid"), "there is no kind of layer 'raid'"),
        (("create", "concat(/a)"), "concat keeps nothing on what it stands on"),
        (("create", "/a"), "/a is a path"),
    ):
        result = run(state, "layer", *arguments)
        assert (result.returncode, problem in result.stderr) == (2, True), result.stderr


def test_kinds_are_listed(tmp_path: Path) -> None:
    lines = blockyard(tmp_path, "layer", "kinds").splitlines()
    assert any(line.split()[:4] == ["concat", "1", "or", "more"] for line in lines)
    shown = blockyard(tmp_path, "layer", "kinds", "slice")
    assert "example    slice(" in shown
    assert "length  size  0" in shown
    assert {kind["name"] for kind in json.loads(blockyard(tmp_path, "layer", "kinds", "--json"))} >= {"file", "slice"}


class Load:
    """Blocks that are written and read again, over and over, by an initiator that stays logged in."""

    def __init__(self, url: str, blocks: int = 64) -> None:
        self._url, self._blocks = url, blocks
        self.rounds = 0
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self.failure: BaseException | None = None

    def _run(self) -> None:
        chance = random.Random(7)
        there = [bytes(4096)] * self._blocks
        try:
            with connect(self._url) as lun:
                lun.write(0, bytes(4096 * self._blocks))
                while not self._stop.is_set():
                    at = chance.randrange(self._blocks)
                    there[at] = chance.randbytes(4096)
                    lun.write(at * 8, there[at])
                    at = chance.randrange(self._blocks)
                    assert lun.read(at * 8, 8) == there[at]
                    with self._moved:
                        self.rounds += 1
                        self._moved.notify_all()
                assert lun.read(0, 8 * self._blocks) == b"".join(there)
        except BaseException as error:
            self.failure = error
            with self._moved:
                self._moved.notify_all()

    def go_on(self, rounds: int = 20) -> None:
        """Wait until it has gone on for so many rounds."""
        with self._moved:
            end = self.rounds + rounds
            assert self._moved.wait_for(lambda: self.rounds >= end or self.failure, 120)
        assert self.failure is None, self.failure

    def __enter__(self) -> Load:
        self._thread.start()
        self.go_on(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.failure is None, self.failure


def test_layers_come_and_go_under_a_running_load(files: Path, serve: Callable[[str], Serving]) -> None:
    target = f'[targets."{IQN}"]\nluns = {{0 = "a"}}\n'
    server = serve(f'[volumes.a]\npath = "a.img"\n{target}')
    state = files / "state"
    with Load(server.url()) as load:
        session = status(state)["sessions"][0]["tsih"]
        for stack in (
            "cache(ram=4M, ./a.img)",
            "throttle(iops=1000000, cache(ram=4M, ./a.img))",
            "throttle(iops=2000000, cache(ram=4M, ./a.img))",
            "concat(cache(ram=8M, ./a.img), ./b.img)",
            "./a.img",
        ):
            (files / "blockyard.toml").write_text(f"[volumes.a]\nstack = '{stack}'\n{target}")
            assert "volumes.a.stack" in blockyard(state, "reload")
            load.go_on()
            top = json.loads(blockyard(state, "layer", "show", "a", "--json"))["label"]
            assert top.split("(")[0] == ("file" if stack == "./a.img" else stack.split("(")[0])
        (files / "blockyard.toml").write_text(f"[volumes.a]\nstack = 'concat(./a.img, ./nowhere.img)'\n{target}")
        assert "nowhere.img" in run(state, "reload").stderr
        load.go_on()
        assert [each["tsih"] for each in status(state)["sessions"]] == [session]
    FileDevice(files / "b.img").close()  # nobody has it any more


def test_a_volume_is_moved_under_a_running_load(files: Path, serve: Callable[[str], Serving]) -> None:
    target = f'[targets."{IQN}"]\nluns = {{0 = "a"}}\n'
    server = serve(f'[volumes.a]\npath = "a.img"\n{target}')
    state = files / "state"
    new = files / "c.img"
    new.write_bytes(bytes(4 * MiB))
    before = status(state)["volumes"]["a"]["uuid"]
    assert "is used twice" in run(state, "layer", "move", "a", f"concat({files}/a.img)").stderr
    assert "there are 1M to be written" in run(state, "layer", "move", "a", "memory(1M)").stderr
    assert "has not been moved" in run(state, "layer", "finish", "a").stderr
    with Load(server.url()) as load:
        said = blockyard(state, "layer", "move", "a", f"throttle(iops=1000000, {new})")
        assert "a is on both" in said
        assert json.loads(blockyard(state, "layer", "show", "a", "--json"))["text"] == "in step"
        load.go_on()
        stack = said.split("stack = '")[1].split("'")[0]
        (files / "blockyard.toml").write_text(f"[volumes.a]\nstack = '{stack}'\n{target}")
        blockyard(state, "reload")
        load.go_on()
        FileDevice(files / "a.img").close()  # the old one is let go of
        assert json.loads(blockyard(state, "layer", "show", "a", "--json"))["label"] == "throttle(iops=1000000)"
        assert status(state)["volumes"]["a"]["uuid"] == before
    with Load(server.url()) as load:
        job = blockyard(state, "layer", "move", "a", f"delay(write=50ms, {files}/b.img)", "--no-wait").split()[1]
        blockyard(state, "layer", "cancel", job)
        load.go_on()
    server.restart()
    assert status(state)["volumes"]["a"]["uuid"] == before


def test_a_stack_that_is_gone_does_not_take_the_rest_with_it(files: Path, serve: Callable[[str], Serving]) -> None:
    targets = f'[targets."{IQN}"]\nluns = {{0 = "a", 1 = "b"}}\n'
    server = serve(f"[volumes.a]\nstack = 'concat(./a.img)'\n[volumes.b]\nstack = 'concat(./b.img)'\n{targets}")
    (files / "b.img").rename(files / "away")
    (worker,) = server.workers
    os.kill(worker, signal.SIGKILL)
    with connect(server.url(), timeout=120) as lun:
        assert lun.read(0, 1) == b"\1" * 512
        assert status(files / "state")["volumes"]["b"]["size"] == 0
        told = "b is not served, as it cannot be opened"
        eventually(lambda: told in blockyard(files / "state", "events"), "the event")  # they are written once a second
        (files / "away").rename(files / "b.img")
        eventually(lambda: status(files / "state")["volumes"]["b"]["size"], "the volume")
    with connect(server.url(1)) as lun:
        assert lun.read(0, 1) == b"\2" * 512
