"""Registration with open-isns: targets and portals, status inquiries, state changes, and what becomes of a lost server."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from blockyard.control.isns import Registrar, Targets
from blockyard.iscsi.directory import Portal
from tests.conftest import need, run
from tests.control.serving import discover, serve, start
from tests.serving import free_port
from tests.waiting import LIMIT, eventually

LOOPBACK = ipaddress.ip_address("127.0.0.1")
A, B = "iqn.2024-01.test:a", "iqn.2024-01.test:b"
HOST = "iqn.2024-01.test:host"


class NameServer:
    """isnsd (open-isns) on a loopback port, with a database in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.portal = Portal(LOOPBACK, free_port())
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "isnsd.log"
        (directory / "isnsd.conf").write_text(
            f"BindAddress = {self.portal}\nSecurity = 0\nSLPRegister = 0\nDatabase = {directory}/db\n"
            f"ControlSocket = {directory}/control\nPIDFile = {directory}/pid\nSourceName = iqn.2024-01.test:isnsd\n"
            "DefaultDiscoveryDomain = 1\nESIMinInterval = 1s\nESIMaxInterval = 2s\n"
        )
        (directory / "client.conf").write_text(
            f"ServerAddress = {self.portal}\nSecurity = 0\nSLPRegister = 0\nSourceName = {HOST}\n"
            f"ControlSocket = {directory}/control\n"
        )

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [need("isnsd", "open-isns-server"), "-f", "-d", "message,esi,scn", "-c", str(self._directory / "isnsd.conf")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        end = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection((str(LOOPBACK), self.portal.port), 1):
                return
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose the database, as a server does that is set up anew."""
        for path in (self._directory / "db").iterdir():
            path.unlink()

    def admin(self, *words: str) -> str:
        """What isnsadm prints, asking as an initiator over the network."""
        tool = need("isnsadm", "open-isns-utils")
        return run([tool, "-c", self._directory / "client.conf", *words], seconds=LIMIT).stdout

    def list(self, kind: str) -> str:
        """All objects of a kind, asked by the administrator's socket."""
        tool = need("isnsadm", "open-isns-utils")
        return run([tool, "--local", "-c", self._directory / "client.conf", "--list", kind], seconds=LIMIT).stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NameServer]:
    found = NameServer(tmp_path)
    found.start()
    yield found
    found.stop()
    print(found.log.read_text(errors="replace")[-20000:])  # noqa: T201  (pytest shows it)


def _names(listing: str) -> set[str]:
    return set(re.findall(r'iSCSI name = "([^"]+)"', listing))


def _nodes(server: NameServer) -> set[str]:
    return _names(server.list("nodes"))


def _groups(server: NameServer) -> list[tuple[str, str, str]]:
    """By which portals of which tags one gets to the targets."""
    pattern = r'group name = "(\S+)".*?group port = (\d+)/tcp.*?group tag = (\d+)'
    return re.findall(pattern, server.list("portal-groups"), re.DOTALL)


def _await(true: Callable[[], object]) -> None:
    asyncio.run(_until(true))


async def _until(true: Callable[[], object]) -> None:
    """Wait until it is so; meanwhile the registrar goes on, which the server inquires after each second.

    Who has not answered in time, since the machine stood still, is taken out of the directory, and has himself registered again.
    """
    async with asyncio.timeout(LIMIT):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.05)


def _logged(server: NameServer, text: str) -> bool:
    return text in server.log.read_text(errors="replace")


@contextlib.asynccontextmanager
async def _registrar(server: NameServer, targets: Targets, *, period: int = 900) -> AsyncIterator[Registrar]:
    registrar = Registrar(server.portal, "host.test", lambda: targets, esi_interval=1, period=period)
    registrar.start()
    try:
        await _until(lambda: registrar.registered)
        yield registrar
    finally:
        await registrar.close()


def _targets() -> Targets:
    first, second = Portal(LOOPBACK, 3260), Portal(ipaddress.ip_address("127.0.0.2"), 3261)
    return [(A, "Our disks", [(first, 1), (second, 2)]), (B, "", [(first, 1)])]


def test_targets_and_portals_are_registered_and_taken_out_again(server: NameServer) -> None:
    async def scenario() -> None:
        async with _registrar(server, _targets()):
            await _until(lambda: _nodes(server) == {A, B})
            await _until(lambda: 'iSCSI alias = "Our disks"' in server.list("nodes"))
            await _until(lambda: {"3260", "3261"} <= set(re.findall(r"(\d+)/tcp", server.list("portals"))))
            expected = [(A, "3260", "1"), (A, "3261", "2"), (B, "3260", "1")]  # nothing leads from B to 3261
            await _until(lambda: _groups(server) == expected)
        assert not _nodes(server)
        assert "tcp" not in server.list("portals")

    asyncio.run(scenario())


def test_an_initiator_finds_the_targets_and_is_noticed(server: NameServer) -> None:
    async def scenario() -> None:
        async with _registrar(server, _targets()) as registrar:
            assert registrar.initiators == set()
            await asyncio.to_thread(server.admin, "--register", f"initiator={HOST}")
            await _until(lambda: HOST in registrar.initiators)
            await _until(lambda: _names(server.admin("--query", "iscsi-node-type=target")) >= {A, B})
            await asyncio.to_thread(server.admin, "--deregister", f"iscsi-name={HOST}")
            await _until(lambda: HOST not in registrar.initiators)

    asyncio.run(scenario())


def test_initiators_that_were_there_before_are_known(server: NameServer) -> None:
    async def scenario() -> None:
        await asyncio.to_thread(server.admin, "--register", f"initiator={HOST}")
        async with _registrar(server, _targets()) as registrar:
            assert HOST in registrar.initiators

    asyncio.run(scenario())


def test_status_inquiries_are_answered_at_every_portal(server: NameServer) -> None:
    async def scenario() -> None:
        async with _registrar(server, _targets()):
            for portal in ("127.0.0.1]:3260", "127.0.0.2]:3261"):
                answered = f"Good ESI response from [::ffff:{portal}"
                await _until(partial(_logged, server, answered))

    asyncio.run(scenario())


def test_what_changes_is_registered_anew(server: NameServer) -> None:
    async def scenario() -> None:
        targets = _targets()
        async with _registrar(server, targets) as registrar:
            del targets[0]
            registrar.changed()
            await _until(lambda: _nodes(server) == {B})
            targets.clear()
            registrar.changed()
            await _until(lambda: not _nodes(server))
            targets += _targets()
            registrar.changed()
            await _until(lambda: _nodes(server) == {A, B})

    asyncio.run(scenario())


def test_a_server_that_was_restarted_without_its_database_learns_everything_again(server: NameServer) -> None:
    async def scenario() -> None:
        async with _registrar(server, _targets()) as registrar:
            server.stop()
            await _until(lambda: not registrar.registered)
            server.forget()
            server.start()
            await _until(lambda: registrar.registered)
            await _until(lambda: _nodes(server) == {A, B})

    asyncio.run(scenario())


def test_who_stood_still_is_registered_again(server: NameServer) -> None:
    """The server takes him out of the directory when its inquiries are not answered, and tells him of no more initiators."""

    async def scenario() -> None:
        async with _registrar(server, _targets()) as registrar:
            await _until(lambda: _nodes(server) == {A, B})
            eventually(lambda: not _nodes(server))  # the loop stands still meanwhile
            await _until(lambda: _nodes(server) == {A, B})
            await asyncio.to_thread(server.admin, "--register", f"initiator={HOST}")
            await _until(lambda: HOST in registrar.initiators)

    asyncio.run(scenario())


def test_a_registration_is_repeated_before_it_ends(server: NameServer) -> None:
    async def scenario() -> None:
        async with _registrar(server, _targets(), period=3):
            await _until(lambda: server.log.read_text().count("---DevAttrReg---") >= 3)
            await _until(lambda: _nodes(server) == {A, B})

    asyncio.run(scenario())


def test_only_the_server_may_ask(server: NameServer) -> None:
    async def scenario() -> None:
        async with _registrar(server, _targets()):
            listings: list[str] = []

            def listed() -> bool:
                listings.append(server.list("portals"))
                return "ESI port" in listings[-1]

            await _until(listed)
            port = int(re.findall(r"ESI port\s+= (\d+)/tcp", listings[-1])[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
            assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_serving_registers_and_ends_without_a_trace(server: NameServer, tmp_path: Path) -> None:
    group = f"127.0.0.2:{free_port('127.0.0.2')}"
    (tmp_path / "blockyard.toml").write_text(f"""
    portal_groups = {{4 = {{portals = ["{group}"]}}}}
    isns = {{server = "{server.portal}", entity = "array.test"}}
    [volumes.disk]
    path = "disk.img"
    size = "4M"
    [targets."{A}"]
    alias = "Our disks"
    portal_groups = [4]
    luns = {{0 = "disk"}}
    """)
    with serve(tmp_path / "state", "--config", str(tmp_path / "blockyard.toml"), portal=None) as served:
        _await(lambda: _nodes(server) == {A})
        assert '"array.test"' in server.list("entities")
        port = group.rpartition(":")[2]
        assert re.search(
            rf"group address = 127.0.0.2.*group port = {port}/tcp.*tag = 4", server.list("portal-groups"), re.S
        )
        assert served.stop() == 0
        assert not _nodes(server)


def test_serving_goes_on_while_there_is_no_server(tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    with serve(tmp_path / "state", str(tmp_path / "disk.img"), "--size", "4M", "--isns", nobody) as served:
        assert discover(served.address)
        assert served.stop() == 0
        assert f"iSNS server {nobody}" in served.log


@pytest.mark.parametrize("wrong", ["0.0.0.0", "somewhere.test", "192.0.2.1:0"])
def test_what_is_no_server(wrong: str, tmp_path: Path) -> None:
    process = start(tmp_path / "state", str(tmp_path / "disk.img"), "--size", "4M", "--isns", wrong)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert "isns.server" in errors
    assert not (tmp_path / "disk.img").exists()


def test_what_a_reload_changes_is_registered_anew(server: NameServer, tmp_path: Path) -> None:
    file = tmp_path / "blockyard.toml"
    portal = f"127.0.0.1:{free_port()}"

    def write(*targets: str, isns: str = f'isns = {{server = "{server.portal}"}}') -> None:
        volumes = "".join(f'[volumes.{name[-1]}]\npath = "{name[-1]}.img"\nsize = "4M"\n' for name in targets)
        luns = "".join(f'[targets."{name}"]\nluns = {{0 = "{name[-1]}"}}\n' for name in targets)
        file.write_text(f'{isns}\nportal_groups = {{1 = {{portals = ["{portal}"]}}}}\n{volumes}{luns}')

    def reload() -> None:
        run([sys.executable, "-m", "blockyard", "reload", "--state", tmp_path / "state"], seconds=LIMIT)

    write(A)
    with serve(tmp_path / "state", "--config", str(file), portal=None) as served:
        _await(lambda: _nodes(server) == {A})
        write(A, B)
        reload()
        _await(lambda: _nodes(server) == {A, B})
        write(B)
        reload()
        _await(lambda: _nodes(server) == {B})
        write(B, isns="")
        reload()
        _await(lambda: not _nodes(server))
        assert served.stop() == 0
