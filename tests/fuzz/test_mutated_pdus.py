"""Mutated PDUs by the ten thousand: no exception, no leak, no harm to another session."""

from __future__ import annotations

import gc
import logging
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice
from blockyard.iscsi.connection import State
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.pdu import (
    NO_TAG,
    DataOut,
    LoginRequest,
    LogoutRequest,
    NopOut,
    Opcode,
    Pdu,
    ScsiCommand,
    ScsiResponse,
    SnackRequest,
    TaskManagementRequest,
    TextRequest,
    extended_cdb_ahs,
)
from blockyard.scsi.commands import COMMANDS
from blockyard.scsi.task import Status
from tests.wire import Rig, Wire

SIZE = 1 << 20  # bytes of the disk that everything is thrown at
IN_TEST = 50_000
IN_SOAK = 2_000_000
BYSTANDER = b"\x80\0\0\0\0\2"
OPCODES = sorted({command.opcode for command in COMMANDS})


def random_cdb(rng: random.Random) -> bytes:
    """A CDB of some command of the table, its fields random but mostly small."""
    cdb = bytearray(rng.choice([6, 10, 12, 16, 16, 16, 32]))
    for at in range(1, len(cdb)):
        if rng.random() < 0.25:
            cdb[at] = rng.choice([0, 1, 2, 8, 0x10, 0x80, 0xFF, rng.randrange(256)])
    cdb[0] = rng.choice(OPCODES) if rng.random() < 0.95 else rng.randrange(256)
    return bytes(cdb)


def random_pdu(rng: random.Random, wire: Wire) -> Pdu:
    """A PDU that makes sense by itself, most of the time in sequence too."""
    cmd_sn = wire.cmd_sn
    immediate = rng.random() < 0.1
    kind = rng.choice([ScsiCommand] * 10 + [DataOut, DataOut, NopOut, TaskManagementRequest, TextRequest, SnackRequest])
    pdu: Pdu
    if kind is ScsiCommand:
        cdb = random_cdb(rng)
        length = rng.choice([0, 0, 4, 24, 96, 512, 4096, 65536, 262144])
        write = rng.random() < 0.4
        data = rng.randbytes(min(length, rng.choice([0, 512, 4096]))) if write else b""
        pdu = ScsiCommand(
            data, extended_cdb_ahs(cdb) if len(cdb) > 16 else b"", final=rng.random() < 0.9, write=write,
            read=not write, attribute=rng.choice([1, 1, 1, 0, 2, 3, 4, 7]), itt=wire.itt, edtl=length, cmd_sn=cmd_sn,
            lun=rng.choice([0, 0, 0, 0, 1 << 48, rng.getrandbits(64)]), cdb=cdb[:16].ljust(16, b"\0"),
        )  # fmt: skip
    elif kind is DataOut:
        pdu = DataOut(
            rng.randbytes(rng.choice([0, 4, 512])), itt=rng.randrange(1, wire.numbers.itt + 2), ttt=rng.choice([NO_TAG, 0, 1]),
            final=rng.random() < 0.5, data_sn=rng.choice([0, 0, 1]), buffer_offset=rng.choice([0, 512, 4096]),
        )  # fmt: skip
    elif kind is NopOut:
        pdu = NopOut(rng.randbytes(rng.randrange(64)), final=True, itt=wire.itt, ttt=NO_TAG, cmd_sn=cmd_sn)
    elif kind is TaskManagementRequest:
        pdu = TaskManagementRequest(
            final=True, function=rng.choice([1, 2, 3, 4, 5, 6, 8, 9]), itt=wire.itt, cmd_sn=cmd_sn,
            referenced_task_tag=rng.randrange(1, wire.numbers.itt + 2), ref_cmd_sn=cmd_sn - rng.randrange(min(4, cmd_sn + 1)),
        )  # fmt: skip
    elif kind is TextRequest:
        text = rng.choice(
            [b"SendTargets=All\0", b"SendTargets=\0", b"MaxRecvDataSegmentLength=512\0", b"X-a=b\0", b"="]
        )
        pdu = TextRequest(text, final=rng.random() < 0.9, itt=wire.itt, ttt=NO_TAG, cmd_sn=cmd_sn)
    else:
        pdu = SnackRequest(
            final=True, itt=rng.choice([NO_TAG, rng.randrange(1, wire.numbers.itt + 2)]), type=rng.randrange(4),
            snack_tag=rng.choice([NO_TAG, rng.randrange(8)]), run_length=rng.choice([0, 1, rng.getrandbits(32)]),
            beg_run=rng.choice([0, wire.connection.stat_sn - rng.randrange(min(8, wire.connection.stat_sn + 1))]),
        )  # fmt: skip
    pdu.immediate = immediate and kind not in (DataOut, SnackRequest)
    return pdu


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Some damage to the bytes of a PDU; often none, so that what follows finds something going on."""
    damaged = bytearray(data)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
        # Bytes 5 and 6 make the length so large that the stream ends there: only now and then.
        at = rng.randrange(min(len(damaged), 64))
        if at in (4, 5, 6) and rng.random() < 0.9:
            continue
        damaged[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, damaged[at] ^ 1 << rng.randrange(8), rng.randrange(256)])
    if rng.random() < 0.001:
        del damaged[rng.randrange(len(damaged)) :]
    return bytes(damaged)


def legal_harm(data: bytes) -> bool:
    """Whether a PDU is meant for the bystander's LUN, or resets the whole target: harm then is no fault of the target's."""
    cold_reset = data[:1] in (b"\x02", b"\x42") and data[1:2] in (b"\x87", b"\x07")
    return data[8:10] in (b"\0\1", b"\x40\1") or cold_reset


class Bystander:
    """A session that does its work all the while, on its own LUN, and must not notice."""

    def __init__(self, rig: Rig) -> None:
        self._wire = Wire(rig, isid=BYSTANDER)
        assert self._wire.log_in().status == 0
        self._rng = random.Random(5)
        self._block = b""

    def check(self) -> None:
        """Write a block, read it back. A unit attention after somebody's reset is as the standard has it."""
        self._block = self._rng.randbytes(512)
        lun = 1 << 48
        for _ in range(8):
            answer = self._command(lun, bytes.fromhex("2a000000000700000100") + bytes(6), self._block)
            if answer.status == Status.GOOD:
                break
            assert answer.data[4] & 0x0F == 6, bytes(answer.data).hex()
        for _ in range(8):
            answer = self._command(lun, bytes.fromhex("28000000000700000100") + bytes(6), b"")
            if answer.opcode == Opcode.DATA_IN:
                break
        assert bytes(answer.data) == self._block

    def _command(self, lun: int, cdb: bytes, data: bytes) -> ScsiResponse:
        wire = self._wire
        wire.send(
            ScsiCommand(
                data, lun=lun, final=True, write=bool(data), read=not data, attribute=1, itt=wire.itt, edtl=512,
                cmd_sn=wire.cmd_sn, cdb=cdb,
            )
        )  # fmt: skip
        (answer,) = wire.receive()
        return answer  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """pytest keeps all log records, which would look like a leak; those of level ERROR are faults of the target's own."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def throw(count: int, seed: int, tmp_path: Path, level: int = 0) -> None:
    """Throw `count` mutated PDUs at a target, logging in again whenever it has had enough.

    With an ErrorRecoveryLevel of 2 a login may be another connection of the session, or one that takes the place of the last.
    """
    rng = random.Random(seed)
    with (tmp_path / "bystander").open("wb") as file:
        file.truncate(SIZE)
    (tmp_path / "victim").write_bytes(bytes(SIZE))
    preferences = Preferences(error_recovery_level=level, default_time2retain=20 if level == 2 else 0)
    rig = Rig(FileDevice(tmp_path / "victim"), FileDevice(tmp_path / "bystander"), preferences=preferences)
    bystander = Bystander(rig)
    thrown = 0
    wire: Wire | None = None
    traced: list[int] = []
    tracemalloc.start()
    try:
        while thrown < count:
            if wire is None or wire.dropped or wire.connection.state is not State.FULL_FEATURE:
                if wire is not None:
                    wire.close()
                wire = log_in(rig, rng, wire, level)
            pdu = random_pdu(rng, wire)
            if pdu.lun >> 48 == 1:
                pdu.lun = 0
            data = pdu.encode(header_digest=wire.connection.header_digest)
            mutated = mutate(rng, data)
            wire.send_bytes(data if legal_harm(mutated) else mutated)
            thrown += 1
            if thrown % 64 == 0:
                wire.take_bytes()
                rig.node.tick(thrown / 64)
            if thrown % 1024 == 0:
                bystander.check()
            if thrown % (count // 10) == 0:
                wire.close()
                wire = None
                for late in (100, 200):  # what was kept is given up
                    rig.node.tick(thrown / 64 + late)
                rig.settle()  # what was aborted while it ran has its buffer until then
                assert not any(len(unit.tasks or ()) for unit in rig.units.values()), (
                    "tasks of dropped sessions are left"
                )
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
                assert len(rig.node.sessions) == 1, "sessions of dropped connections are still there"
    finally:
        tracemalloc.stop()
        rig.close()
    growth = traced[-1] - traced[1]
    assert growth < 256 << 10, f"memory grew by {growth} bytes: {traced}"


def log_in(rig: Rig, rng: random.Random, last: Wire | None, level: int) -> Wire:
    """A new session, or a connection that continues the one that `last` was of, if that is still there."""
    digest = rng.choice(["None", "None", "CRC32C"])
    if level and last is not None and last.session in rig.node.sessions.values() and rng.random() < 0.7:
        wire = Wire(rig, isid=last.isid, beside=last, cid=rng.choice([last.cid, last.cid + 1]))
        assert wire.log_in(HeaderDigest=digest).status == 0
        return wire
    wire = Wire(rig, fast=rng.random() < 0.7)
    keys = {"HeaderDigest": digest, "InitialR2T": rng.choice(["Yes", "No"]), "MaxConnections": "4"}
    assert wire.log_in(**keys, ErrorRecoveryLevel=str(level)).status == 0
    return wire


@pytest.mark.parametrize(("level", "count"), [(0, IN_TEST), (1, IN_TEST // 10), (2, IN_TEST // 10)])
def test_mutated_pdus(tmp_path: Path, caplog: pytest.LogCaptureFixture, level: int, count: int) -> None:
    throw(count, 1, tmp_path, level)
    assert not [record for record in caplog.records if record.exc_info], "an internal error was caught and logged"


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", [int.from_bytes(os.urandom(4), "big") for _ in range(20)])
def test_mutated_pdus_soak(tmp_path: Path, seed: int) -> None:
    throw(IN_SOAK // 20, seed, tmp_path, level=seed % 3)


def test_garbage_before_login(tmp_path: Path) -> None:
    """Whatever comes before the login is over ends that connection, or is answered, and nothing else."""
    rng = random.Random(3)
    rig = Rig.on_file(tmp_path / "disk")
    login = LoginRequest(b"InitiatorName=iqn.2026-11.test:x\0", csg=0, nsg=3, final=True, itt=1, cmd_sn=1)
    logout = LogoutRequest(final=True, itt=1, cmd_sn=1)
    for number in range(3000):
        wire = Wire(rig)
        choice = number % 3
        if choice == 0:
            wire.send_bytes(rng.randbytes(rng.randrange(1, 300)))
        elif choice == 1:
            wire.send_bytes(mutate(rng, login.encode()))
        else:
            wire.send_bytes(logout.encode())
            assert wire.dropped
        wire.close()
    assert not rig.node.sessions
    rig.close()
