"""Portals: what people write, who can reach them, and what stands in the way of listening."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from blockyard.control.errors import PortalError, UsageError
from blockyard.control.portals import cease, listen, parse_portal
from tests.serving import free_port
from tests.waiting import comes_about


@pytest.mark.parametrize(
    ("text", "portal"),
    [
        ("192.0.2.1", "192.0.2.1:3260"),
        ("192.0.2.1:0", "192.0.2.1:0"),
        ("0.0.0.0:65535", "0.0.0.0:65535"),
        ("[2001:db8::1]:860", "[2001:db8::1]:860"),
        ("[2001:DB8:0::1]", "[2001:db8::1]:3260"),
        ("::", "[::]:3260"),
        ("::1", "[::1]:3260"),
    ],
)
def test_what_people_write(text: str, portal: str) -> None:
    assert str(parse_portal(text)) == portal


@pytest.mark.parametrize(
    "text",
    ["", ":3260", "192.0.2", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:-1", "1.2.3.4:x", "[::1", "[::1]3260",
     "[::1]:99999", "::1:g", "disk.example", "192.0.2.1:\uff13", "999.0.0.1"],
)  # fmt: skip
def test_what_is_no_portal(text: str) -> None:
    with pytest.raises(UsageError):
        parse_portal(text)


@pytest.mark.parametrize(
    ("portal", "arrived", "told"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1:3260"),
        ("198.51.100.1", "192.0.2.1", "198.51.100.1:3260"),
        ("0.0.0.0:860", "192.0.2.1:860", "192.0.2.1:860"),
        ("::", "[2001:db8::1]", "[2001:db8::1]:3260"),
        ("::", "192.0.2.1", None),
        ("0.0.0.0", "::1", None),
        ("127.0.0.1", "192.0.2.1", None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1:3260"),
        ("127.0.0.1", "::1", "127.0.0.1:3260"),
        ("fe80::1", "192.0.2.1", None),
        ("2001:db8::1", "192.0.2.1", "[2001:db8::1]:3260"),
    ],
)
def test_who_is_told_of_a_portal(portal: str, arrived: str, told: str | None) -> None:
    found = parse_portal(portal).reachable_from(parse_portal(arrived))
    assert (found and str(found)) == told


def test_a_port_that_is_taken_is_told_with_its_holder_and_the_way_out() -> None:
    first, portal = listen(parse_portal("127.0.0.1:0"))
    with first:
        assert portal.port
        with pytest.raises(PortalError) as caught:
            listen(portal)
    own_name = Path("/proc/self/comm").read_text().strip()
    assert f"{portal} is taken by {own_name} (pid {os.getpid()})" in str(caught.value)
    assert f"--portal 127.0.0.1:{portal.port + 1}" in str(caught.value)
    assert caught.value.exit_status == 3


def test_a_foreign_address() -> None:
    with pytest.raises(PortalError, match=r"203\.0\.113\.77 is not an address of this machine"):
        listen(parse_portal("203.0.113.77:0"))


def test_both_wildcards_share_a_port() -> None:
    v4, portal = listen(parse_portal(f"0.0.0.0:{free_port('::')}"))
    with v4:
        v6, other = listen(parse_portal(f"[::]:{portal.port}"))
        with v6, socket.create_connection(("::1", other.port)), socket.create_connection(("127.0.0.1", portal.port)):
            assert portal.port == other.port


@pytest.mark.parametrize("turns", range(6))
def test_nobody_is_dropped_when_a_server_ceases(turns: int) -> None:
    """Who has been accepted so many turns of the loop before is served; who has not waits for the next to listen there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(await reader.readline())
        writer.close()

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock, sock.dup() as next_one:
            server = await asyncio.start_server(serve, sock=sock)
            with socket.create_connection(next_one.getsockname()) as client:
                client.sendall(b"hello\n")
                for _ in range(turns):
                    await asyncio.sleep(0)
                await cease(server)
                next_one.setblocking(False)
                try:
                    next_one.accept()[0].close()
                except BlockingIOError:
                    await comes_about(lambda: served == [b"hello\n"])

    served: list[bytes] = []
    asyncio.run(run())
