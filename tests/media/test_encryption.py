"""Tape data encryption as hosts see it (SSC-5, SECURITY PROTOCOL IN and OUT, protocol 20h)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from blockyard.scsi.sense import Asc, SenseKey
from tests.media.drives import LOAD, REWIND, UNLOAD, TapeHost, drive, filemarks, host, loaded, read, write

KEY, OTHER = bytes(range(32)), bytes(32)
TEXT = b"what nobody else is to read " * 100
OFF, RAW, DECRYPT, MIXED = 0, 1, 2, 3  # decryption modes
LOCAL, ALL = 1, 2


def protocol_in(page: int, protocol: int = 0x20) -> bytes:
    return struct.pack(">BBHxxIxx", 0xA2, protocol, page, 8192)


def protocol_out(length: int, page: int = 0x10) -> bytes:
    return struct.pack(">BBHxxIxx", 0xB5, 0x20, page, length)


def page(
    encryption: int, decryption: int, key: bytes = b"", *, scope: int = ALL, flags: int = 0, algorithm: int = 1,
    kads: tuple[tuple[int, bytes], ...] = (),
) -> bytes:  # fmt: skip
    """The Set Data Encryption page."""
    body = struct.pack(">BBBBBB8xH", scope << 5, flags, encryption, decryption, algorithm, 0, len(key)) + key
    body += b"".join(struct.pack(">BxH", kind, len(data)) + data for kind, data in kads)
    return struct.pack(">HH", 0x10, len(body)) + body


def put(tape: TapeHost, data: bytes) -> None:
    tape.good(protocol_out(len(data)), data)


def refuses(tape: TapeHost, data: bytes) -> int:
    """The byte that the sense data points to."""
    sense = tape.send(protocol_out(len(data)), data).sense
    assert sense[2] & 0x0F == SenseKey.ILLEGAL_REQUEST
    assert int.from_bytes(sense[12:14], "big") == Asc.INVALID_FIELD_IN_PARAMETER_LIST
    return int.from_bytes(sense[16:18], "big")


def protected(tape: TapeHost, length: int = len(TEXT)) -> Asc:
    """Why the next block cannot be read; the tape stands before it all the same."""
    before = tape.position()
    key, asc, _, information = tape.fails(read(length))
    assert (key, information) == (SenseKey.DATA_PROTECT, length)
    assert tape.position() == before
    return Asc(asc)


def test_what_is_written_with_a_key_is_read_with_this_key_only(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    put(tape, page(2, DECRYPT, KEY))
    tape.put(TEXT)
    tape.put(b"")
    tape.good(filemarks(1))
    tape.good(REWIND)
    assert tape.good(read(len(TEXT))) == TEXT
    for stored in (tmp_path / "A00001L8").iterdir():
        assert TEXT[:20] not in stored.read_bytes()
        assert KEY not in stored.read_bytes()
        assert KEY.hex() not in stored.read_bytes().decode(errors="replace")
    tape.good(REWIND)
    put(tape, page(2, DECRYPT, OTHER))
    assert protected(tape) is Asc.INCORRECT_DATA_ENCRYPTION_KEY
    put(tape, page(0, OFF))
    assert protected(tape) is Asc.UNABLE_TO_DECRYPT_DATA
    put(tape, page(0, DECRYPT, KEY))  # another drive that has only this key
    assert tape.good(read(len(TEXT))) == TEXT


def test_mixed_reads_plain_blocks_too(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.put(b"plain")
    put(tape, page(2, MIXED, KEY))
    tape.put(TEXT)
    tape.good(REWIND)
    assert tape.good(read(5)) == b"plain"
    assert tape.good(read(len(TEXT))) == TEXT
    tape.good(REWIND)
    for decryption in (RAW, DECRYPT):
        put(tape, page(2, decryption, KEY))
        assert protected(tape, 5) is Asc.UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING


def test_fixed_blocks_and_compression(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    tape.drive.compression = True
    tape.drive.block_size = 512
    put(tape, page(2, DECRYPT, KEY))
    tape.good(write(8, fixed=True), b"ab" * 2048)
    tape.good(REWIND)
    assert tape.good(read(8, fixed=True)) == b"ab" * 2048
    tape.good(REWIND)
    put(tape, page(0, OFF))
    assert tape.fails(read(8, fixed=True)) == (SenseKey.DATA_PROTECT, Asc.UNABLE_TO_DECRYPT_DATA, 0, 8)


def test_raw_blocks_are_given_unless_they_are_protected_from_that(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    put(tape, page(2, RAW, KEY))
    tape.put(TEXT)
    put(tape, page(2, RAW, KEY, flags=0x30))  # RDMC
    tape.put(TEXT)
    tape.good(REWIND)
    put(tape, page(0, RAW))
    raw = tape.good(read(len(TEXT) + 200, sili=True))
    assert len(raw) > len(TEXT)
    assert TEXT[:20] not in raw
    assert protected(tape) is Asc.ENCRYPTED_BLOCK_NOT_RAW_READ_ENABLED
    assert tape.good(protocol_in(0x21))[14] == 1  # RDMDS


def test_a_damaged_block_is_not_taken_for_a_wrong_key(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    put(tape, page(2, DECRYPT, KEY))
    tape.put(TEXT)
    sealed = tape.drive.tape.partition  # type: ignore[union-attr]
    block = sealed.read(0)
    assert not isinstance(block, (bytes, type(None)))
    forged = bytearray(block.stored)
    forged[-1] ^= 1
    sealed.truncate(0)
    sealed.append(bytes(len(TEXT)), seal=lambda kind, data, length, number: bytes(forged))
    tape.good(REWIND)
    assert protected(tape) is Asc.CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED
    sealed.truncate(0)
    sealed.append(bytes(len(TEXT)), seal=lambda kind, data, length, number: b"short")
    tape.good(REWIND)
    assert tape.fails(read(len(TEXT)))[:2] == (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)


def test_each_setting_of_a_key_encrypts_otherwise(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for _ in range(2):
        put(tape, page(2, RAW, KEY))
        tape.put(TEXT)
        tape.put(TEXT)
    tape.good(REWIND)
    found = [tape.good(read(4096, sili=True))[-len(TEXT) :] for _ in range(4)]
    assert len(set(found)) == 4


def test_status_and_key_associated_data(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    status = tape.good(protocol_in(0x20))
    assert status[4:8] == bytes(4)
    put(tape, page(2, MIXED, KEY, kads=((0, b"monday"), (1, b"a1"))))
    status = tape.good(protocol_in(0x20))
    assert struct.unpack_from(">HHBBBBI", status) == (0x20, len(status) - 4, ALL << 5 | ALL, 2, MIXED, 1, 1)
    assert status[24:] == b"\x00\x00\x00\x06monday\x01\x00\x00\x02a1"
    tape.put(TEXT)
    tape.good(filemarks(1))
    assert tape.good(protocol_in(0x21))[12] == 2  # there is no block
    tape.good(REWIND)
    following = tape.good(protocol_in(0x21))
    assert following[12:14] == b"\x05\x01"
    put(tape, page(0, OFF))
    following = tape.good(protocol_in(0x21))
    assert following[4:14] == bytes(8) + b"\x06\x01"
    assert following[16:] == b"\x00\x01\x00\x06monday\x01\x02\x00\x02a1"
    assert struct.unpack_from(">I", tape.good(protocol_in(0x20)), 8) == (2,)
    tape.put(b"plain")
    tape.good(REWIND)
    assert tape.good(protocol_in(0x21))[12] == 3
    assert KEY not in b"".join(tape.good(protocol_in(code)) for code in (0, 1, 0x10, 0x11, 0x12, 0x20, 0x21))


def test_capabilities(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    assert tape.good(protocol_in(0, protocol=0)) == bytes(7) + b"\x02\x00\x20"
    assert tape.good(protocol_in(0))[4:] == bytes.fromhex("0000 0001 0010 0011 0012 0020 0021")
    assert tape.good(protocol_in(1))[4:] == b"\x00\x10"
    capabilities = tape.good(protocol_in(0x10))
    assert len(capabilities) == 20 + 24
    assert struct.unpack_from(">HHH", capabilities, 26) == (32, 12, 32)  # key-associated data, key
    assert capabilities[40:] == bytes.fromhex("00010014")
    assert capabilities[24] & 0x80  # for the mounted volume
    tape.good(UNLOAD)
    assert not tape.good(protocol_in(0x10))[24] & 0x80
    assert tape.fails(protocol_in(0x21))[:2] == (SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
    assert tape.fails(protocol_in(0x99))[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
    assert tape.fails(protocol_in(0, protocol=0x41))[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize(
    ("data", "byte"),
    [
        (page(1, OFF, KEY), 6),
        (page(2, 4, KEY), 7),
        (page(2, DECRYPT, KEY, algorithm=2), 8),
        (page(2, DECRYPT, KEY[:16]), 18),
        (page(0, DECRYPT), 18),
        (page(2, DECRYPT, KEY, scope=3), 4),
        (page(2, DECRYPT, KEY, flags=0x02), 5),
        (page(2, DECRYPT, KEY, kads=((0, bytes(33)),)), 54),
        (page(2, DECRYPT, KEY, kads=((1, b"a"), (0, b"b"))), 57),
        (page(2, DECRYPT, KEY)[:-1], 2),
    ],
)
def test_parameters_that_cannot_be_set(tmp_path: Path, data: bytes, byte: int) -> None:
    tape = loaded(tmp_path)
    put(tape, page(2, DECRYPT, KEY))
    before = tape.good(protocol_in(0x20))
    assert refuses(tape, data) == byte
    assert tape.good(protocol_in(0x20)) == before


def test_parameters_of_one_initiator_and_of_all(tmp_path: Path) -> None:
    one = loaded(tmp_path)
    two = TapeHost(one.target, initiator="iqn.2024-01.test:other")
    two.ready()
    put(one, page(2, DECRYPT, KEY, scope=LOCAL))
    one.put(TEXT)
    two.good(REWIND)
    assert protected(two) is Asc.UNABLE_TO_DECRYPT_DATA
    put(two, page(0, MIXED, KEY))
    assert two.good(read(len(TEXT))) == TEXT
    one.good(bytes(6))  # it has parameters of its own: nothing has changed for it
    put(one, page(0, OFF, scope=0))
    assert one.good(protocol_in(0x20))[4:7] == bytes([ALL, 0, MIXED])
    put(two, page(0, OFF))
    assert one.fails(bytes(6))[:2] == (
        SenseKey.UNIT_ATTENTION,
        Asc.DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS,
    )


def test_keys_go_with_the_cartridge_where_the_host_says_so_and_with_a_reset(tmp_path: Path) -> None:
    tape = loaded(tmp_path)
    for flags, left in ((0x04, 0), (0, 2)):  # CKOD
        put(tape, page(2, DECRYPT, KEY, flags=flags))
        tape.good(UNLOAD)
        tape.good(LOAD)
        assert tape.good(protocol_in(0x20))[5] == left
    tape.drive.reset()
    tape.ready()
    assert tape.good(protocol_in(0x20))[5] == 0
    empty = host(drive())
    assert refuses(empty, page(2, DECRYPT, KEY, flags=0x04)) == 5
