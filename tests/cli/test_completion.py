"""What shells complete by, in the shells themselves, and the manual pages, as those who read manual pages read them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.conftest import need, run


def script(tmp_path: Path, shell: str, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", shell]) == 0
    path = tmp_path / ("_blockyard" if shell == "zsh" else f"blockyard.{shell}")
    path.write_text(capsys.readouterr().out)
    return path


def test_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, "bash", capsys)
    (tmp_path / "disk.img").touch()
    program = f"""
        set -u; source {path}; cd {tmp_path}
        complete_words() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _blockyard; echo "${{COMPREPLY[*]-}}"; }}
        complete_words blockyard tar
        complete_words blockyard target ''
        complete_words blockyard target create --al
        complete_words blockyard tape library cr
        complete_words blockyard serve --format q
        complete_words blockyard serve dis
        complete -p blockyard
    """
    shown = run([need("bash", "bash"), "--norc", "-c", program]).stdout.splitlines()
    assert shown == [
        "target",
        "create set delete list show",
        "--alias",
        "create",
        "qcow2 qcow qed",
        "disk.img",
        "complete -F _blockyard blockyard",
    ]


def test_fish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, "fish", capsys)

    def completed(line: str) -> list[str]:
        command = [need("fish", "fish"), "--no-config", "-c", f"source {path}; complete -C {line!r}"]
        return [row.partition("\t")[0] for row in run(command, environment={"HOME": str(tmp_path)}).stdout.splitlines()]

    assert completed("blockyard targ") == ["target"]
    assert completed("blockyard lun ") == ["list", "map", "unmap"]
    assert completed("blockyard target create --al") == ["--alias"]
    assert completed("blockyard completion z") == []  # a positional, which is not completed
    assert "raw" in completed("blockyard serve --format ")


def test_zsh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At a terminal, as zsh completes nowhere else."""
    script(tmp_path, "zsh", capsys)
    shell = need("zsh", "zsh")
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", HOME=str(tmp_path), PS1="> ")
        os.execv(shell, ["zsh", "-f", "-i"])  # noqa: S606
    try:
        begin = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -d {tmp_path}/dump; print rea''dy\n"
        os.write(terminal, begin.encode())
        read_until(terminal, b"ready")
        os.write(
            terminal, b"blockyard targ\tcrea\t--ali\t\x01echo \r"
        )  # at the beginning of the line that it has become
        read_until(terminal, b"\nblockyard target create --alias")
        os.write(terminal, b"blockyard lun \t")
        assert b"show a volume or drive as a LUN of a target" in read_until(terminal, b"unmap")
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


def read_until(terminal: int, wanted: bytes, seconds: float = 120) -> bytes:
    """What a program has written to its terminal, up to `wanted`."""
    seen, end = b"", time.monotonic() + seconds
    while wanted not in seen:
        left = end - time.monotonic()
        assert left > 0, seen
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 4096)
    return seen


def test_manual_pages(tmp_path: Path) -> None:
    directory = tmp_path / "man1"
    assert main(["manual", str(directory)]) == 0
    found = sorted(directory.iterdir())
    assert {"blockyard.1", "blockyard-serve.1", "blockyard-volume.1"} <= {path.name for path in found}
    assert run([need("mandoc", "mandoc"), "-Tlint", "-W", "warning", *found]).stdout == ""
    for path in found:
        done = subprocess.run(
            [need("man", "man-db"), "--warnings", "-E", "UTF-8", "-l", "-P", "cat", path],
            capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"}, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        assert "NAME" in done.stdout
