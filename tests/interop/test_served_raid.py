"""Arrays that are served: QEMU writes and verifies while members go and come, and after everything has been killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.conftest import TargetFactory, need, run
from tests.serving import IQN
from tests.waiting import eventually

MIB = 1 << 20


def qemu_io(url: str, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    output = run([need("qemu-io", "qemu-utils qemu-block-extra"), "-f", "raw", *words, url]).stdout
    assert "Pattern verification failed" not in output, output


def configured(level: int, members: str) -> str:
    return f"[volumes.mail]\nstack = 'raid{level}({members})'\n[targets.'{IQN}']\nluns = {{0 = 'mail'}}\n"


@pytest.mark.parametrize("level", [1, 6])
def test_members_go_and_come_while_qemu_verifies(
    level: int, target: TargetFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def do(*words: str) -> str:
        capsys.readouterr()
        status = main([*words, "--state", str(tmp_path / "state-0")])
        printed = capsys.readouterr()
        assert not status, printed.out + printed.err
        return printed.out

    def shown() -> dict:  # type: ignore[type-arg]
        return json.loads(do("layer", "show", "mail", "--json"))  # type: ignore[no-any-return]

    def settled() -> None:
        eventually(lambda: (now := shown())["health"] == "ok" and "progress" not in now, "it is whole")

    paths = [tmp_path / name for name in "abcdef"]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(24 * MIB)
    members = ", ".join(map(str, paths[:4]))
    do("layer", "create", f"raid{level}(name=mail, {members})")
    serving = target(config=configured(level, members))
    qemu_io(serving.url(), "write -P 0x11 0 16M", "write -P 0x22 5M 12k", "flush")
    do("layer", "do", "mail", "fail", "member=1")
    assert shown()["health"] == "degraded"
    qemu_io(serving.url(), "read -P 0x22 5M 12k", "write -P 0x33 7M 256k", "read -P 0x11 8M 4M", "flush")
    do("layer", "do", "mail", "add", f"device={paths[4]}")
    settled()
    do("layer", "do", "mail", "replace", "member=0", f"by={paths[5]}")
    qemu_io(serving.url(), "write -P 0x44 1M 1M", "read -P 0x33 7M 256k")
    settled()
    assert "in line" in do("layer", "do", "mail", "scrub")
    serving.kill()
    # the two that have gone are left out by themselves
    (tmp_path / "serve-0.toml").write_text(configured(level, ", ".join(map(str, paths))))
    serving.restart()
    qemu_io(serving.url(), "read -P 0x11 0 1M", "read -P 0x44 1M 1M", "read -P 0x22 5M 12k", "read -P 0x33 7M 256k")
    serving.stop()
