"""Reservations: what each command may do under each, what outlives what, and parameter data that is wrong."""

from __future__ import annotations

import errno
import logging
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.scsi import limits
from blockyard.scsi import transport_id as transport_ids
from blockyard.scsi.commands import COMMANDS, Command
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Status, Task
from tests.scsi.cluster import (
    ALL_TG_PT,
    APTPL,
    CLEAR,
    EA,
    EAAR,
    EARO,
    MOVE,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    REPLACE_LOST,
    RESERVE,
    SPEC_I_PT,
    TYPES,
    WE,
    WEAR,
    WERO,
    attentions,
    conflicts,
    do,
    full_status,
    generation,
    good,
    join,
    keys,
    parameters,
    pr_in,
    pr_out,
    reservation,
    shared_disk,
    transport_id,
)
from tests.scsi.host import (
    TEST_UNIT_READY,
    UUID_1,
    Host,
    cdb_of,
    inquiry,
    read_16,
    report_luns,
    request_sense,
    start_stop,
    write_16,
)

RESERVE_6, RELEASE_6 = bytes([0x16, 0, 0, 0, 0, 0]), bytes([0x17, 0, 0, 0, 0, 0])
RESERVE_10, RELEASE_10 = bytes([0x56]) + bytes(9), bytes([0x57]) + bytes(9)

# ---- the whole matrix: SPC-4 tables 65 and 66, SBC-4 table 13, by the names that they have there


def _names(text: str) -> frozenset[str]:
    return frozenset(" ".join(text.split()).split("; "))


_ALWAYS = _names("""
    ACCESS CONTROL IN; ACCESS CONTROL OUT; INQUIRY; LOG SENSE; PERSISTENT RESERVE IN; READ MEDIA SERIAL NUMBER;
    RECEIVE COPY DATA; RECEIVE COPY RESULTS; RECEIVE COPY OPERATING PARAMETERS; RECEIVE COPY FAILURE DETAILS;
    RECEIVE COPY STATUS; RECEIVE ROD TOKEN INFORMATION; REPORT ALIASES; REPORT ALL ROD TOKENS;
    REPORT IDENTIFYING INFORMATION; REPORT LUNS; REPORT PRIORITY; REPORT TARGET PORT GROUPS; REPORT TIMESTAMP; REQUEST SENSE;
    TEST UNIT READY; READ CAPACITY; REPORT REFERRALS; REPORT PROVISIONING INITIALIZATION PATTERN
    """)
_READS = _names("""
    MANAGEMENT PROTOCOL IN; MODE SENSE; READ ATTRIBUTE; READ BUFFER; RECEIVE DIAGNOSTIC RESULTS;
    REPORT SUPPORTED OPERATION CODES; REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS; SECURITY PROTOCOL IN; GET LBA STATUS;
    GET PHYSICAL ELEMENT STATUS; GET STREAM STATUS; POPULATE TOKEN; PRE-FETCH; READ; READ DEFECT DATA; VERIFY
    """)
_OUT = {  # from a registered nexus, from another one
    "REGISTER": (True, True),
    "REGISTER AND IGNORE EXISTING KEY": (True, True),
    "CLEAR": (True, False),
    "PREEMPT": (True, False),
    "PREEMPT AND ABORT": (True, False),
    "RELEASE": (True, False),
    "REGISTER AND MOVE": (False, False),
    "RESERVE": (False, False),
}
_REGISTRANTS = (WERO, EARO, WEAR, EAAR)
_EXCLUSIVE = (EA, EARO, EAAR)


def _family(command: Command) -> str:
    """The name under which the tables have a command: READ for READ (10)."""
    return re.sub(r" ?\(.*?\)|:.*", "", command.name)


def _cdb(command: Command) -> bytes:
    cdb = cdb_of(command)
    if command.opcode == 0x5F:
        cdb[2], cdb[8] = WE, 24
    return bytes(cdb)


def _forms(command: Command) -> list[tuple[str, bytes]]:
    """A command in the forms that the tables tell apart."""
    cdb = bytearray(_cdb(command))
    if command.name == "START STOP UNIT":
        return [("always", bytes(cdb[:4] + b"\1" + cdb[5:])), ("conflict", bytes(cdb))]
    if command.name == "PREVENT ALLOW MEDIUM REMOVAL":
        return [("always", bytes(cdb)), ("conflict", bytes(cdb[:4] + b"\1" + cdb[5:]))]
    family = _family(command)
    return [("always" if family in _ALWAYS else "reads" if family in _READS else "conflict", bytes(cdb))]


def _refused(host: Host, cdb: bytes) -> bool:
    data = parameters(host_key(host)) if cdb[0] == 0x5F else b""
    return conflicts(host.send(cdb, data))


def host_key(host: Host) -> int:
    return host.disk.reservations.state.keys.get(host.nexus.it, 0)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda command: command.name)
def test_conflict_matrix(command: Command, kind: int) -> None:
    if command.opcode in (0x16, 0x17, 0x56, 0x57) or command.service_action == 0x08:
        return  # RESERVE and RELEASE, and REPLACE LOST RESERVATION, have rules and tests of their own
    for form, cdb in _forms(command):
        for role in ("holder", "registrant", "other"):
            target = shared_disk()
            holder, registrant, other = (join(target, name) for name in ("holder", "registrant", "other"))
            good(holder, REGISTER, 0, 1)
            good(registrant, REGISTER, 0, 2)
            good(holder, RESERVE, 1, kind=kind)
            host = {"holder": holder, "registrant": registrant, "other": other}[role]
            holds = role == "holder" or (role == "registrant" and kind in (WEAR, EAAR))
            if command.opcode == 0x5F:
                action = command.name.partition(": ")[2]
                if holds and action in ("RESERVE", "REGISTER AND MOVE", "RELEASE", "PREEMPT", "PREEMPT AND ABORT"):
                    continue  # its own reservation: no conflict, but not every parameter makes sense
                expected = not _OUT[action][role == "other"]
            elif holds or (role == "registrant" and kind in _REGISTRANTS):
                expected = False
            else:
                expected = form == "conflict" or (form == "reads" and kind in _EXCLUSIVE)
            assert _refused(host, cdb) == expected, (form, role)


@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda command: command.name)
def test_conflicts_with_reserve(command: Command) -> None:
    """Under a RESERVE of another nexus what SPC-2 5.5.1 names is carried out, and little else; persistent ones never."""
    target = shared_disk()
    holder, other = join(target, "holder"), join(target, "other")
    holder.ok(RESERVE_6)
    passing = {"INQUIRY", "REPORT LUNS", "REQUEST SENSE", "LOG SENSE", "RELEASE", "READ CAPACITY"}
    allows = command.name == "PREVENT ALLOW MEDIUM REMOVAL"  # PREVENT=0
    assert _refused(other, _cdb(command)) == (_family(command) not in passing and not allows)
    assert _refused(holder, _cdb(command)) == command.name.startswith("PERSISTENT")


# ---- the short cut


@pytest.mark.parametrize("kind", TYPES)
def test_the_short_cut_is_closed_for_those_alone_against_whom_it_stands(kind: int) -> None:
    target = shared_disk()
    holder, registrant, other = (join(target, name) for name in ("holder", "registrant", "other"))
    good(holder, REGISTER, 0, 1)
    good(registrant, REGISTER, 0, 2)
    good(holder, RESERVE, 1, kind=kind)
    late = join(target, "late")
    assert holder.nexus.gate is None
    assert (registrant.nexus.gate is None) == (kind in _REGISTRANTS)
    assert other.nexus.gate is not None
    assert late.nexus.gate is not None
    good(holder, RELEASE, 1, kind=kind)
    attentions(registrant)
    assert all(host.nexus.gate is None for host in (holder, registrant, other, late))


def test_a_write_that_waited_for_its_data_is_not_carried_out_after_its_nexus_is_shut_out() -> None:
    target = shared_disk()
    node_1, node_2 = join(target, "node1"), join(target, "node2")
    good(node_1, REGISTER, 0, 1)
    good(node_1, RESERVE, 1, kind=WERO)
    good(node_2, REGISTER, 0, 2)
    task, result = node_1.begin(write_16(0, 1), 512)
    assert result is None
    good(node_2, PREEMPT, 2, 1, kind=WERO)
    task.data_out = b"\xff" * 512  # now it has come
    assert conflicts(node_1.unit.run(task))
    assert node_2.read(0, 1) == bytes(512)


def test_preempt_and_abort_aborts_the_tasks_of_the_preempted_but_not_of_others() -> None:
    target = shared_disk()
    node_1, node_2, node_3 = (join(target, name) for name in ("node1", "node2", "node3"))
    aborted: list[str] = []

    def watch(name: str, nexus: Nexus) -> None:
        def abort(but: Task) -> None:
            aborted.append(name)

        nexus.abort_tasks = abort

    for key, host in enumerate((node_1, node_2, node_3), 1):
        watch(f"node{key}", host.nexus)
        good(host, REGISTER, 0, key)
    good(node_1, RESERVE, 1, kind=WERO)
    node_1.ok(bytes([0x1E, 0, 0, 0, 1, 0]))
    good(node_2, PREEMPT, 2, 3, kind=WERO)
    assert not aborted
    assert node_1.disk.tray.locked
    good(node_2, PREEMPT_AND_ABORT, 2, 1, kind=WERO)
    assert aborted == ["node1"]
    assert not node_1.disk.tray.locked
    good(node_2, REGISTER, 2, 4)
    good(node_2, PREEMPT_AND_ABORT, 4, 4, kind=EARO)  # itself: the reservation is a new one
    assert aborted == ["node1", "node2"]
    assert reservation(node_2) == (4, EARO)


# ---- what outlives what


def test_registrations_are_those_of_initiator_and_target_port_and_survive_logout_and_reset() -> None:
    target = shared_disk()
    host, same_initiator = join(target, "a", 1), join(target, "a", 2)
    good(host, REGISTER, 0, 1)
    good(host, RESERVE, 1, kind=WERO)
    assert same_initiator.nexus.gate is not None
    host.unit.detach(host.nexus)
    host.unit.reset()
    again = join(target, "a", 1)
    assert again.nexus.gate is None
    again.write(0, bytes(512))
    attentions(same_initiator)
    assert conflicts(same_initiator.send(write_16(0, 1), bytes(512)))
    assert [entry.relative_port for entry in full_status(again)] == [1]


def test_all_target_ports() -> None:
    target = shared_disk(ports=3)
    hosts = [join(target, "a", tag) for tag in (1, 2, 3)]
    good(hosts[0], REGISTER, 0, 7, flags=ALL_TG_PT)
    assert [(entry.key, entry.relative_port) for entry in full_status(hosts[0])] == [(7, 1), (7, 2), (7, 3)]
    good(hosts[1], REGISTER, 7, 8)
    good(hosts[0], REGISTER, 7, 0, flags=ALL_TG_PT)  # its own, on every port; port 2 has another key by now
    assert [(entry.key, entry.relative_port) for entry in full_status(hosts[0])] == [(8, 2)]


def spec_i_pt(key: int, new_key: int, *names: bytes, flags: int = SPEC_I_PT) -> bytes:
    tids = b"".join(names)
    return parameters(key, new_key, flags) + struct.pack(">I", len(tids)) + tids


def test_specified_initiator_ports() -> None:
    target = shared_disk()
    host = join(target, "a")
    data = spec_i_pt(0, 5, transport_id("iqn.test:b"), transport_id("IQN.test:far", "23D000001"))
    host.ok(pr_out(REGISTER, length=len(data)), data)
    assert {entry.initiator for entry in full_status(host)} == {
        f"iqn.test:{name}" for name in ("a,i,0x00023d000000", "b,i,0x00023d000000", "far,i,0x00023d000001")
    }
    good(host, RESERVE, 5, kind=EARO)
    join(target, "b").write(0, bytes(512))  # registered before it came


def test_a_node_stands_for_all_its_ports_that_are_known() -> None:
    target = shared_disk()
    host = join(target, "a")
    join(target, "b")
    data = spec_i_pt(0, 5, transport_id("iqn.test:b", None), flags=SPEC_I_PT | ALL_TG_PT)
    host.ok(pr_out(REGISTER, length=len(data)), data)
    assert sorted((entry.initiator[9], entry.relative_port) for entry in full_status(host)) == [
        ("a", 1), ("a", 2), ("b", 1), ("b", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "asc"),
    [
        (parameters(0, 5, SPEC_I_PT), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (spec_i_pt(0, 5, transport_id("iqn.test:b"))[:-4], Asc.PARAMETER_LIST_LENGTH_ERROR),
        (spec_i_pt(0, 5, transport_id("iqn.test:b")[:-4]), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (spec_i_pt(0, 5, transport_id("iqn.test:nobody", None)), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (spec_i_pt(0, 5, b"\x45\x00\x00\x14no isid" + bytes(13)), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (spec_i_pt(0, 5, b"\x45\x00\x00\x14\xff\xfe,i,0x1" + bytes(12)), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (spec_i_pt(0, 5, b"\x00\x00\x00\x14" + bytes(20)), Asc.INVALID_FIELD_IN_PARAMETER_LIST),  # Fibre Channel
        (spec_i_pt(0, 5, b"\x85\x00\x00\x14" + bytes(20)), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (spec_i_pt(0, 5, b"\x45"), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (spec_i_pt(0, 5, transport_id("iqn.test:registered")), Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        (parameters(0, 5) + bytes(4), Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameters(0, 5)[:20], Asc.PARAMETER_LIST_LENGTH_ERROR),
        (parameters(0, 5, APTPL), Asc.INVALID_FIELD_IN_PARAMETER_LIST),  # there is no place to keep it in
    ],
)
def test_parameter_lists_of_register_that_are_wrong(data: bytes, asc: Asc) -> None:
    target = shared_disk()
    host = join(target, "a")
    good(join(target, "registered"), REGISTER, 0, 9)
    host.fail(pr_out(REGISTER, length=len(data)), SenseKey.ILLEGAL_REQUEST, asc, data)
    assert keys(host) == [9]


def test_less_data_than_announced_and_more_than_anybody_needs() -> None:
    host = join(shared_disk(), "a")
    for cdb in (pr_out(REGISTER, length=24), pr_out(REGISTER, length=1 << 31)):
        host.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(20))


def test_spec_i_pt_belongs_to_register_of_an_unregistered_nexus() -> None:
    target = shared_disk()
    host = join(target, "a")
    data = spec_i_pt(0, 5, transport_id("iqn.test:b"))
    for action in (REGISTER_AND_IGNORE, RESERVE, RELEASE, CLEAR, PREEMPT):
        host.fail(
            pr_out(action, WE, len(data)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data,
            pointer=(False, 20, 3),
        )  # fmt: skip
    good(host, REGISTER, 0, 1)
    data = spec_i_pt(1, 5)
    host.fail(pr_out(REGISTER, length=28), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data)


@given(name=st.from_regex(r"iqn\.[a-z0-9.:-]{1,219}", fullmatch=True), isid=st.binary(min_size=6, max_size=6))
def test_transport_ids_both_ways(name: str, isid: bytes) -> None:
    port = f"{name},i,0x{isid.hex()}"
    data = transport_ids.encode(port)
    assert len(data) >= 24
    assert len(data) % 4 == 0
    assert transport_ids.ports(data, ()) == {port}
    assert list(transport_ids.split(data * 3)) == [data] * 3
    assert transport_ids.ports(transport_id(name, None), [port, "iqn.other,i,0x000000000000"]) == {port}


def move(key: int, new_key: int, port: int, tid: bytes, *, unregister: bool = False) -> bytes:
    return struct.pack(">QQxBHI", key, new_key, unregister << 1, port, len(tid)) + tid


def test_register_and_move() -> None:
    target = shared_disk()
    host, other = join(target, "a"), join(target, "b", 2)
    good(host, REGISTER, 0, 1)
    good(host, RESERVE, 1, kind=EA)
    wrong = [
        (move(1, 2, 3, transport_id("iqn.test:b")), (False, 18, None)),
        (move(1, 2, 2, transport_id("iqn.test:a")), (False, 24, None)),
        (move(1, 0, 2, transport_id("iqn.test:b")), (False, 8, None)),
        (move(1, 2, 2, transport_id("iqn.test:nobody", None)), (False, 24, None)),
    ]
    for data, pointer in wrong:
        host.fail(
            pr_out(MOVE, length=len(data)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data,
            pointer=pointer,
        )  # fmt: skip
    data = move(1, 2, 2, transport_id("iqn.test:b"), unregister=True)
    host.fail(pr_out(MOVE, length=len(data)), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, data[:-4])
    host.ok(pr_out(MOVE, length=len(data)), data)
    assert reservation(other) == (2, EA)
    assert keys(other) == [2]
    assert (host.nexus.gate is None, other.nexus.gate is None) == (False, True)


def test_type_and_scope() -> None:
    host = join(shared_disk(), "a")
    good(host, REGISTER, 0, 1)
    for kind in set(range(16)) - set(TYPES):
        host.fail(
            pr_out(RESERVE, kind), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, parameters(1),
            pointer=(True, 2, 3),
        )  # fmt: skip
    host.fail(
        pr_out(RESERVE, WE, scope=1), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, parameters(1),
        pointer=(True, 2, 7),
    )  # fmt: skip
    good(host, RESERVE, 1, kind=WE)
    host.fail(
        pr_out(RELEASE, EA), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION, parameters(1)
    )


def test_there_is_an_end_to_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REGISTRATIONS", 2)
    target = shared_disk()
    good(join(target, "a"), REGISTER, 0, 1)
    good(join(target, "b"), REGISTER, 0, 2)
    join(target, "c").fail(
        pr_out(REGISTER), SenseKey.ILLEGAL_REQUEST, Asc.INSUFFICIENT_REGISTRATION_RESOURCES, parameters(0, 3)
    )


# ---- through loss of power


def capabilities(host: Host) -> bytes:
    return host.ok(pr_in(2))


def test_capabilities(tmp_path: Path) -> None:
    host = join(shared_disk(tmp_path), "a")
    assert capabilities(host) == bytes.fromhex("0008 9d c0 ea01 0000")
    good(host, REGISTER, 0, 1, flags=APTPL)
    assert capabilities(host) == bytes.fromhex("0008 9d c1 ea01 0000")
    assert capabilities(join(shared_disk(), "a"))[2] == 0x9C  # nowhere to keep them


@pytest.mark.parametrize("kind", TYPES)
def test_with_aptpl_everything_is_there_again(kind: int, tmp_path: Path) -> None:
    target = shared_disk(tmp_path)
    holder, other = join(target, "a"), join(target, "b", 2)
    good(holder, REGISTER, 0, 1)
    good(other, REGISTER, 0, 2, flags=APTPL)
    good(holder, RESERVE, 1, kind=kind)
    before = full_status(holder)
    target = shared_disk(tmp_path)  # the power was off
    holder, other, third = join(target, "a"), join(target, "b", 2), join(target, "c")
    assert full_status(holder) == before
    assert generation(holder) == 0
    assert third.nexus.gate is not None
    assert conflicts(third.send(write_16(0, 1), bytes(512)))
    good(holder, RELEASE, 1, kind=kind)
    holder = join(shared_disk(tmp_path), "a")
    assert keys(holder) == [1, 2]
    assert reservation(holder) is None


def test_the_last_aptpl_decides(tmp_path: Path) -> None:
    host = join(shared_disk(tmp_path), "a")
    good(host, REGISTER, 0, 1, flags=APTPL)
    assert keys(join(shared_disk(tmp_path), "a")) == [1]
    good(host, REGISTER, 1, 2)  # without
    assert not list(tmp_path.iterdir())
    assert keys(host) == [2]
    assert keys(join(shared_disk(tmp_path), "a")) == []


def test_clear_is_kept_too(tmp_path: Path) -> None:
    host = join(shared_disk(tmp_path), "a")
    good(host, REGISTER, 0, 1, flags=APTPL)
    good(host, RESERVE, 1, kind=WE)
    good(host, CLEAR, 1)
    again = join(shared_disk(tmp_path), "b")
    assert again.nexus.gate is None
    assert capabilities(again)[3] & 1


def test_nothing_has_changed_when_it_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = shared_disk(tmp_path)
    host, other = join(target, "a"), join(target, "b")
    good(host, REGISTER, 0, 1, flags=APTPL)
    saved = host.disk.durable.save
    for number, key, asc in (
        (errno.ENOSPC, SenseKey.ILLEGAL_REQUEST, Asc.INSUFFICIENT_REGISTRATION_RESOURCES),
        (errno.EIO, SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE),
    ):

        def fail(kind: str, document: object, number: int = number) -> None:
            raise OSError(number, "cannot be written")

        monkeypatch.setattr(host.disk.durable, "save", fail)
        host.fail(pr_out(RESERVE, EA), key, asc, parameters(1))
        assert reservation(host) is None
        assert other.nexus.gate is None
    monkeypatch.setattr(host.disk.durable, "save", saved)
    good(host, RESERVE, 1, kind=EA)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "nonsense"])
def test_reservations_that_cannot_be_read_keep_everybody_out(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = shared_disk(tmp_path)
    host = join(target, "a")
    good(host, REGISTER, 0, 1, flags=APTPL)
    good(host, RESERVE, 1, kind=WERO)
    host.fail(
        pr_out(REPLACE_LOST, WE), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION,
        parameters(0, 1),
    )  # fmt: skip
    path = tmp_path / f"{UUID_1}.reservations.json"
    text = path.read_bytes()
    at = text.index(b'"key":"') + 22
    path.write_bytes(
        {"cut": text[:-5], "flip": text[:at] + b"7" + text[at + 1 :], "empty": b"", "nonsense": b"[1]"}[damage]
    )
    with caplog.at_level(logging.CRITICAL):
        target = shared_disk(tmp_path)
    assert str(path) in caplog.text
    host, other = Host(target, 0, "iqn.test:a"), Host(target, 0, "iqn.test:b")
    lost = (SenseKey.DATA_PROTECT, Asc.PERSISTENT_RESERVATION_INFORMATION_LOST)
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
    for cdb in (TEST_UNIT_READY, read_16(0, 1), write_16(0, 1), pr_in(0), RESERVE_6, pr_out(REGISTER)):
        host.fail(cdb, *lost, parameters(0, 1))
    assert host.nexus.gate is not None
    for cdb in (inquiry(), report_luns(), request_sense(), start_stop(1)):
        host.ok(cdb)
    for key, new_key, kind in ((1, 2, WE), (0, 0, WE), (0, 2, 2)):
        assert do(host, REPLACE_LOST, key, new_key, kind=kind).status == Status.CHECK_CONDITION
    good(host, REPLACE_LOST, 0, 2, kind=WE, flags=APTPL)
    assert (keys(host), reservation(host), generation(host)) == ([2], (2, WE), 0)
    host.write(0, bytes(512))
    other.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
    assert conflicts(other.send(write_16(0, 1), bytes(512)))
    assert reservation(join(shared_disk(tmp_path), "a")) == (2, WE)


# ---- RESERVE and RELEASE


@pytest.mark.parametrize(("reserve", "release"), [(RESERVE_6, RELEASE_6), (RESERVE_10, RELEASE_10)])
def test_reserve_is_for_one_alone_until_it_releases(reserve: bytes, release: bytes) -> None:
    target = shared_disk()
    host, other = join(target, "a"), join(target, "b")
    host.ok(reserve)
    host.ok(reserve)
    host.write(0, bytes(512))
    assert (host.nexus.gate is None, other.nexus.gate is None) == (True, False)
    assert conflicts(other.send(reserve))
    other.ok(release)  # which releases nothing
    assert conflicts(other.send(TEST_UNIT_READY))
    host.ok(release)
    assert other.nexus.gate is None
    other.ok(reserve)


def test_reserve_ends_with_a_reset_or_its_nexus() -> None:
    target = shared_disk()
    host, other = join(target, "a"), join(target, "b")
    host.ok(RESERVE_6)
    other.unit.reset()
    assert attentions(other) == [Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED]
    assert attentions(host) == [Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED]
    host.ok(RESERVE_6)
    other.unit.detach(other.nexus)
    assert conflicts(join(target, "c").send(read_16(0, 1)))
    host.unit.detach(host.nexus)
    join(target, "c").read(0, 1)


def test_reserve_and_registrations_keep_each_other_out() -> None:
    target = shared_disk()
    host, other = join(target, "a"), join(target, "b")
    good(host, REGISTER, 0, 1)
    for cdb in (RESERVE_6, RELEASE_6, RESERVE_10, RELEASE_10):
        assert conflicts(host.send(cdb))
        assert conflicts(other.send(cdb))
    good(host, REGISTER, 1, 0)
    host.ok(RESERVE_6)
    assert conflicts(do(host, REGISTER, 0, 1))
    assert conflicts(host.send(pr_in(0)))


@pytest.mark.parametrize("kind", TYPES)
def test_reserve_of_who_has_access_already_does_nothing(kind: int) -> None:
    """CRH (SPC-4 5.13.3)."""
    target = shared_disk()
    holder, registrant, other = (join(target, name) for name in ("holder", "registrant", "other"))
    good(holder, REGISTER, 0, 1)
    good(registrant, REGISTER, 0, 2)
    good(holder, RESERVE, 1, kind=kind)
    for cdb in (RESERVE_6, RELEASE_6):
        holder.ok(cdb)
        assert conflicts(registrant.send(cdb)) == (kind not in _REGISTRANTS)
        assert conflicts(other.send(cdb))
    assert reservation(holder) == (0 if kind in (WEAR, EAAR) else 1, kind)


@pytest.mark.parametrize("byte", [0x10, 0x01])
def test_reserve_for_others_or_for_a_part(byte: int) -> None:
    host = join(shared_disk(), "a")
    host.invalid(bytes([0x16, byte, 0, 0, 0, 0]), 1, byte.bit_length() - 1)
