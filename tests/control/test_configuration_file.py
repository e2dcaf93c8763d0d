"""The configuration file: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.size import Size
from blockyard.cli.main import main
from blockyard.control.configuration_file import dump, load
from blockyard.control.consistency import checked
from blockyard.control.errors import ConfigurationError
from blockyard.iscsi.access import Rule
from blockyard.worker.configuration import Configuration, PortalGroup, Redirect, Target, Volume

COMPLETE = """
[portal_groups.1]
portals = ["192.0.2.1:3260", "[2001:DB8::1]"]

[portal_groups.2]
portals = ["0.0.0.0:3261"]

[volumes.db]
path = "disks/db.img"
size = "10G"
block_size = 4096

[volumes."the archive"]
path = "/dev/disk/by-id/archive"
read_only = true

[targets."iqn.2026-11.org.Example:one"]
alias = "Databases"
portal_groups = [1, 2]
luns = {0 = "db", 300 = "the archive", 301 = "db"}

[[targets."iqn.2026-11.org.Example:one".access]]
right = "read-only"
addresses = ["192.0.2.0/24"]
luns = {5 = "db"}

[targets."eui.02004567a425678d"]
redirect = {to = "store2.example.org", permanent = true}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "blockyard.toml"
    path.write_text(text)
    return path


def test_all_that_a_file_can_say(tmp_path: Path) -> None:
    one, two = "iqn.2026-11.org.example:one", "eui.02004567a425678d"
    assert load(write(tmp_path, COMPLETE)) == Configuration(
        {1: PortalGroup(("192.0.2.1:3260", "[2001:db8::1]:3260")), 2: PortalGroup(("0.0.0.0:3261",))},
        {
            "db": Volume("db", str(tmp_path / "disks/db.img"), Size(10 << 30), block_size=4096),
            "the archive": Volume("the archive", "/dev/disk/by-id/archive", read_only=True),
        },
        {
            one: Target(
                one, {0: "db", 300: "the archive", 301: "db"}, "Databases", (1, 2),
                (Rule("read-only", addresses=("192.0.2.0/24",), luns={5: "db"}),),
            ),
            two: Target(two, redirect=Redirect("store2.example.org:3260", permanent=True)),
        },
    )  # fmt: skip


def test_an_empty_file_serves_on_loopback(tmp_path: Path) -> None:
    assert load(write(tmp_path, "")) == Configuration({1: PortalGroup(("127.0.0.1:3260",))})
    portals = ("192.0.2.1:3260",)
    assert load(write(tmp_path, ""), portals=portals).portal_groups == {1: PortalGroup(portals)}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("targets = [", "is not TOML: "),
        ("[volume.a]", "volume: there is no such key; did you mean volumes?"),
        ("[server]", "server: there is no such key; there are portal_groups, volumes, targets"),
        ("relative_ports = {}", "relative_ports: there is no such key"),
        ("portal_groups = 1", "portal_groups: 1 is not a table"),
        ("[portal_groups.a]\nportals = []", "portal_groups.a: the key is not a whole number"),
        ("[portal_groups.0]\nportals = ['::1']", "portal_groups.0: the tag of a portal group is from 1 to 65535"),
        ("[portal_groups.1]", "portal_groups.1.portals: it is missing"),
        ("[portal_groups.1]\nportals = []", "portal_groups.1.portals: a group has one portal at least"),
        ("[portal_groups.1]\nportals = ['host']", "portal_groups.1.portals[0]: 'host' has no IP address"),
        ("[portal_groups.1]\nportals = ['192.0.2.1:x']", "portals[0]: '192.0.2.1:x' has no port from 0 to 65535"),
        (
            "[portal_groups.1]\nportals = ['[2001:db8::1]']\n[portal_groups.2]\nportals = ['2001:DB8:0::1']",
            "portal_groups.2.portals[0]: [2001:db8::1]:3260 stands at portal_groups.1.portals[0] already",
        ),
        (
            "[portal_groups.1]\nportals = ['192.0.2.1', '0.0.0.0']",
            "portals[1]: 0.0.0.0:3260 takes all addresses with this port, and portal_groups.1.portals[0] has another",
        ),
        ("[volumes.a]", "volumes.a.path: it is missing"),
        ("[volumes.a]\npath = ''", "volumes.a.path: it is missing: name a file"),
        ("[volumes.a]\npath = 'x'\nname = 'b'", "volumes.a.name: the name is the key already"),
        ("[volumes.'']\npath = 'x'", 'volumes."": the name of a volume has 1 to 64 characters'),
        ("[volumes.a]\npath = 'x'\nblock_size = 1024", "volumes.a.block_size: 1024 is neither 512 nor 4096"),
        ("[volumes.a]\npath = 'x'\nprotection = 4", "volumes.a.protection: 4 is not a type of protection information, or 0"),
        ("[volumes.a]\npath = 'x'\nblock_size = 512.0", "volumes.a.block_size: 512.0 is not a whole number"),
        ("[volumes.a]\npath = 'x'\nsize = 'much'", "volumes.a.size: 'much' is not a size"),
        ("[volumes.a]\npath = 'x'\nsize = 1000", "volumes.a.size: 1000 bytes are not a multiple of the block size 512"),
        ("[volumes.a]\npath = 'x'\nread_only = 1", "volumes.a.read_only: 1 is not true or false"),
        ("[volumes.a]\npath = 'x'\nuuid = '5'", "volumes.a.uuid: '5' is not a UUID, such as"),
        (
            "[volumes.a]\npath='x'\nuuid='5e3a7c1e6f0b4c559a390f0c9a2d7b11'\n"
            "[volumes.b]\npath='y'\nuuid='{5E3A7C1E-6F0B-4C55-9A39-0F0C9A2D7B11}'",
            "volumes.b.uuid: a has the same: initiators would take the two for one disk",
        ),
        ("[targets.disk]", "targets.disk: 'disk' is not an iSCSI name; it should look like iqn."),
        ("[targets.'iqn.2026-11.a:x']\n[targets.'IQN.2026-11.a:x']", "stands here twice: names do not differ by case"),
        ("[targets.'iqn.2026-11.a:x']\n[targets.'iqn.2026-11.a:x']", "is not TOML: "),
        ("[targets.'iqn.2026-11.a:x']\nalias = 'a\\b'\nname = 'x'", 'targets."iqn.2026-11.a:x".name: the name is'),
        ("[targets.'iqn.2026-11.a:x']\nalias = \"\\u0007\"", "alias: an alias has at most 255 bytes, all of them"),
        ("[targets.'iqn.2026-11.a:x']\nportal_groups = []", "portal_groups: a target is reached by one portal group"),
        ("[targets.'iqn.2026-11.a:x']\nportal_groups = [1, 2]", "portal_groups[1]: there is no portal group 2; there are: 1"),
        ("[targets.'iqn.2026-11.a:x']\nportal_groups = [1, 1]", "portal_groups[1]: the portal group 1 stands here twice"),
        ("[targets.'iqn.2026-11.a:x']\nmax_connections = 17", "max_connections: 17 is not from 1 to 16"),
        ("[targets.'iqn.2026-11.a:x']\nluns = {16384 = 'a'}", "luns.16384: a LUN is from 0 to 16383"),
        (
            "[volumes.data]\npath='x'\n[targets.'iqn.2026-11.a:x']\nluns = {0 = 'dat'}",
            "luns.0: there is no volume 'dat'; did you mean 'data'?",
        ),
        ("[targets.'iqn.2026-11.a:x']\nluns = {0 = 'a b'}", "luns.0: there is no volume 'a b': add [volumes.\"a b\"]"),
        ("[targets.'iqn.2026-11.a:x']\nredirect = {to = '::1:x'}", "redirect.to: '::1:x' is not an IPv6 portal"),
        ("[targets.'iqn.2026-11.a:x']\nredirect = {}", "redirect.to: it is missing"),
        ("[[targets.'iqn.2026-11.a:x'.access]]\nright='all'", "access[0]: a right is one of full, read-only"),
        ("[[targets.'iqn.2026-11.a:x'.access]]\nluns={7='q'}", "access[0].luns.7: there is no volume 'q'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(
    text: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, text)
    assert main(["config", "check", str(path)]) == 6
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"blockyard: {path}")
    assert printed.err.count("\n") == 1
    assert error in printed.err


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, error in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=error):
            load(path)
    (tmp_path / "latin").write_bytes(b'# caf\xe9\n[volumes.a]\npath="x"')
    with pytest.raises(ConfigurationError, match="byte 5 is not UTF-8"):
        load(tmp_path / "latin")


def test_portals_stand_in_one_place_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave out --portal"):
        load(write(tmp_path, COMPLETE), portals=("127.0.0.1:3260",))


def test_a_checked_file_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, COMPLETE)
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 2 targets, 2 volumes, 3 portals\n"
    assert main(["config", "check", "--print", str(path)]) == 0
    assert load(write(tmp_path, capsys.readouterr().out)) == load(write(tmp_path, COMPLETE))


_names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=64)
_targets = st.integers(0, 9999).map(lambda number: f"iqn.2026-11.org.example:{number}")


@st.composite
def _configurations(draw: st.DrawFn) -> Configuration:
    groups = draw(st.dictionaries(st.integers(1, 65535), st.integers(1, 65535), min_size=1, max_size=3))
    volumes = draw(st.lists(_names, unique=True, max_size=4))
    luns = st.dictionaries(st.integers(0, 16383), st.sampled_from(volumes)) if volumes else st.just({})
    return Configuration(
        {tag: PortalGroup((f"127.0.{number}.1:{port}",)) for number, (tag, port) in enumerate(groups.items())},
        {
            name: Volume(
                name, "/" + draw(_names), Size(draw(st.integers(0, 1 << 50)) * 512), read_only=draw(st.booleans())
            )
            for name in volumes
        },
        {
            name: Target(
                name,
                draw(luns),
                portal_groups=tuple(draw(st.lists(st.sampled_from(sorted(groups)), min_size=1, unique=True))),
                redirect=draw(st.none() | st.just(Redirect("192.0.2.1:1", portals=("192.0.2.2:3",)))),
                access=tuple(draw(st.lists(st.builds(Rule, initiators=st.just(("iqn.*",)), luns=luns), max_size=2))),
            )
            for name in draw(st.lists(_targets, unique=True, max_size=3))
        },
    )  # fmt: skip


@given(configuration=_configurations())
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, configuration: Configuration) -> None:
    configuration = checked(configuration)
    path = write(tmp_path_factory.getbasetemp(), dump(configuration))
    found = load(path)
    names = found.volumes.keys()
    assert found.portal_groups == configuration.portal_groups
    assert found.targets == configuration.targets
    assert names == configuration.volumes.keys()
    assert all(found.volumes[name].size == configuration.volumes[name].size for name in names)
