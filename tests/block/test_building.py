"""Stacks that are checked, opened and looked at."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.block import kinds
from blockyard.block.building import Claim, build, found, health, open_stack, tree, understood
from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.block.layers import MANY, Absent, Kind, Opening
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size
from blockyard.block.stack import StackError, Word, parse

_NONE = Size(0)


@dataclass(frozen=True)
class _Options:
    size: Size = _NONE
    ratio: float = 0.0
    many: tuple[int, ...] = ()
    on: bool = False
    text: str = ""

    def __post_init__(self) -> None:
        if self.ratio > 1:
            raise ValueError("a ratio is at most 1")


class _Pair(MemoryDevice):
    """A layer of the tests: the first of its children, with what it was given."""

    def __init__(self, children: Sequence[Device], options: _Options, opening: Opening) -> None:
        super().__init__(512)
        self.children, self.options, self.opening = children, options, opening
        self.closed = 0

    def report(self) -> dict[str, object]:
        return {"health": self.options.text} if self.options.text else {}

    def close(self) -> None:
        self.closed += 1
        for child in self.children:
            child.close()


def _refuse(children: Sequence[Device], options: object, opening: Opening) -> Device:
    raise ValueError("not today")


@pytest.fixture(autouse=True)
def kinds_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        Kind("pair", "Any.", _Pair, _Options, (1, MANY)),
        Kind("patient", "Any, with what is missing.", _Pair, _Options, (1, 2), absent=True),
        Kind("refuses", "None.", _refuse),
    )
    monkeypatch.setitem(globals(), "KINDS", rows)
    for row in rows:
        monkeypatch.setitem(kinds.MODULES, row.name, __name__)


def _opened(text: str, opening: Opening | None = None) -> _Pair:
    device = open_stack(text, opening)
    assert isinstance(device, _Pair)
    return device


def test_options_have_their_types(tmp_path: Path) -> None:
    top = _opened("pair(size=1G, ratio=1, many=[1, 2], on=true, text=12, memory(4K), memory(size=1M))")
    assert top.options == _Options(Size(1 << 30), 1.0, (1, 2), True, "12")
    assert [child.size for child in top.children] == [4096, 1 << 20]
    assert [child.label for child in top.children] == ["memory(4K)", "memory(1M)"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("piar(memory(1M))", "no kind of layer 'piar'; did you mean pair?"),
        ("xyzzy(memory(1M))", "there are auto, "),
        ("pair()", "pair stands on at least 1 layers, not on 0"),
        ("refuses(memory(1M), memory(1M))", "refuses stands on 1 layers, not on 2"),
        ("patient(a, b, c)", "1 to 2 layers, not on 3"),
        ("memory(1M, 2M)", "memory has one size"),
        ("memory(1M, size=2M)", "memory has one size"),
        ("memory()", "memory: size: it is missing"),
        ("memory(1000)", "memory: the size of memory is a multiple of 512"),
        ("pair(ratoi=1, a)", "pair: ratoi: there is no such key; did you mean ratio?"),
        ("pair(ratio=2, a)", "pair: a ratio is at most 1"),
        ("pair(ratio=x, a)", "pair: ratio: \"x\" is not a number"),
        ("pair(on=1, a)", "pair: on: \"1\" is not true or false"),
        ("pair(many=[1, x], a)", "pair: many\\[1\\]: \"x\" is not a whole number"),
        ("pair(many=1, a)", "pair: many: \"1\" is not a list"),
        ("pair(/a, pair(file(/a)))", "/a is used twice"),
        ("pool(x)", "'x' is not POOL/VOLUME"),
        ('file("")', "a path has one character"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_unopened(text: str, problem: str) -> None:
    with pytest.raises(StackError, match=problem):
        understood(text)


def test_names_are_of_declared_layers() -> None:
    declared = {"a": parse("pair(b)"), "b": Word("/dev/b"), "c": parse("pair(d)"), "d": parse("pair(c)")}
    assert list(understood("pair(a)", declared).claims()) == [Claim("file:/dev/b")]
    with pytest.raises(StackError, match="stands on itself"):
        understood("c", declared)
    with pytest.raises(
        StackError, match=re.escape("there is no layer 'x': declare [layers.x], or write ./x for a file")
    ):
        understood("pair(x)", declared)
    assert list(understood("pair(x)").claims()) == [Claim(f"file:{Path.cwd()}/x")]


def test_files_are_opened_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "with space.img"
    path.write_bytes(bytes(4096))
    device = open_stack(f'"{path}"', Opening(read_only=True))
    assert isinstance(device, FileDevice)
    assert device.read_only
    device.close()


def test_what_fails_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(bytes(4096))
    with pytest.raises(OSError, match="No such file"):
        open_stack(f"pair({path}, pair({tmp_path}/b.img))")
    with pytest.raises(StackError, match="refuses: not today"):
        open_stack(f"pair(refuses({path}))")
    FileDevice(path).close()  # it is locked by nobody


def test_a_layer_may_live_without_a_child(tmp_path: Path) -> None:
    told: list[str] = []
    opening = Opening(notify=lambda severity, what, text: told.append(f"{severity} {what} {text}"))
    top = _opened(f"patient(memory(1M), {tmp_path}/b.img)", opening)
    missing = top.children[1]
    assert isinstance(missing, Absent)
    assert health(top) == "failed"
    assert told[0].startswith(f'error layer-not-open file("{tmp_path}/b.img") is left out of patient: ')
    with pytest.raises(OSError, match="is not there: No such file") as error:
        missing.preadv([memoryview(bytearray(512))], 0)
    assert error.value.errno == errno.ENOENT


def test_layers_open_others() -> None:
    top = _opened("pair(memory(1M))")
    assert top.opening.open("memory(2M)").size == 2 << 20
    with pytest.raises(OSError, match="no pool is open"):
        open_stack("pool(fast/vm)")
    opening = Opening(volume=lambda name: MemoryDevice(len(name) * 512))
    assert open_stack("pool(fast/vm)", opening).size == 7 * 512


def test_health_and_tree() -> None:
    top = _opened("pair(pair(text=rebuilding, pair(text=failed, memory(1M))), pair(pair(text=degraded, memory(1M))))")
    assert health(top) == "degraded"
    assert health(top.children[0]) == "rebuilding"
    shown = tree(top)
    assert (shown["label"], shown["health"], len(shown["children"])) == ("pair", "degraded", 2)
    assert shown["children"][0]["label"] == "pair(text=rebuilding)"


def test_layers_are_found() -> None:
    top = _opened("pair(patient(memory(1M)), pair(memory(2M)))")
    assert found(top, "") is top
    assert found(top, "patient") is top.children[0]
    assert found(top, "1/0") is found(top, "1/memory") is top.children[1].children[0]
    for path, problem in (("2", "there is no 2"), ("memory", "2 layers of kind 'memory'"), ("vhd", "no layer of kind")):
        with pytest.raises(OSError, match=problem):
            found(top, path)


def test_every_kind_is_described() -> None:
    for kind in kinds.kinds():
        assert kind.text.endswith(".")
        if kind.example:
            assert understood(kind.example).kind is kind
    assert build(understood("memory(1M)"), Opening()).size == 1 << 20
