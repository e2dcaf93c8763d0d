"""`blockyard serve --config`: what the file says is what initiators find."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.initiator import LoginError, ScsiError, connect
from blockyard.iscsi.pdu import LoginStatus
from tests.conftest import need, run
from tests.control.serving import discover, log_in, serve
from tests.serving import free_port

ONE, TWO = "iqn.2026-11.test:one", "iqn.2026-11.test:two"


def test_groups_aliases_shared_volumes_and_redirects(tmp_path: Path) -> None:
    first, second = (f"127.0.0.{number}:{free_port()}" for number in (1, 2))
    (tmp_path / "blockyard.toml").write_text(f"""
    portal_groups = {{1 = {{portals = ["{first}"]}}, 7 = {{portals = ["{second}"]}}}}
    [volumes.shared]
    path = "shared.img"
    size = "8M"
    [volumes.own]
    path = "own.img"
    size = "4M"
    block_size = 4096
    [targets."{ONE}"]
    alias = "The first"
    luns = {{0 = "shared", 300 = "own"}}
    [targets."{TWO}"]
    portal_groups = [7, 1]
    luns = {{5 = "shared"}}
    redirect = {{to = "{second}", portals = ["{first}"]}}
    """)
    with serve(tmp_path / "s", "--config", str(tmp_path / "blockyard.toml"), "--workers", "4", portal=None) as served:
        assert served.targets == [ONE, TWO]
        assert len(served.workers()) == 1, "targets that share a volume belong to one worker"
        assert discover(served.address) == [
            ("TargetName", ONE), ("TargetAddress", f"{first},1"),
            ("TargetName", TWO), ("TargetAddress", f"{first},1"), ("TargetAddress", f"{second},7"),
        ]  # fmt: skip
        sock, response = log_in(served.address, ONE)
        assert b"TargetAlias=The first\0TargetPortalGroupTag=1\0" in bytes(response.data)
        sock.close()
        with connect(f"iscsi://{first}/{ONE}/0") as lun, connect(f"iscsi://{second}/{TWO}/5") as same:
            lun.write(0, b"x" * 512)
            assert same.read(0, 1) == b"x" * 512
        with connect(f"iscsi://{first}/{ONE}/300") as own:
            assert (own.block_size, own.capacity().size) == (4096, 4 << 20)
        with pytest.raises(LoginError) as error:
            connect(f"iscsi://{second}/{ONE}/0")
        assert error.value.status == LoginStatus.NOT_FOUND
        with connect(f"iscsi://{first}/{TWO}/5") as redirected:
            assert redirected.session.parameters.target_portal_group_tag == 7
            with pytest.raises(ScsiError):
                redirected.write(1 << 40, bytes(512))
        for program, package, *words in (("iscsi-inq", "libiscsi-bin"), ("qemu-img", "qemu-utils", "info")):
            told = run([need(program, package), *words, f"iscsi://{first}/{TWO}/5"]).stdout
            assert "BLOCKYRD" in told or "virtual size: 8 MiB" in told, "they follow the redirection"
        assert served.stop() == 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["disk.img"], "disk.img: with --config, volumes stand in the file"),
        (["--size", "1G"], "--size: with --config, this stands in the file"),
        (["--read-only"], "--read-only: with --config, this stands in the file"),
    ],
)
def test_options_that_the_file_has_in_it(
    option: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").touch()
    assert main(["serve", "--config", str(tmp_path / "f"), *option]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("volume", "content", "message"),
    [
        ("", None, 'does not exist: to create it, give its size, for example size = "10G"'),
        ("size = 4096", 8192, "not 4 KiB: leave out `size`; shrinking would cut off data"),
        ("read_only = true", None, "does not exist"),
    ],
)
def test_volumes_that_cannot_be_served(
    volume: str, content: int | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "disk.img").write_bytes(bytes(content))
    file = tmp_path / "blockyard.toml"
    file.write_text(f"[volumes.fresh]\npath = 'fresh.img'\nsize = '1M'\n[volumes.a]\npath = 'disk.img'\n{volume}\n")
    assert main(["serve", "--config", str(file), "--state", str(tmp_path / "s"), "--portal", "127.0.0.1:0"]) == 4
    assert message in capsys.readouterr().err
    assert not (tmp_path / "fresh.img").exists(), "nothing is made when anything is wrong"


def test_a_file_grows_to_the_size_that_it_shall_have(tmp_path: Path) -> None:
    file = tmp_path / "blockyard.toml"
    (tmp_path / "disk.img").write_bytes(b"x" * 4096)
    file.write_text(f"[volumes.a]\npath = 'disk.img'\nsize = '1M'\n[targets.'{ONE}']\nluns = {{0 = 'a'}}\n")
    with serve(tmp_path / "s", "--config", str(file)) as served:
        with connect(f"iscsi://{served.portals[0]}/{ONE}/0") as lun:
            assert lun.capacity().size == 1 << 20
            assert lun.read(7, 2) == b"x" * 512 + bytes(512)
        assert served.stop() == 0
