"""SNMP: net-snmp's snmptrapd takes what is sent, by v2c and by v3 with authentication and privacy; smilint likes the MIB."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.control.catalogue import CATALOGUE
from blockyard.control.delivery import try_all
from blockyard.control.events import Event
from blockyard.control.snmp import SnmpSender, engine_id
from blockyard.worker.receivers import Snmp
from tests.conftest import need, run
from tests.serving import free_port
from tests.waiting import eventually

MIB = Path(__file__).parents[2] / "packaging" / "monitoring" / "BLOCKYARD-MIB.txt"
BASE = Path(__file__).with_name("mibs")  # Debian has none of the IETF's
EVENT = Event(
    CATALOGUE["pool-full"].severity, "pool-full", "Zoë's pool is full", "alice", "192.0.2.1", "iqn.x", 5.25, 7
)
PHRASES = {"authentication": "authentication of 8", "privacy": "privacy of more than 8"}


@contextlib.contextmanager
def trapd(directory: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """A station that takes the community `secret` and the user `storage`; where it is, and what it has understood."""
    port, log = free_port(), directory / "traps"
    engine = engine_id(socket.gethostname()).hex()
    keys = f'SHA-256 "{PHRASES["authentication"]}" AES "{PHRASES["privacy"]}"'
    (directory / "snmptrapd.conf").write_text(
        f"authCommunity log secret\nauthUser log storage priv\n"
        f"createUser storage {keys}\ncreateUser -e 0x{engine} storage {keys}\n"
        "format1 %V, %v\\n\nformat2 %V, %v\\n\n"
    )
    command = [
        need("snmptrapd", "snmptrapd"),
        "-f",
        "-C",
        "-c",
        str(directory / "snmptrapd.conf"),
        "-On",
        "-Lf",
        str(log),
    ]
    process = subprocess.Popen(
        [*command, f"udp:127.0.0.1:{port}"],
        env={"SNMP_PERSISTENT_DIR": str(directory / "persistent"), "MIBS": "", "PATH": "/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _listens(port))
        yield f"127.0.0.1:{port}", lambda: log.read_text() if log.exists() else ""
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    return f"0100007F:{port:04X}" in Path("/proc/net/udp").read_text()


def receiver(directory: Path, to: str, version: str, *, acknowledged: bool) -> Snmp:
    for name, text in {**PHRASES, "community": "secret"}.items():
        (directory / name).write_text(text + "\n")
    if version == "2c":
        return Snmp(to=to, acknowledged=acknowledged, community_file=str(directory / "community"))
    authentication, privacy = (str(directory / name) for name in PHRASES)
    return Snmp(
        to=to,
        version="3",
        acknowledged=acknowledged,
        user="storage",
        authentication_file=authentication,
        privacy_file=privacy,
    )


@pytest.mark.parametrize("acknowledged", [True, False], ids=["inform", "trap"])
@pytest.mark.parametrize("version", ["2c", "3"])
def test_snmptrapd_understands_it(
    tmp_path: Path, version: str, acknowledged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockyard.control.snmp.ATTEMPTS", 40)
    with trapd(tmp_path) as (to, taken):
        wanted = receiver(tmp_path, to, version, acknowledged=acknowledged)
        for count in (1, 2):  # a second engine goes on where the first was; who waits in vain asks again
            SnmpSender(wanted).send([EVENT])
            eventually(lambda count=count: taken().count("pool-full") >= count)  # type: ignore[misc]
        found = taken()
    root = ".1.3.6.1.4.1.32473.1"
    assert f"{root}.0.3" in found, "an error"
    for number, value in enumerate(["7", None, '"pool-full"', None, '"alice"', '"192.0.2.1"', '"iqn.x"'], 1):
        assert f"{root}.1.{number}.0 = " in found
        if value is not None:
            assert value in found.partition(f"{root}.1.{number}.0 = ")[2].partition(",")[0].partition("\t")[0]
    assert "07 B2 01 01 00 00 05 02 2B 00 00" in found, "DateAndTime"


def test_who_does_not_acknowledge_has_not_got_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.control.snmp.PATIENCE", 0.2)
    with trapd(tmp_path) as (to, taken):
        wrong = receiver(tmp_path, to, "3", acknowledged=True)
        (tmp_path / "privacy").write_text("another phrase\n")
        assert try_all({"s": wrong}, "x")["s"] != ""
        assert ".1.3.6.1.4.1.32473" not in taken()
    told = try_all({"s": receiver(tmp_path, to, "2c", acknowledged=True)}, "x")["s"]
    assert to in told
    assert "secret" not in told


def test_what_cannot_be() -> None:
    wrong: list[dict[str, Any]] = [{"to": ""}, {"to": "x", "version": "1"}, {"to": "x", "version": "3"}]
    wrong.append({"to": "x", "user": "u"})
    for fields in wrong:
        with pytest.raises(ValueError, match=r"HOST|version"):
            Snmp(**fields)


def test_smilint_and_snmptranslate_read_the_mib(tmp_path: Path) -> None:
    (tmp_path / "smi.conf").write_text(f"path {BASE}\n")
    found = run([need("smilint", "smitools"), "-c", str(tmp_path / "smi.conf"), "-l", "6", str(MIB)])
    assert found.stdout + found.stderr == ""
    command = [need("snmptranslate", "snmp"), "-M", f"{BASE}:{MIB.parent}", "-m", "BLOCKYARD-MIB", "-On"]
    for name, number in (("blockyardEventError", "0.3"), ("blockyardEventTarget.0", "1.7.0")):
        said = run(
            [*command, f"BLOCKYARD-MIB::{name}"]
        ).stdout.splitlines()  # before it may be that it has made directories
        assert said[-1] == f".1.3.6.1.4.1.32473.1.{number}"
