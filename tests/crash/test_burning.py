"""A server that is killed in the midst of burning leaves what was synchronised on the disc, and nothing else; burning goes on."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import struct
import threading
import time
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.initiator import Lun, connect
from blockyard.initiator.errors import InitiatorError
from blockyard.optical import record
from blockyard.optical.disc import Disc
from tests.optical.burners import SYNCHRONIZE, write
from tests.serving import IQN, Serving
from tests.waiting import eventually

_PIECE = 16  # blocks
_ROUNDS = 3


def _block(number: int) -> bytes:
    return number.to_bytes(8, "big") * 256


class Burner(threading.Thread):
    """Writes numbered blocks in order from the next writable address on, and synchronises now and then."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.synchronised = 0  # blocks
        self.sent = 0
        self._url = url

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while not self.synchronised and time.monotonic() < deadline:
            with contextlib.suppress(InitiatorError, OSError):
                self._burn()

    def _burn(self) -> None:
        with connect(self._url, timeout=120) as lun:
            while lun.command(bytes(6)).sense:
                pass  # unit attentions
            at, rng = _next(lun), random.Random(1)
            while True:
                for _ in range(rng.randrange(1, 12)):
                    self.sent = at + _PIECE
                    lun.execute(write(at, _PIECE), b"".join(map(_block, range(at, at + _PIECE))), 0)
                    at += _PIECE
                lun.execute(SYNCHRONIZE)
                self.synchronised = at


def _next(lun: Lun) -> int:
    """The next writable address, by READ TRACK INFORMATION."""
    return int(struct.unpack_from(">I", lun.execute(struct.pack(">BBIxHx", 0x52, 1, 0xFF, 48), b"", 48), 12)[0])


@pytest.mark.parametrize("kind", ["dvd+r", "cd-r"])
def test_what_is_synchronised_survives_kill_9_and_can_be_gone_on_with(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "x.iso"
    record.make(image, kind, 300_000)
    config = tmp_path / "x.toml"
    config.write_text(f'[drives.dvd]\nimage = "{image}"\n[targets."{IQN}"]\nluns = {{0 = "dvd"}}\n')
    with Serving([], state=tmp_path / "state", log=tmp_path / "log", config=config) as serving:
        synchronised = 0
        for number in range(_ROUNDS):
            burner = Burner(serving.url())
            burner.start()
            eventually(lambda burner=burner, before=synchronised: burner.synchronised >= before + 200, serving.tail)  # type: ignore[misc]
            time.sleep(random.Random(number).random() / 20)
            _kill(serving)
            burner.join(120)
            assert not burner.is_alive()
            serving.process.wait()
            synchronised = burner.synchronised
            _check(image, synchronised, burner.sent)
            serving.restart()
        with connect(serving.url(), timeout=120) as lun:
            while lun.command(bytes(6)).sense:
                pass
            assert synchronised <= _next(lun) <= burner.sent
            lun.execute(bytes([0x5B, 0, 2, 0, 0, 0, 0, 0, 0, 0]))  # CLOSE SESSION
        assert main(["optical", "eject", "dvd", "--state", str(tmp_path / "state")]) == 0
        serving.stop()
    _check(image, synchronised, burner.sent)


def _kill(serving: Serving) -> None:
    """All of its processes, whose locks are gone then; control first, so that it does not start another worker."""
    victims = [serving.pid, *serving.workers]
    ends = [os.pidfd_open(pid) for pid in victims]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], 120)[0]
        os.close(end)


def _check(image: Path, synchronised: int, sent: int) -> None:
    disc = Disc(image)
    [track] = disc.tracks
    assert synchronised <= track.end <= sent
    assert disc.read(0, track.end) == b"".join(map(_block, range(track.end)))
    assert image.stat().st_size == track.end * 2048
    disc.close()
