"""tgtd, a target that somebody else has written, as a fixture."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import free_port

SIZE = 64 << 20  # bytes of the disk
_START_SECONDS = 120.0


class Tgtd:
    """tgtd with one target: LUN 0 is its controller, LUN 1 a disk of `SIZE` bytes."""

    name = "iqn.2024-01.test.tgt:disk"

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._accounts: list[str] = []
        self.image = directory / "disk.img"
        with self.image.open("wb") as file:
            file.truncate(SIZE)
        self._log = (directory / "tgtd.log").open("wb")
        # The control channel's number has to be free as well: it goes with the port.
        command = ["tgtd", "-f", "-C", str(self.port), "--iscsi", f"portal={self.portal}"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            self._configure()
        except BaseException:
            self.stop()
            raise

    @property
    def portal(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, lun: int = 1) -> str:
        return f"iscsi://{self.portal}/{self.name}/{lun}"

    def _configure(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while self._tgtadm("--mode", "sys", "--op", "show", check=False):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("tgtd did not start")
            time.sleep(0.05)
        self._tgtadm("--mode", "target", "--op", "new", "--tid", "1", "-T", self.name)
        self._tgtadm("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", str(self.image))
        for key, value in {
            "InitialR2T": "No",
            "HeaderDigest": "CRC32C,None",
            "DataDigest": "CRC32C,None",
            "FirstBurstLength": "262144",
            "MaxBurstLength": "16776192",
            "MaxOutstandingR2T": "8",
            "MaxRecvDataSegmentLength": "65536",
        }.items():
            self._tgtadm("--mode", "target", "--op", "update", "--tid", "1", "-n", key, "-v", value)
        self._tgtadm("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")

    def _tgtadm(self, *arguments: str, check: bool = True) -> int:
        command = ["tgtadm", "-C", str(self.port), "--lld", "iscsi", *arguments]
        return subprocess.run(command, check=check, capture_output=True, timeout=180).returncode

    def require_chap(self, user: str, secret: bytes, target_user: str, target_secret: bytes) -> str:
        """Add a target that asks for CHAP, and proves itself when asked; its URL."""
        name = f"{self.name}-chap"
        self._tgtadm("--mode", "target", "--op", "new", "--tid", "2", "-T", name)
        self._tgtadm("--mode", "logicalunit", "--op", "new", "--tid", "2", "--lun", "1", "-b", str(self.image))
        self._tgtadm("--mode", "target", "--op", "bind", "--tid", "2", "-I", "ALL")
        for account, password, extra in ((user, secret, []), (target_user, target_secret, ["--outgoing"])):
            secret_text = password.decode()
            self._accounts.append(account)
            self._tgtadm("--mode", "account", "--op", "new", "--user", account, "--password", secret_text)
            self._tgtadm("--mode", "account", "--op", "bind", "--tid", "2", "--user", account, *extra)
        return self.url().replace(self.name, name)

    def drop_chap(self) -> None:
        self._tgtadm("--mode", "target", "--op", "delete", "--tid", "2", "--force")
        for account in self._accounts:
            self._tgtadm("--mode", "account", "--op", "delete", "--user", account)
        self._accounts.clear()

    def stop(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)  # it ignores SIGTERM while a target is bound
        self._process.wait(120)
        self._log.close()


@pytest.fixture(scope="session")
def tgtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tgtd]:
    """Fails where tgtd is not installed."""
    target = Tgtd(tmp_path_factory.mktemp("tgtd"))
    yield target
    target.stop()
