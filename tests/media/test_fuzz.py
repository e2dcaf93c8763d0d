"""Commands with any fields and any data: a drive and a changer answer each, and never with a fault of their own."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.media.generations import GENERATIONS
from blockyard.scsi.cdb import Command
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Status
from tests.media.drives import TapeHost, told
from tests.media.scratch import scratch
from tests.media.test_library import hosts, library

_BOUNDARIES = (0, 1, 2, 3, 4, 0x10, 0x100, 0x101, 0x400, 0x401, 0xFF, 0xFFFF, 0xFFFFFF)
_MOST = 1 << 16  # bytes of Data-Out


def _cdb(command: Command, rng: Random) -> bytes:
    """A CDB with fields that make sense or do not."""
    number = command.opcode << 8 * (command.length - 1)
    for field in command.fields[1:]:
        value = command.service_action if field.name == "service_action" else rng.choice(_BOUNDARIES)
        if rng.random() < 0.1:
            value = rng.getrandbits(field.width)
        number |= ((value or 0) & ((1 << field.width) - 1)) << field.shift(command.length)
    return number.to_bytes(command.length, "big")


def _data(cdb: bytes, host: TapeHost, rng: Random) -> bytes:
    length = rng.choice((0, 4, 12, 24, 64, 512, 4096))
    if rng.random() < 0.5:
        return rng.randbytes(length)
    kind = rng.choice((0x0A, 0x0F, 0x10, 0x11, 0x1D, 0x51))  # mode pages, perhaps as they are
    pages = bytes(host.send(bytes([0x1A, 0x08, kind & 0x3F, 0, 255, 0])).data)[4:]
    return bytes(4) + pages


@given(st.integers(0, 1 << 32))
@settings(max_examples=150, deadline=None)
def test_any_command_is_answered(seed: int) -> None:
    rng = Random(seed)
    vault = library(scratch(), drives=2, slots=3, io=1)
    for number in range(3):
        vault.create(f"A0000{number}L8", GENERATIONS["LTO-8"], capacity=4 << 20)
    everybody = hosts(vault)
    everybody[0].good(bytes([0xA5, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0]))
    for _ in range(60):
        host = rng.choice(everybody)
        command = rng.choice(list(host.unit.commands))
        if command.name.startswith(("PERSISTENT RESERVE OUT", "RESERVE")):
            continue
        cdb = _cdb(command, rng)
        data = _data(cdb, host, rng)[:_MOST]
        result = host.send(cdb, data)
        if result.status == Status.CHECK_CONDITION:
            found = told(result) if result.sense[0] & 0x7F == 0x70 else None
            assert found is None or (found.key, found.asc) != (SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE), (
                command.name,
                cdb.hex(),
                data[:64].hex(),
            )
    vault.close()
