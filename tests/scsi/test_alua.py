"""Target port groups: what is reported, who may change it, what each state lets pass, and who is told."""

from __future__ import annotations

import errno
import logging
import struct
from pathlib import Path

import pytest

from blockyard.scsi.alua import STATES, AccessState, PortGroup, PortGroups
from blockyard.scsi.commands import COMMANDS, Access, Command
from blockyard.scsi.durable import Durable
from blockyard.scsi.nexus import target_port
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.task import Status
from tests.scsi.cluster import attentions, join, shared_disk
from tests.scsi.host import NAME, TEST_UNIT_READY, Host, cdb_of, inquiry, memory, parse_sense, read_16

AO, AN, STANDBY, UNAVAILABLE, OFFLINE, TRANSITIONING = AccessState
_NOT_READY = {
    STANDBY: Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE,
    UNAVAILABLE: Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE,
    OFFLINE: Asc.LOGICAL_UNIT_NOT_READY_OFFLINE,
    TRANSITIONING: Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION,
}
_PASSING = {
    AO: frozenset(Access),
    AN: frozenset(Access),
    STANDBY: {Access.STANDBY, Access.UNAVAILABLE},
    UNAVAILABLE: {Access.UNAVAILABLE},
    OFFLINE: {Access.UNAVAILABLE},
    TRANSITIONING: {Access.UNAVAILABLE},
}


def report(data_format: int = 0, length: int = 4096) -> bytes:
    return struct.pack(">BBxxxxIxx", 0xA3, data_format << 5 | 0x0A, length)


def set_groups(*states: tuple[int, int]) -> tuple[bytes, bytes]:
    """The CDB and the parameter list of SET TARGET PORT GROUPS."""
    data = bytes(4) + b"".join(struct.pack(">BxH", state, tag) for tag, state in states)
    return struct.pack(">BBxxxxIxx", 0xA4, 0x0A, len(data)), data


def states(host: Host) -> dict[int, tuple[int, bool, int]]:
    """State, PREF and STATUS CODE by group."""
    data = host.ok(report())
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    found, at = {}, 4
    while at < len(data):
        first, supported, tag, status, count = struct.unpack_from(">BBHxBxB", data, at)
        assert supported == 0xCF
        assert [struct.unpack_from(">HH", data, at + 8 + 4 * n)[1] for n in range(count)] == [tag]
        found[tag] = first & 0xF, bool(first & 0x80), status
        at += 8 + 4 * count
    return found


def test_inquiry_says_that_paths_differ() -> None:
    assert memory().ok(inquiry())[5] & 0x30 == 0x30  # TPGS: implicit and explicit


def test_page_83h_names_the_port_and_its_group() -> None:
    data = join(shared_disk(), "a", 2).ok(inquiry(0x83, 4096))
    assert b"\x51\x94\x00\x04\x00\x00\x00\x02" in data  # relative target port identifier
    assert b"\x51\x95\x00\x04\x00\x00\x00\x02" in data  # target port group
    assert f"{NAME},t,0x0002".encode() in data


def test_report_with_either_header() -> None:
    host = join(shared_disk(), "a")
    short, extended = host.ok(report(0)), host.ok(report(1))
    assert extended[4:8] == b"\x10\0\0\0"
    assert extended[8:] == short[4:]
    assert int.from_bytes(extended[:4], "big") == len(extended) - 4
    assert host.ok(report(0, 10)) == short[:10]
    host.invalid(report(2), 1, 7)
    assert states(host) == {1: (AO, False, 0), 2: (AO, False, 0)}


def test_the_administrator_changes_a_state_and_everybody_hears_of_it() -> None:
    target = shared_disk()
    hosts = [join(target, "a", 1), join(target, "a", 2), join(target, "b", 2)]
    target.ports.set(2, AN)
    assert [attentions(host) for host in hosts] == [[Asc.ASYMMETRIC_ACCESS_STATE_CHANGED]] * 3
    assert states(hosts[0]) == {1: (AO, False, 0), 2: (AN, False, 2)}
    target.ports.set(2, AN)
    assert [attentions(host) for host in hosts] == [[]] * 3  # nothing has changed
    target.ports.set(1, preferred=True)
    attentions(hosts[0])
    assert states(hosts[0]) == {1: (AO, True, 0), 2: (AN, False, 2)}
    with pytest.raises(LookupError, match="no target port group 3; there are 1, 2"):
        target.ports.set(3, AN)


def test_an_initiator_changes_states_and_all_others_hear_of_it() -> None:
    target = shared_disk()
    host, same, other = join(target, "a", 1), join(target, "a", 2), join(target, "b", 1)
    host.ok(*set_groups((1, AN), (2, AO)))
    assert attentions(host) == []
    assert attentions(same) == attentions(other) == [Asc.ASYMMETRIC_ACCESS_STATE_CHANGED]
    assert states(host) == {1: (AN, False, 1), 2: (AO, False, 1)}
    host.ok(struct.pack(">BBxxxxIxx", 0xA4, 0x0A, 0))  # no list, no change
    host.ok(*set_groups())
    assert attentions(other) == []


def test_an_initiator_that_makes_a_group_optimized_moves_the_load() -> None:
    target = shared_disk(ports=4)
    host = join(target, "a", 2)
    target.ports.set(2, AN)
    target.ports.set(3, STANDBY)
    attentions(host)
    host.ok(*set_groups((2, AO)))
    assert {tag: state for tag, (state, _, _) in states(host).items()} == {1: AN, 2: AO, 3: STANDBY, 4: AN}
    host.ok(*set_groups((2, AO)))  # it is so already: that moves nothing
    host.ok(*set_groups((1, AO), (2, AO)))
    assert {tag: state for tag, (state, _, _) in states(host).items()} == {1: AO, 2: AO, 3: STANDBY, 4: AN}


@pytest.mark.parametrize("code", sorted(set(range(16)) - {AO, AN, STANDBY, UNAVAILABLE}))
def test_states_that_an_initiator_cannot_set(code: int) -> None:
    host = join(shared_disk(), "a")
    cdb, data = set_groups((1, AN), (2, code))
    host.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data, pointer=(False, 8, 3))
    assert states(host)[1][0] == AO  # all or nothing


def test_parameter_lists_that_are_wrong() -> None:
    host = join(shared_disk(), "a")
    cdb, data = set_groups((7, AN))
    host.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, data, pointer=(False, 6, None))
    for length, sent in ((6, 6), (3, 3), (8, 4), (1 << 31, 8)):
        cdb = struct.pack(">BBxxxxIxx", 0xA4, 0x0A, length)
        host.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(sent))


@pytest.mark.parametrize("state", AccessState, ids=lambda state: state.text)
@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda command: command.name)
def test_what_passes_in_each_state(command: Command, state: AccessState) -> None:
    target = shared_disk()
    host, elsewhere = join(target, "a", 1), join(target, "a", 2)
    target.ports.set(1, state)
    attentions(elsewhere)
    host.nexus.take_attention()
    result = host.send(bytes(cdb_of(command)))
    sense = parse_sense(result.sense) if result.sense else None
    refused = sense is not None and sense.key == SenseKey.NOT_READY and sense.asc == _NOT_READY.get(state)
    assert refused == (command.access not in _PASSING[state])
    assert elsewhere.send(TEST_UNIT_READY).status != Status.CHECK_CONDITION


@pytest.mark.parametrize("state", AccessState, ids=lambda state: state.text)
def test_the_short_cut_is_closed_where_reads_do_not_pass(state: AccessState) -> None:
    target = shared_disk()
    host = join(target, "a", 1)
    target.ports.set(1, state)
    late = Host(target, 0, "iqn.test:late", 1)
    host.nexus.take_attention()
    late.nexus.take_attention()
    for one in (host, late):
        assert (one.nexus.gate is None) == (state in (AO, AN))
    target.ports.set(1, AN)
    host.nexus.take_attention()
    assert host.nexus.gate is None


def test_what_every_path_needs_passes_everywhere() -> None:
    """What standby and unavailable ports take by SPC-4 5.16.2.4.4 and 5.16.2.4.5, as far as there is the command."""
    always = {"INQUIRY", "REPORT LUNS", "REPORT TARGET PORT GROUPS", "SET TARGET PORT GROUPS", "REQUEST SENSE"}
    standby = {"LOG SELECT", "LOG SENSE", "MODE SELECT", "MODE SENSE", "RECEIVE DIAGNOSTIC RESULTS", "SEND DIAGNOSTIC",
               "PERSISTENT RESERVE IN", "PERSISTENT RESERVE OUT"}  # fmt: skip
    for command in COMMANDS:
        name = command.name.partition(":")[0].partition(" (")[0]
        if name in always:
            assert command.access is Access.UNAVAILABLE, name
        if name in standby:
            assert command.access is not Access.ACTIVE, name
        if command.ranged or command.writes:
            assert command.access is Access.ACTIVE, name


# ---- what is kept


def kept(directory: Path, *tags: int) -> PortGroups:
    return PortGroups([target_port(NAME, tag) for tag in tags], Durable(directory, NAME))


def test_states_outlive_the_process(tmp_path: Path) -> None:
    groups = kept(tmp_path, 1, 2)
    groups.set(2, STANDBY)
    groups.set(1, preferred=True)
    again = kept(tmp_path, 1, 2)
    assert (again.group(2).state, again.group(2).preferred) == (STANDBY, False)
    assert (again.group(1).state, again.group(1).preferred) == (AO, True)


def test_a_group_that_comes_back_is_as_it_was(tmp_path: Path) -> None:
    groups = kept(tmp_path, 1, 2)
    groups.set(2, STANDBY)
    groups.set_ports([target_port(NAME, 1)])
    groups.set(1, AN)
    with pytest.raises(LookupError):
        groups.group(2)
    assert kept(tmp_path, 1, 2).group(2).state == STANDBY
    groups.set_ports([target_port(NAME, 1), target_port(NAME, 2)])
    assert groups.group(2).state == STANDBY


def test_what_was_changed_goes_before_what_was_configured(tmp_path: Path) -> None:
    ports = [target_port(NAME, 1), target_port(NAME, 2)]
    initial = {1: PortGroup(preferred=True), 2: PortGroup(AN)}
    groups = PortGroups(ports, Durable(tmp_path, NAME), initial)
    assert (groups.group(1), groups.group(2)) == (PortGroup(AO, True, 0), PortGroup(AN, False, 0))
    groups.set(2, STANDBY)
    again = PortGroups(ports, Durable(tmp_path, NAME), {1: PortGroup(AN), 2: PortGroup(AN)})
    assert (again.group(1).state, again.group(2).state) == (AN, STANDBY)


def test_a_port_that_is_gone_is_unavailable() -> None:
    target = shared_disk()
    host = join(target, "a", 2)
    target.ports.set_ports([target_port(NAME, 1)])
    host.fail(read_16(0, 1), SenseKey.UNIT_ATTENTION, Asc.INQUIRY_DATA_HAS_CHANGED)
    host.fail(read_16(0, 1), SenseKey.NOT_READY, _NOT_READY[UNAVAILABLE])


def test_a_change_that_cannot_be_kept_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    durable = Durable(tmp_path, NAME)
    target = shared_disk()
    target = Target(NAME, target.luns.units, durable=durable)
    host = join(target, "a")

    def fail(kind: str, document: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(durable, "save", fail)
    cdb, data = set_groups((1, STANDBY))
    host.fail(cdb, SenseKey.HARDWARE_ERROR, Asc.SET_TARGET_PORT_GROUPS_COMMAND_FAILED, data)
    assert states(host) == {1: (AO, False, 0)}
    assert host.send(TEST_UNIT_READY).status == Status.GOOD


@pytest.mark.parametrize("document", [{"x": {}}, {"1": {"state": "asleep"}}, [1]])
def test_kept_states_that_make_no_sense_are_told_and_left(
    document: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Durable(tmp_path, NAME).save("target-port-groups", document)
    with caplog.at_level(logging.ERROR):
        assert kept(tmp_path, 1).group(1).state == AO
    assert "cannot be read" in caplog.text


def test_names_of_states() -> None:
    assert list(STATES) == [
        "active/optimized", "active/non-optimized", "standby", "unavailable", "offline", "transitioning"
    ]  # fmt: skip
