"""Messages and descriptors between control and worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from blockyard.worker.handoff import pair, receive_message, send_message

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    left, right = pair()
    with left, right:
        yield left, right


def test_a_message_arrives_as_it_was_sent(ends: Ends) -> None:
    message = {"type": "connection", "portal": "[::1]:3260", "answered": 0}
    send_message(ends[0], message)
    assert receive_message(ends[1]) == (message, [])


def test_a_message_larger_than_a_datagram_travels_whole(ends: Ends) -> None:
    message = {"type": "targets", "targets": [{"lun": n, "path": "x" * 300} for n in range(16_384)]}
    send_message(ends[0], message)
    assert receive_message(ends[1]) == (message, [])


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_descriptor_rides_along(ends: Ends, size: int) -> None:
    read_end, write_end = os.pipe()
    message = {"type": "connection", "received": "x" * size}
    send_message(ends[0], message, [write_end])
    os.close(write_end)
    received = receive_message(ends[1])
    assert received is not None
    assert received[0] == message
    (fd,) = received[1]
    os.write(fd, b"through")
    os.close(fd)
    assert os.read(read_end, 100) == b"through"
    os.close(read_end)


def test_the_end_of_the_peer_is_no_message(ends: Ends) -> None:
    ends[0].close()
    assert receive_message(ends[1]) is None


def test_an_empty_socket_says_so(ends: Ends) -> None:
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        receive_message(ends[1])


@pytest.mark.parametrize("data", [b"not json", b"[]", b'{"no": "type"}', b'{"type": 5}', b"memfd", b"\xff"])
def test_what_is_no_message_is_refused_and_its_descriptors_are_closed(ends: Ends, data: bytes) -> None:
    read_end, write_end = os.pipe()
    fds = [] if data == b"memfd" else [write_end]
    socket.send_fds(ends[0], [data], fds)
    os.close(write_end)
    with pytest.raises(ValueError, match=r"."):
        receive_message(ends[1])
    assert os.read(read_end, 1) == b"", "the descriptor is still open somewhere"
    os.close(read_end)
