"""Records of plain tables: strict, and errors that say where and what."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.records import RecordError, read, write
from blockyard.worker.configuration import Configuration, Pool, PortalGroup, Target, Volume, components


@dataclass(frozen=True)
class Wheel:
    name: str
    inches: int = 28
    flat: bool = False


@dataclass(frozen=True)
class Bell:
    tone: str

    def __post_init__(self) -> None:
        if not self.tone:
            raise ValueError("a bell has a tone")


@dataclass(frozen=True)
class Bicycle:
    frame: str
    wheels: dict[str, Wheel] = field(default_factory=dict)
    spokes: dict[int, str] = field(default_factory=dict)
    gears: tuple[int, ...] = ()
    bell: Bell | None = None


def test_a_record_of_all_kinds() -> None:
    text = """
    frame = "steel"
    gears = [3, 7]
    spokes = {0 = "a", 17 = "b"}
    bell = {tone = "ding"}
    [wheels.front]
    inches = 26
    [wheels."the rear"]
    flat = true
    """
    made = read(Bicycle, tomllib.loads(text))
    assert made == Bicycle(
        "steel",
        {"front": Wheel("front", 26), "the rear": Wheel("the rear", flat=True)},
        {0: "a", 17: "b"},
        (3, 7),
        Bell("ding"),
    )
    assert write(made) == {
        "frame": "steel",
        "wheels": {"front": {"inches": 26}, "the rear": {"flat": True}},
        "spokes": {"0": "a", "17": "b"},
        "gears": [3, 7],
        "bell": {"tone": "ding"},
    }


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({}, "frame: it is missing"),
        ({"frame": 1}, "frame: 1 is not a text"),
        ({"frame": "x", "gears": [1, True]}, "gears[1]: true is not a whole number"),
        ({"frame": "x", "gears": 3}, "gears: 3 is not a list"),
        ({"frame": "x", "bell": {"tone": ""}}, "bell: a bell has a tone"),
        ({"frame": "x", "whels": {}}, "whels: there is no such key; did you mean wheels?"),
        ({"frame": "x", "horn": {}}, "horn: there is no such key; there are frame, wheels, spokes, gears, bell"),
        ({"frame": "x", "wheels": {"a b": {"inches": "26"}}}, 'wheels."a b".inches: "26" is not a whole number'),
        ({"frame": "x", "wheels": {"a": 5}}, "wheels.a: 5 is not a table"),
        ({"frame": "x", "wheels": {"a": {"name": "b"}}}, "wheels.a.name: the name is the key already"),
        ({"frame": "x", "spokes": {"01": "a"}}, "spokes.01: the key is not a whole number"),
        ({"frame": "x", "spokes": {"-1": "a"}}, "spokes.-1: the key is not a whole number"),
        ({"frame": "x", "bell": {"tone": False}}, "bell.tone: false is not a text"),
        ({"frame": "x" * 100, "gears": ["y" * 100]}, "yyy… is not a whole number"),
        ([], "[] is not a table"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(table: object, error: str) -> None:
    with pytest.raises(RecordError) as caught:
        read(Bicycle, table)
    assert error in str(caught.value)


_names = st.text(min_size=1, max_size=8)
_volumes = st.builds(Volume, name=_names, path=st.text(), block_size=st.integers(), read_only=st.booleans())
_targets = st.builds(Target, name=_names, luns=st.dictionaries(st.integers(0, 16383), _names), alias=st.text())


_groups = st.dictionaries(st.integers(0, 65535), st.builds(PortalGroup, st.tuples(st.text())))


@given(st.lists(_volumes), st.lists(_targets), _groups)
def test_a_configuration_survives_being_sent(
    volumes: list[Volume], targets: list[Target], groups: dict[int, PortalGroup]
) -> None:
    configuration = Configuration(
        groups, {volume.name: volume for volume in volumes}, {target.name: target for target in targets}
    )
    assert read(Configuration, json.loads(json.dumps(write(configuration)))) == configuration


def test_targets_that_share_volumes_or_pools_belong_together() -> None:
    shares = {"a": "1", "b": "2", "c": "13", "d": "45", "e": "52", "f": "", "g": "x", "h": "y"}
    pools = {"x": "fast", "y": "fast"}
    configuration = Configuration(
        volumes={name: Volume(name, pool=pools.get(name, "")) for name in "12345xy"},
        targets={name: Target(name, dict(enumerate(volumes))) for name, volumes in shares.items()},
        pools={name: Pool(name, "") for name in ("fast", "idle")},
    )
    assert sorted(sorted([*together.targets, *together.pools]) for together in components(configuration)) == [
        ["a", "c"], ["b", "d", "e"], ["f"], ["fast", "g", "h"], ["idle"],
    ]  # fmt: skip
