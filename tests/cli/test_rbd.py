"""`blockyard rbd` on a cluster; what it has done is seen by Ceph's own `rbd`, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from blockyard.block.building import open_stack
from blockyard.cli.main import main
from tests.ceph import Ceph

MIB = 1 << 20
Run = Callable[..., str]


@pytest.fixture
def cli(ceph: Ceph, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `blockyard rbd WORDS` on the cluster: its output, on standard error too where another status than 0 is due."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        found = main(["rbd", *words, "--conf", str(ceph.conf)])
        printed = capsys.readouterr()
        assert found == status, printed.out + printed.err
        return printed.out + (printed.err if status else "")

    return run


def test_the_life_of_an_image(ceph: Ceph, cli: Run) -> None:
    cli("create", "rbd/life", "16M", "--object-size", "1M")
    assert "life" in cli("list", "rbd").split()
    assert "life" in json.loads(cli("list", "rbd", "--json"))
    assert "order 20" in ceph.rbd("info", "rbd/life")
    cli("resize", "rbd/life", "32M")
    assert "32 MiB" in ceph.rbd("info", "rbd/life")
    assert "get smaller" in cli("resize", "rbd/life", "8M", status=1)
    cli("resize", "rbd/life", "8M", "--shrink")
    assert json.loads(cli("show", "rbd/life", "--json"))["size"] == 8 * MIB
    assert "File exists" in cli("create", "rbd/life", "1M", status=1)
    assert "--yes" in cli("delete", "rbd/life", status=2)
    cli("delete", "rbd/life", "--yes")
    assert "life" not in ceph.rbd("ls").split()
    assert "No such file" in cli("show", "rbd/life", status=1)


def test_snapshots_and_clones(ceph: Ceph, cli: Run) -> None:
    cli("create", "rbd/base", "8M")
    with_base = f"rbd(rbd/base, conf={ceph.conf})"
    device = open_stack(with_base)
    device.pwritev([b"1" * 4096], 0)
    cli("snapshot", "rbd/base@one")  # while it is in use
    device.pwritev([b"2" * 4096], 0)
    device.pwritev([b"3" * 4096], 4 * MIB)
    assert json.loads(cli("diff", "rbd/base", "--since", "one", "--json")) == [
        {"offset": 0, "length": 4096},
        {"offset": 4 * MIB, "length": 4096},
    ]
    assert "A server has" in cli("rollback", "rbd/base@one", "--yes", status=1)
    device.close()
    cli("clone", "rbd/base@one", "rbd/copy")
    shown = json.loads(cli("show", "rbd/base", "--json"))
    assert [(each["name"], each["protected"], each["clones"]) for each in shown["snapshots"]] == [
        ("one", True, ["rbd/copy"])
    ]
    assert json.loads(cli("show", "rbd/copy", "--json"))["parent"] == "rbd/base@one"
    assert "clone of  rbd/base@one" in cli("show", "rbd/copy")
    assert "clones: rbd/copy" in cli("show", "rbd/base")
    assert "busy" in cli("delete", "rbd/base@one", "--yes", status=1)
    cli("flatten", "rbd/copy")
    assert not json.loads(cli("show", "rbd/copy", "--json"))["parent"]
    cli("rollback", "rbd/base@one", "--yes")
    device = open_stack(with_base)
    data = bytearray(8 * MIB)
    device.preadv([memoryview(data)], 0)
    device.close()
    assert data == b"1" * 4096 + bytes(8 * MIB - 4096)
    cli("unprotect", "rbd/base@one")
    cli("protect", "rbd/base@one")
    cli("delete", "rbd/base@one", "--yes")
    assert not ceph.rbd("snap", "ls", "rbd/base").strip()


def test_who_has_an_image_can_be_fenced_off(ceph: Ceph, cli: Run) -> None:
    device = open_stack(f"rbd({ceph.image('held', '4M')}, conf={ceph.conf})")
    assert "a server has it" in cli("show", "rbd/held")
    cli("unlock", "rbd/held", "--yes")
    with pytest.raises(OSError, match="taken the image over"):
        device.pwritev([bytes(512)], 0)
    assert "nobody had" in cli("unlock", "rbd/held", "--yes")
    device.close()


def test_what_makes_no_sense_is_refused(cli: Run, ceph: Ceph) -> None:
    for words in (
        ("show", "nothing"), ("snapshot", "rbd/a"), ("show", "rbd/a@b"), ("clone", "rbd/a@b", "rbd/c@d"),
        ("create", "rbd/a", "many"),
        ("create", "rbd/a", "1M", "--object-size", "3M"),
    ):  # fmt: skip
        cli(*words, status=2)
    assert "none" in cli("list", "none", status=1)
    assert main(["rbd", "list", "rbd", "--conf", f"{ceph.directory}/none"]) == 1
