"""Caches, encrypted and compressed disks that are served: QEMU copies and compares, other programs look at the files."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TargetFactory, need, run
from tests.serving import IQN, Serving

MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A disk with text, noise and holes."""
    path, chance = tmp_path / "source", random.Random(1)
    with path.open("wb") as file:
        file.truncate(SIZE)
        text = b"again and again " * (MIB // 16)
        for at, data in ((0, chance.randbytes(MIB)), (5 * MIB, text), (SIZE - MIB, chance.randbytes(MIB))):
            file.seek(at)
            file.write(data)
    return path


def blockyard(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "blockyard", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def qemu_img(*words: str | Path) -> str:
    return run([need("qemu-img", "qemu-utils qemu-block-extra"), *words]).stdout


def copied(source: Path, stack: str, target: TargetFactory) -> Serving:
    """A server of that stack, to which the disk has been copied; it was killed since, and started anew."""
    serving = target(config=f'[volumes.disk]\nstack = \'{stack}\'\n[targets."{IQN}"]\nluns = {{0 = "disk"}}\n')
    qemu_img("convert", "-n", "-f", "raw", "-O", "raw", source, serving.url())
    serving.kill()
    serving.restart()
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", source, serving.url())
    return serving


def test_caches(source: Path, target: TargetFactory, tmp_path: Path) -> None:
    origin, ssd = tmp_path / "origin", tmp_path / "ssd"
    for path, size in ((origin, SIZE), (ssd, 64 * MIB)):
        path.touch()
        path.open("r+b").truncate(size)
    assert "a cache of" in blockyard("layer", "create", f"ssd-cache({origin}, {ssd})")
    stack = f"cache(ram=16M, ssd-cache(mode=back, delay=3600, {origin}, {ssd}))"
    serving = copied(source, stack, target)
    assert origin.read_bytes()[:SIZE] != source.read_bytes()
    state = "--state", tmp_path / "state-0"
    assert "write-back" in blockyard("layer", "show", *state, "disk")
    blockyard("layer", "do", *state, "disk/ssd-cache", "detach")
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", source, serving.url())
    serving.stop()
    assert origin.read_bytes() == source.read_bytes()


def test_encrypted(source: Path, target: TargetFactory, tmp_path: Path) -> None:
    disk, key = tmp_path / "disk", tmp_path / "key"
    key.write_bytes(b"a key")
    disk.touch()
    disk.open("r+b").truncate(16 * MIB + SIZE)
    blockyard("layer", "create", f"luks(key_file={key}, kdf=pbkdf2, time=1000, {disk})")
    serving = copied(source, f"luks(key_file={key}, {disk})", target)
    serving.stop()
    data = disk.read_bytes()
    assert b"again and again" not in data
    cryptsetup = need("cryptsetup", "cryptsetup-bin")
    run([cryptsetup, "reencrypt", "--batch-mode", "--decrypt", "--header", tmp_path / "header", "--force-offline-reencrypt",
         "--key-file", key, disk])  # fmt: skip
    plain = source.read_bytes()
    assert disk.read_bytes()[:MIB] == plain[:MIB]
    assert disk.read_bytes()[5 * MIB : 6 * MIB] == plain[5 * MIB : 6 * MIB]


def test_compressed(source: Path, target: TargetFactory, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    disk.open("r+b").truncate(4096)
    blockyard("layer", "create", f"compressed(size={SIZE}, {disk})")
    serving = copied(source, f"compressed({disk})", target)
    serving.stop()
    assert disk.stat().st_blocks * 512 < 3 * MIB
