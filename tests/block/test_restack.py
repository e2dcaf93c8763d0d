"""Another stack in the place of one that is in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.block import kinds
from blockyard.block.building import open_stack, understood, walk, written
from blockyard.block.device import Device
from blockyard.block.filter import Filter
from blockyard.block.layers import Absent, Kind, Opening
from blockyard.block.restack import Failed, common, plan
from blockyard.block.stack import StackError


@dataclass(frozen=True)
class _Options:
    fail: bool = False
    stuck: bool = False
    once: bool = False


class _Layer(Filter):
    def __init__(self, below: Device, options: _Options) -> None:
        super().__init__(below)
        self.options, self.detached, self.closed = options, 0, 0

    def detach(self) -> None:
        if self.options.stuck:
            raise OSError("it is stuck")
        self.detached += 1

    def close(self) -> None:
        self.closed += 1
        super().close()


class _Rigid(_Layer):
    detach = Device.detach


def _open(children: Sequence[Device], options: _Options, opening: Opening) -> Device:
    if options.fail:
        raise OSError("no")
    if options.once:
        if _OPENED:
            raise OSError("only once")
        _OPENED.append(1)
    return _Layer(children[0], options)


_OPENED: list[int] = []


@pytest.fixture(autouse=True)
def layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    rows = (
        Kind("layer", "Any.", _open, _Options),
        Kind(
            "rigid", "Cannot be taken out.", lambda children, options, opening: _Rigid(children[0], options), _Options
        ),
    )
    monkeypatch.setitem(globals(), "KINDS", rows)
    for row in rows:
        monkeypatch.setitem(kinds.MODULES, row.name, __name__)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode() * 8192)
    _OPENED.clear()
    return str(tmp_path)


def _changed(old: Device, text: str) -> Device:
    return plan(old, understood(text), Opening()).carry_out()


def _first(device: Device) -> bytes:
    data = bytearray(512)
    device.preadv([memoryview(data)], 0)
    return bytes(data[:1])


def test_a_layer_comes_and_goes(layers: str) -> None:
    bottom = open_stack(f"concat({layers}/a, {layers}/b)")
    text = written(bottom)
    above = _changed(bottom, f"layer({text})")
    assert above.children[0] is bottom
    assert written(above) == f"layer({text})"
    other = _changed(above, f"throttle(iops=5, layer({text}))")
    assert other.children[0] is above
    assert _changed(other, text) is bottom
    assert isinstance(above, _Layer)
    assert (above.detached, above.closed) == (1, 0)
    assert _first(bottom) == b"a"
    bottom.close()
    open_stack(f"{layers}/a").close()


def test_what_is_not_needed_any_more_is_closed(layers: str) -> None:
    old = open_stack(f"layer(concat({layers}/a, layer({layers}/b)))")
    kept = old.children[0].children[0]
    new = _changed(old, f"concat({layers}/a, {layers}/c)")
    assert new.children[0] is kept
    open_stack(f"{layers}/b").close()
    assert _first(new) == b"a"
    new.close()


@pytest.mark.parametrize("what", ["layer(fail=true, {a})", "concat({a}, layer(fail=true, {b}))", "concat({a}, {b}, {c}.not)",
                                  "slice(offset=1G, {a})"])  # fmt: skip
def test_what_fails_leaves_the_old_one(layers: str, what: str) -> None:
    paths = {name: f"{layers}/{name}" for name in ("a", "b", "c")}
    old = open_stack(f"layer(concat({paths['a']}, {paths['b']}))")
    text, leaf = written(old), old.children[0].children[0]
    try:
        device = _changed(old, what.format(**paths))
    except Failed as failed:
        device = failed.device
    except (OSError, StackError):  # what stands on nothing that is kept is opened beforehand
        device = old
    assert written(device) == text
    assert leaf in walk(device)
    assert _first(device) == b"a"
    for name in ("c",):
        open_stack(paths[name]).close()
    device.close()
    open_stack(paths["a"]).close()


def test_a_layer_that_does_not_let_go(layers: str) -> None:
    old = open_stack(f"layer(layer(stuck=true, {layers}/a))")
    with pytest.raises(Failed, match="stuck") as failed:
        _changed(old, f"{layers}/a")
    assert written(failed.value.device) == written(old)
    assert failed.value.device.children[0] is old.children[0]
    failed.value.device.children[0].children[0].close()
    rigid = open_stack(f"rigid({layers}/a)")
    assert not common(rigid, understood(f"{layers}/a"))
    assert common(rigid, understood(f"layer(rigid({layers}/a))")) == [rigid]
    rigid.children[0].close()


def test_when_there_is_no_way_back(layers: str) -> None:
    old = open_stack(f"layer(once=true, {layers}/a)")
    with pytest.raises(Failed, match="no") as failed:
        _changed(old, f"layer(fail=true, {layers}/a)")
    device = failed.value.device
    assert isinstance(device, Absent)
    assert device.size == old.size
    with pytest.raises(OSError, match="only once"):
        _first(device)


def test_two_that_are_written_alike_both_stay() -> None:
    old = open_stack("concat(memory(1M), memory(1M))")
    for number, child in enumerate(old.children):
        child.pwritev([bytes([number + 1]) * 512], 0)
    new = _changed(old, "layer(concat(memory(1M), memory(1M)))")
    assert new.children[0] is old
    again = _changed(new, "concat(memory(1M), memory(1M), memory(1M))")
    assert sorted(_first(child) for child in again.children) == [b"\0", b"\1", b"\2"]
