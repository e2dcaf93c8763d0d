"""A server that means harm, or has gone mad: whatever it sends, requests end, and nothing is written outside of their buffers."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.nbd.handshake import Export, negotiate
from blockyard.block.nbd.protocol import CHUNK, CHUNK_MAGIC, REQUEST, SIMPLE, SIMPLE_MAGIC, Command, Flag
from blockyard.block.nbd.stream import PlainStream
from blockyard.block.nbd.transfer import Link, Request
from blockyard.block.nbd.uri import parse_uri

GREETING = b"NBDMAGICIHAVEOPT"
LENGTH = 4096


@contextmanager
def answered(answer: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """One end of a connection; `answer` has the other, and closes it when it returns."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs, contextlib.suppress(OSError):
            answer(theirs)

    thread = threading.Thread(target=run)
    thread.start()
    ours.settimeout(120)
    try:
        yield ours
    finally:
        ours.close()
        thread.join()


@given(st.binary(max_size=200), st.booleans())
def test_any_handshake(data: bytes, greets: bool) -> None:
    def answer(sock: socket.socket) -> None:
        sock.sendall((GREETING + b"\0\3" if greets else b"") + data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass

    with answered(answer) as sock, contextlib.suppress(OSError):
        negotiate(sock, "export")


def reading(reply: Callable[[int], bytes], *, structured: bool) -> tuple[Request, bytearray, OSError | None]:
    """What comes of a READ of LENGTH bytes at LENGTH that is answered by `reply`, of its cookie."""

    def answer(sock: socket.socket) -> None:
        cookie = REQUEST.unpack(sock.recv(REQUEST.size))[3]
        sock.sendall(reply(cookie))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    around = bytearray(b"\xaa" * (3 * LENGTH))
    buffers = [memoryview(around)[LENGTH : LENGTH + 1000], memoryview(around)[LENGTH + 1000 : 2 * LENGTH]]
    request = Request(Command.READ, LENGTH, LENGTH, views=buffers)
    failure = None
    with answered(answer) as sock:
        link = Link(PlainStream(sock), Export(1 << 20, Flag.HAS_FLAGS, structured=structured, allocation=7))
        link.send(request)
        try:
            while link.requests:
                select.select([sock], (), (), 5)
                link.receive()
        except OSError as error:
            failure = error if link.requests else None
    assert around[:LENGTH] == b"\xaa" * LENGTH
    assert around[2 * LENGTH :] == b"\xaa" * LENGTH
    return request, around[LENGTH : 2 * LENGTH], failure


offsets = st.sampled_from((0, LENGTH - 1, LENGTH, LENGTH + 1, LENGTH + 100, 2 * LENGTH, (1 << 64) - 1))
lengths = st.sampled_from((0, 1, 4, 6, 8, 12, 20, 100, LENGTH, LENGTH + 8, LENGTH + 9, 1 << 20, (1 << 32) - 1))


@given(
    st.lists(
        st.tuples(st.sampled_from((0, 1)), st.sampled_from((0, 1, 2, 3, 5, 0x8001, 0x8002, 0xFFFF)), lengths, offsets,
                  st.integers(0, 2 * LENGTH), st.booleans()),
        max_size=4,
    )
)  # fmt: skip
def test_any_chunks(chunks: list[tuple[int, int, int, int, int, bool]]) -> None:
    def reply(cookie: int) -> bytes:
        data = b""
        for flags, kind, length, offset, size, right in chunks:
            body = struct.pack(">QI", offset, size) + b"d" * min(length, 2 * LENGTH)
            data += CHUNK.pack(CHUNK_MAGIC, flags, kind, cookie + (not right), length) + body[:length]
        return data

    request, data, failure = reading(reply, structured=True)
    if failure is None and request.error is None:  # whole, and from what was sent
        assert set(data) <= {0, ord("d")}


def test_data_that_is_whole_and_in_pieces() -> None:
    def reply(cookie: int) -> bytes:
        second = CHUNK.pack(CHUNK_MAGIC, 0, 1, cookie, 8 + 96) + struct.pack(">Q", 2 * LENGTH - 96) + b"e" * 96
        first = CHUNK.pack(CHUNK_MAGIC, 0, 1, cookie, 8 + 2000) + struct.pack(">Q", LENGTH) + b"d" * 2000
        hole = CHUNK.pack(CHUNK_MAGIC, 1, 2, cookie, 12) + struct.pack(">QI", LENGTH + 2000, 2000)
        return second + first + hole

    request, data, failure = reading(reply, structured=True)
    assert (request.error, failure) == (None, None)
    assert data == b"d" * 2000 + bytes(2000) + b"e" * 96


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (lambda cookie: SIMPLE.pack(SIMPLE_MAGIC, 0, cookie + 1), "nobody has asked"),
        (lambda cookie: b"x" * 64, "no reply"),
        (lambda cookie: SIMPLE.pack(SIMPLE_MAGIC, 108, cookie), "shutting down"),
        (lambda cookie: SIMPLE.pack(SIMPLE_MAGIC, 0, cookie) + b"x" * 100, "closed the connection"),
    ],
)
def test_replies_that_end_the_connection(reply: Callable[[int], bytes], text: str) -> None:
    _, _, failure = reading(reply, structured=False)
    assert failure is not None
    assert text in str(failure)


def test_errors_are_what_they_mean() -> None:
    request, _, failure = reading(lambda cookie: SIMPLE.pack(SIMPLE_MAGIC, 28, cookie), structured=False)
    assert failure is None
    assert isinstance(request.error, OSError)
    assert request.error.errno == 28


def test_words_of_uris() -> None:
    assert parse_uri("nbd://[::1]:1/a%20b/c").export == "a b/c"
    assert parse_uri("nbds://host").port == 10809
    assert parse_uri("nbd+unix:///x?socket=/a").socket == "/a"
    for text in ("nbd:///x", "http://h/x", "nbd+unix:///x", "nbd+unix:///x?socket=a", "nbd://u@h/x", "nbd://h/x?y=1",
                 "nbd+unix://h/x?socket=/a", "nbd://h:99999/", "nbd://h/%00"):  # fmt: skip
        with pytest.raises(ValueError, match=r"NBD|nbd|port|NUL|range"):
            parse_uri(text)
