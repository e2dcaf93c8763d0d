"""The command table: every command that a disk knows, declared once.

Dispatch, checks of fields, REPORT SUPPORTED OPERATION CODES, the page of supported commands in the documentation
and the fuzzer's grammar all come from here. Fields stand at (byte, bit of the most significant bit, width).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from blockyard.scsi import (
    alua,
    atomic,
    buffers,
    copy_results,
    copying,
    defects,
    format,
    log,
    maintenance,
    odx,
    opcodes,
    removable,
    sanitize,
    sbc,
    self_test,
    spc,
)
from blockyard.scsi import persistent_reserve as pr
from blockyard.scsi.cdb import (
    Access,
    Capability,
    Check,
    Command,
    CommandTable,
    Conflict,
    Field,
    Handler,
    Kind,
)
from blockyard.scsi.task import VARIABLE_LENGTH

__all__ = ["COMMANDS", "Access", "Capability", "Command", "CommandTable", "Conflict", "Field", "Kind"]

_SERVICE_ACTION = Field("service_action", 1, 4, 5)
# nothing here is grouped (GROUP_SUP=0), so that the number of a group means nothing
_GROUP_6 = Field("group_number", 6, 4, 5, Kind.IGNORED)
_GROUP_10 = Field("group_number", 10, 4, 5, Kind.IGNORED)
_GROUP_14 = Field("group_number", 14, 4, 5, Kind.IGNORED)

# READ and WRITE: RDPROTECT and WRPROTECT are looked at by protection.check; DPO is a hint
_FUA = (Field("dpo", 1, 4, 1), Field("fua", 1, 3, 1), Field("fua_nv", 1, 1, 1, Kind.IGNORED))
_RDPROTECT = Field("rdprotect", 1, 7, 3)
_WRPROTECT = Field("wrprotect", 1, 7, 3)
_RANGE_6 = (Field("lba", 1, 4, 21), Field("count", 4, 7, 8, zero_means=256))
_RANGE_10 = (Field("lba", 2, 7, 32), _GROUP_6, Field("count", 7, 7, 16))
_RANGE_12 = (Field("lba", 2, 7, 32), Field("count", 6, 7, 32), _GROUP_10)
_RANGE_16 = (Field("lba", 2, 7, 64), Field("count", 10, 7, 32), _GROUP_14)
_VERIFY = (Field("vrprotect", 1, 7, 3), Field("dpo", 1, 4, 1), Field("bytchk", 1, 2, 2))
_WRITE_VERIFY = (_WRPROTECT, Field("dpo", 1, 4, 1), Field("bytchk", 1, 2, 2))
_WRITE_SAME = (_WRPROTECT, Field("anchor", 1, 4, 1, Kind.ZERO), Field("unmap", 1, 3, 1))
_SYNCHRONIZE = (Field("sync_nv", 1, 2, 1, Kind.IGNORED), Field("immed", 1, 1, 1))
_MODE_SENSE = (
    Field("dbd", 1, 3, 1),
    Field("page_control", 2, 7, 2),
    Field("page_code", 2, 5, 6),
    Field("subpage_code", 3, 7, 8),
)
_MODE_SELECT = (Field("pf", 1, 4, 1), Field("sp", 1, 0, 1))


def _read(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.read,
        blocking=True, medium=True, ranged=True, transfers=True, conflict=Conflict.EXCLUSIVE_ACCESS, timeout=30,
    )  # fmt: skip


def _write(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.write, check=sbc.check_write, data_out=sbc.blocks,
        blocking=True, medium=True, writes=True, ranged=True, transfers=True, timeout=30,
    )  # fmt: skip


def _verify(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.verify, check=sbc.check_verify, data_out=sbc.verify_blocks,
        blocking=True, medium=True, ranged=True, transfers=True, conflict=Conflict.EXCLUSIVE_ACCESS, timeout=30,
    )  # fmt: skip


def _write_and_verify(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.write_and_verify, check=sbc.check_write_and_verify, data_out=sbc.blocks,
        blocking=True, medium=True, writes=True, ranged=True, transfers=True, timeout=30,
    )  # fmt: skip


def _synchronize_cache(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.synchronize_cache,
        blocking=True, medium=True, ranged=True, read_only=True, timeout=60,
    )  # fmt: skip


def _write_same(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.write_same, check=sbc.check_write_same, data_out=sbc.one_block,
        blocking=True, medium=True, writes=True, ranged=True, timeout=60,
    )  # fmt: skip


# What makes a disk: the commands that every initiator uses
_BASIC = [
    Command(
        0x00, "TEST UNIT READY", 6, (), spc.test_unit_ready,
        medium=True, conflict=Conflict.NEVER,
    ),
    Command(
        0x03, "REQUEST SENSE", 6,
        (Field("desc", 1, 0, 1), Field("allocation_length", 4, 7, 8)),
        spc.request_sense,
        exempt=True, absent=True, conflict=Conflict.NEVER, access=Access.UNAVAILABLE,
    ),
    _read(0x08, "READ (6)", 6, *_RANGE_6),
    _write(0x0A, "WRITE (6)", 6, *_RANGE_6),
    Command(
        0x12, "INQUIRY", 6,
        (Field("evpd", 1, 0, 1), Field("page_code", 2, 7, 8), Field("allocation_length", 3, 7, 16)),
        spc.inquiry, check=spc.check_inquiry,
        exempt=True, absent=True, conflict=Conflict.NEVER, access=Access.UNAVAILABLE,
    ),
    Command(
        0x15, "MODE SELECT (6)", 6,
        (*_MODE_SELECT, Field("parameter_list_length", 4, 7, 8)),
        spc.mode_select_6, check=spc.check_mode_select, data_out=sbc.parameter_list,
        blocking=True, exclusive=True, access=Access.STANDBY, timeout=60,
    ),
    Command(
        0x1A, "MODE SENSE (6)", 6,
        (*_MODE_SENSE, Field("allocation_length", 4, 7, 8)),
        spc.mode_sense_6,
        conflict=Conflict.EXCLUSIVE_ACCESS, access=Access.STANDBY,
    ),
    Command(
        0x1B, "START STOP UNIT", 6,
        (
            Field("immed", 1, 0, 1),
            Field("power_condition_modifier", 3, 3, 4),
            Field("power_condition", 4, 7, 4),
            Field("no_flush", 4, 2, 1),
            Field("loej", 4, 1, 1),
            Field("start", 4, 0, 1),
        ),
        removable.start_stop_unit, check=removable.check_start_stop_unit,
        blocking=True, exclusive=True, conflict=Conflict.UNLESS_STARTS, timeout=60,
    ),
    Command(
        0x25, "READ CAPACITY (10)", 10,
        (Field("lba", 2, 7, 32, Kind.IGNORED), Field("pmi", 8, 0, 1, Kind.IGNORED)),
        sbc.read_capacity_10,
        medium=True, conflict=Conflict.NEVER, access=Access.STANDBY,
    ),
    _read(0x28, "READ (10)", 10, _RDPROTECT, *_FUA, *_RANGE_10),
    _write(0x2A, "WRITE (10)", 10, _WRPROTECT, *_FUA, *_RANGE_10),
    _write_and_verify(0x2E, "WRITE AND VERIFY (10)", 10, *_WRITE_VERIFY, *_RANGE_10),
    _verify(0x2F, "VERIFY (10)", 10, *_VERIFY, *_RANGE_10),
    _synchronize_cache(0x35, "SYNCHRONIZE CACHE (10)", 10, *_SYNCHRONIZE, *_RANGE_10),
    _write_same(0x41, "WRITE SAME (10)", 10, *_WRITE_SAME, *_RANGE_10),
    Command(
        0x42, "UNMAP", 10,
        (Field("anchor", 1, 0, 1, Kind.ZERO), _GROUP_6, Field("parameter_list_length", 7, 7, 16)),
        sbc.unmap, check=sbc.check_unmap, data_out=sbc.parameter_list, requires=Capability.THIN,
        blocking=True, medium=True, writes=True, timeout=60,
    ),
    Command(
        0x55, "MODE SELECT (10)", 10,
        (*_MODE_SELECT, Field("parameter_list_length", 7, 7, 16)),
        spc.mode_select_10, check=spc.check_mode_select, data_out=sbc.parameter_list,
        blocking=True, exclusive=True, access=Access.STANDBY, timeout=60,
    ),
    Command(
        0x5A, "MODE SENSE (10)", 10,
        (Field("llbaa", 1, 4, 1), *_MODE_SENSE, Field("allocation_length", 7, 7, 16)),
        spc.mode_sense_10,
        conflict=Conflict.EXCLUSIVE_ACCESS, access=Access.STANDBY,
    ),
    _read(0x88, "READ (16)", 16, _RDPROTECT, *_FUA, *_RANGE_16),
    Command(
        0x89, "COMPARE AND WRITE", 16,
        (_WRPROTECT, *_FUA, Field("lba", 2, 7, 64), Field("count", 13, 7, 8), _GROUP_14),
        sbc.compare_and_write, check=sbc.check_compare_and_write, data_out=sbc.twice_blocks,
        blocking=True, exclusive=True, medium=True, writes=True, ranged=True, timeout=30,
    ),
    _write(0x8A, "WRITE (16)", 16, _WRPROTECT, *_FUA, *_RANGE_16),
    _write_and_verify(0x8E, "WRITE AND VERIFY (16)", 16, *_WRITE_VERIFY, *_RANGE_16),
    _verify(0x8F, "VERIFY (16)", 16, *_VERIFY, *_RANGE_16),
    _synchronize_cache(0x91, "SYNCHRONIZE CACHE (16)", 16, *_SYNCHRONIZE, *_RANGE_16),
    _write_same(0x93, "WRITE SAME (16)", 16, *_WRITE_SAME, Field("ndob", 1, 0, 1), *_RANGE_16),
    Command(
        0x9E, "READ CAPACITY (16)", 16,
        (
            _SERVICE_ACTION,
            Field("lba", 2, 7, 64, Kind.IGNORED),
            Field("allocation_length", 10, 7, 32),
            Field("pmi", 14, 0, 1, Kind.IGNORED),
        ),
        sbc.read_capacity_16, service_action=0x10,
        medium=True, conflict=Conflict.NEVER, access=Access.STANDBY,
    ),
    Command(
        0x9E, "GET LBA STATUS (16)", 16,
        (_SERVICE_ACTION, Field("lba", 2, 7, 64), Field("allocation_length", 10, 7, 32)),
        sbc.get_lba_status, check=sbc.check_get_lba_status, service_action=0x12,
        blocking=True, medium=True, conflict=Conflict.EXCLUSIVE_ACCESS, timeout=30,
    ),
    Command(
        0xA0, "REPORT LUNS", 12,
        (Field("select_report", 2, 7, 8), Field("allocation_length", 6, 7, 32)),
        spc.report_luns, check=spc.check_report_luns,
        exempt=True, absent=True, conflict=Conflict.NEVER, access=Access.UNAVAILABLE,
    ),
    Command(
        0xA3, "REPORT SUPPORTED OPERATION CODES", 12,
        (
            _SERVICE_ACTION,
            Field("rctd", 2, 7, 1),
            Field("reporting_options", 2, 2, 3),
            Field("requested_operation_code", 3, 7, 8),
            Field("requested_service_action", 4, 7, 16),
            Field("allocation_length", 6, 7, 32),
        ),
        opcodes.report, check=opcodes.check, service_action=0x0C, unready=True,
        conflict=Conflict.EXCLUSIVE_ACCESS, access=Access.STANDBY,
    ),
    _read(0xA8, "READ (12)", 12, _RDPROTECT, *_FUA, *_RANGE_12),
    _write(0xAA, "WRITE (12)", 12, _WRPROTECT, *_FUA, *_RANGE_12),
    _write_and_verify(0xAE, "WRITE AND VERIFY (12)", 12, *_WRITE_VERIFY, *_RANGE_12),
    _verify(0xAF, "VERIFY (12)", 12, *_VERIFY, *_RANGE_12),
]  # fmt: skip


def _pre_fetch(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.pre_fetch,
        blocking=True, medium=True, ranged=True, conflict=Conflict.EXCLUSIVE_ACCESS, timeout=30,
    )  # fmt: skip


def _sanitize(action: int, name: str, run: Handler) -> Command:
    return Command(
        sanitize.OPCODE, f"SANITIZE ({name})", 10,
        (Field("immed", 1, 7, 1), Field("ause", 1, 5, 1), _SERVICE_ACTION, Field("parameter_list_length", 7, 7, 16)),
        run, check=sanitize.check, data_out=sbc.parameter_list, service_action=action,
        blocking=True, exclusive=True, medium=True, writes=True, timeout=3600,
    )  # fmt: skip


_DEFECT_LISTS = (Field("req_plist", 2, 4, 1), Field("req_glist", 2, 3, 1), Field("defect_list_format", 2, 2, 3))
_IMMED = Field("immed", 1, 1, 1)

# The rest of what SBC-4 has for disks
_BLOCKS = [
    Command(
        format.OPCODE, "FORMAT UNIT", 6,
        (
            Field("fmtpinfo", 1, 7, 2), Field("longlist", 1, 5, 1), Field("fmtdata", 1, 4, 1),
            Field("cmplst", 1, 3, 1), Field("defect_list_format", 1, 2, 3), Field("vendor_specific", 2, 7, 8, Kind.IGNORED),
            Field("ffmt", 4, 1, 2, Kind.ZERO),
        ),
        format.format_unit, check=format.check,
        blocking=True, exclusive=True, medium=True, writes=True, timeout=3600,
    ),
    Command(
        0x1E, "PREVENT ALLOW MEDIUM REMOVAL", 6, (Field("prevent", 4, 1, 2),),
        removable.prevent_allow_medium_removal, check=removable.check_prevent_allow, requires=Capability.REMOVABLE,
        conflict=Conflict.UNLESS_ALLOWS,
    ),
    _pre_fetch(0x34, "PRE-FETCH (10)", 10, _IMMED, *_RANGE_10),
    Command(
        0x37, "READ DEFECT DATA (10)", 10,
        (*_DEFECT_LISTS, Field("allocation_length", 7, 7, 16)),
        defects.read_defect_data_10,
        medium=True, conflict=Conflict.EXCLUSIVE_ACCESS,
    ),
    Command(
        0x8B, "ORWRITE (16)", 16,
        (Field("orprotect", 1, 7, 3), *_FUA, *_RANGE_16),
        atomic.orwrite, data_out=sbc.or_blocks,
        blocking=True, exclusive=True, medium=True, writes=True, ranged=True, transfers=True, timeout=30,
    ),
    _sanitize(sanitize.OVERWRITE, "OVERWRITE", sanitize.overwrite),
    _sanitize(sanitize.BLOCK_ERASE, "BLOCK ERASE", sanitize.erase),
    _sanitize(sanitize.CRYPTOGRAPHIC_ERASE, "CRYPTOGRAPHIC ERASE", sanitize.erase),
    _sanitize(sanitize.EXIT_FAILURE_MODE, "EXIT FAILURE MODE", sanitize.exit_failure_mode),
    _pre_fetch(0x90, "PRE-FETCH (16)", 16, _IMMED, *_RANGE_16),
    Command(
        0x9C, "WRITE ATOMIC (16)", 16,
        (
            _WRPROTECT, Field("dpo", 1, 4, 1), Field("fua", 1, 3, 1), Field("lba", 2, 7, 64),
            Field("atomic_boundary", 10, 7, 16), Field("count", 12, 7, 16), _GROUP_14,
        ),
        atomic.write_atomic, check=atomic.check_write_atomic, data_out=sbc.blocks,
        blocking=True, exclusive=True, medium=True, writes=True, ranged=True, transfers=True, timeout=30,
    ),
    Command(
        0xB7, "READ DEFECT DATA (12)", 12,
        (
            Field("req_plist", 1, 4, 1), Field("req_glist", 1, 3, 1), Field("defect_list_format", 1, 2, 3),
            Field("address_descriptor_index", 2, 7, 32), Field("allocation_length", 6, 7, 32),
        ),
        defects.read_defect_data_12,
        medium=True, conflict=Conflict.EXCLUSIVE_ACCESS,
    ),
]  # fmt: skip
_THIRD_PARTY = Field(
    "third_party", 1, 4, 1, Kind.ZERO
)  # and extents: nobody may reserve for others, or less than the unit
_EXTENT = Field("extent", 1, 0, 1, Kind.ZERO)


def _persistent_reserve_in(service_action: int, name: str, run: Handler) -> Command:
    return Command(
        0x5E, f"PERSISTENT RESERVE IN: {name}", 10,
        (_SERVICE_ACTION, Field("allocation_length", 7, 7, 16)),
        run, check=pr.check_in, service_action=service_action,
        conflict=Conflict.NEVER, access=Access.STANDBY,
    )  # fmt: skip


def _persistent_reserve_out(service_action: int, name: str, run: Handler, conflict: Conflict = Conflict.KEY) -> Command:
    return Command(
        0x5F, f"PERSISTENT RESERVE OUT: {name}", 10,
        (
            _SERVICE_ACTION,
            Field("scope", 2, 7, 4),
            Field("type", 2, 3, 4),
            Field("parameter_list_length", 5, 7, 32),
        ),
        run, check=pr.check_out, data_out=sbc.parameter_list, service_action=service_action,
        exclusive=True, conflict=conflict, access=Access.STANDBY,
    )  # fmt: skip


def _reserve(opcode: int, name: str, length: int, run: Handler, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, run,
        exclusive=True, conflict=Conflict.NEVER, read_only=False, access=Access.STANDBY,
    )  # fmt: skip


# What clusters share a disk with
_RESERVATIONS = [
    _reserve(
        0x16, "RESERVE (6)", 6, pr.reserve_unit, _THIRD_PARTY, _EXTENT,
        Field("reservation_identification", 2, 7, 8, Kind.IGNORED),
    ),
    _reserve(
        0x17, "RELEASE (6)", 6, pr.release_unit, _THIRD_PARTY, _EXTENT,
        Field("reservation_identification", 2, 7, 8, Kind.IGNORED),
    ),
    _reserve(
        0x56, "RESERVE (10)", 10, pr.reserve_unit, _THIRD_PARTY, Field("longid", 1, 1, 1, Kind.ZERO), _EXTENT,
        Field("reservation_identification", 2, 7, 8, Kind.IGNORED),
        Field("third_party_device_id", 3, 7, 8, Kind.IGNORED),
    ),
    _reserve(
        0x57, "RELEASE (10)", 10, pr.release_unit, _THIRD_PARTY, Field("longid", 1, 1, 1, Kind.ZERO), _EXTENT,
        Field("reservation_identification", 2, 7, 8, Kind.IGNORED),
        Field("third_party_device_id", 3, 7, 8, Kind.IGNORED),
    ),
    _persistent_reserve_in(0x00, "READ KEYS", pr.read_keys),
    _persistent_reserve_in(0x01, "READ RESERVATION", pr.read_reservation),
    _persistent_reserve_in(0x02, "REPORT CAPABILITIES", pr.report_capabilities),
    _persistent_reserve_in(0x03, "READ FULL STATUS", pr.read_full_status),
    _persistent_reserve_out(0x00, "REGISTER", pr.register, Conflict.NEVER),
    _persistent_reserve_out(0x01, "RESERVE", pr.reserve),
    _persistent_reserve_out(0x02, "RELEASE", pr.release),
    _persistent_reserve_out(0x03, "CLEAR", pr.clear),
    _persistent_reserve_out(0x04, "PREEMPT", pr.preempt),
    _persistent_reserve_out(0x05, "PREEMPT AND ABORT", pr.preempt_and_abort),
    _persistent_reserve_out(
        0x06, "REGISTER AND IGNORE EXISTING KEY", pr.register_and_ignore_existing_key, Conflict.NEVER
    ),
    _persistent_reserve_out(0x07, "REGISTER AND MOVE", pr.register_and_move),
    _persistent_reserve_out(0x08, "REPLACE LOST RESERVATION", pr.replace_lost_reservation),
]  # fmt: skip

# Paths of different worth
_ASYMMETRIC_ACCESS = [
    Command(
        0xA3, "REPORT TARGET PORT GROUPS", 12,
        (Field("parameter_data_format", 1, 7, 3), _SERVICE_ACTION, Field("allocation_length", 6, 7, 32)),
        alua.report_target_port_groups, check=alua.check_report, service_action=0x0A, unready=True,
        conflict=Conflict.NEVER, access=Access.UNAVAILABLE,
    ),
    Command(
        0xA4, "SET TARGET PORT GROUPS", 12,
        (_SERVICE_ACTION, Field("parameter_list_length", 6, 7, 32)),
        alua.set_target_port_groups, check=alua.check_set, data_out=sbc.parameter_list, service_action=0x0A,
        blocking=True, exclusive=True, access=Access.UNAVAILABLE,
    ),
]  # fmt: skip

_LIST_LENGTH = Field("parameter_list_length", 10, 7, 32)
_ALLOCATION_LENGTH = Field("allocation_length", 10, 7, 32)
_LIST_ID_1, _LIST_ID_4 = Field("list_identifier", 2, 7, 8), Field("list_identifier", 2, 7, 32)


def _copy(action: int, name: str, run: Handler, check: Check, *fields: Field) -> Command:
    return Command(
        0x83, name, 16, (_SERVICE_ACTION, *fields, _LIST_LENGTH), run, check=check, data_out=sbc.parameter_list,
        service_action=action, in_pieces=True, timeout=600,
    )  # fmt: skip


def _copy_results(action: int, name: str, run: Handler, *fields: Field) -> Command:
    return Command(
        0x84,
        name,
        16,
        (_SERVICE_ACTION, *fields, _ALLOCATION_LENGTH),
        run,
        service_action=action,
        conflict=Conflict.NEVER,
    )


# Third-party copy: data goes from unit to unit within the target (SPC-5), ROD tokens (SBC-4)
_COPIES = [
    _copy(0x00, "EXTENDED COPY (LID1)", copying.extended_copy_lid1, copying.check_extended_copy),
    _copy(0x01, "EXTENDED COPY (LID4)", copying.extended_copy_lid4, copying.check_extended_copy),
    Command(
        0x83, "POPULATE TOKEN", 16,
        (_SERVICE_ACTION, Field("list_identifier", 6, 7, 32), _LIST_LENGTH, _GROUP_14),
        odx.populate_token, check=odx.check_populate_token, data_out=sbc.parameter_list, service_action=0x10,
        exclusive=True, medium=True, conflict=Conflict.EXCLUSIVE_ACCESS,
    ),
    _copy(
        0x11, "WRITE USING TOKEN", odx.write_using_token, odx.check_write_using_token,
        Field("list_identifier", 6, 7, 32), _GROUP_14,
    ),
    Command(
        0x83, "COPY OPERATION ABORT", 16, (_SERVICE_ACTION, _LIST_ID_4), copy_results.copy_operation_abort,
        service_action=0x1C,
    ),
    _copy_results(0x00, "RECEIVE COPY STATUS (LID1)", copy_results.copy_status_lid1, _LIST_ID_1),
    _copy_results(0x01, "RECEIVE COPY DATA (LID1)", copy_results.receive_copy_data, _LIST_ID_1),
    _copy_results(
        0x03, "RECEIVE COPY OPERATING PARAMETERS", copy_results.operating_parameters,
        Field("list_identifier", 2, 7, 8, Kind.IGNORED),
    ),
    _copy_results(0x04, "RECEIVE COPY FAILURE DETAILS (LID1)", copy_results.failed_segment_details, _LIST_ID_1),
    _copy_results(0x05, "RECEIVE COPY STATUS (LID4)", copy_results.copy_status_lid4, _LIST_ID_4),
    _copy_results(0x06, "RECEIVE COPY DATA (LID4)", copy_results.receive_copy_data, _LIST_ID_4),
    _copy_results(
        0x07, "RECEIVE ROD TOKEN INFORMATION", copy_results.receive_rod_token_information, _LIST_ID_4
    ),
    _copy_results(0x08, "REPORT ALL ROD TOKENS", odx.report_all_rod_tokens),
]  # fmt: skip

_BUFFER = (
    Field("mode_specific", 1, 7, 3, Kind.ZERO),
    Field("mode", 1, 4, 5),
    Field("buffer_id", 2, 7, 8),
    Field("buffer_offset", 3, 7, 24),
)


def _report(
    action: int, name: str, run: Handler, check: Check | None, *fields: Field, conflict: Conflict = Conflict.NEVER
) -> Command:
    return Command(
        0xA3, name, 12, (_SERVICE_ACTION, *fields, Field("allocation_length", 6, 7, 32)), run, check=check,
        service_action=action, conflict=conflict, access=Access.STANDBY,
    )  # fmt: skip


def _set(action: int, name: str, run: Handler, check: Check, *fields: Field, blocking: bool = False) -> Command:
    return Command(
        0xA4, name, 12, (_SERVICE_ACTION, *fields, Field("parameter_list_length", 6, 7, 32)), run, check=check,
        data_out=sbc.parameter_list, service_action=action, blocking=blocking, exclusive=True, access=Access.STANDBY,
    )  # fmt: skip


_INFORMATION_TYPE = Field("type", 10, 7, 7)

_LOG_PAGE = (Field("page_control", 2, 7, 2), Field("page_code", 2, 5, 6), Field("subpage_code", 3, 7, 8))

# The rest of what SPC-5 has for every device
_PRIMARY = [
    Command(
        0x1C, "RECEIVE DIAGNOSTIC RESULTS", 6,
        (Field("pcv", 1, 0, 1), Field("page_code", 2, 7, 8), Field("allocation_length", 3, 7, 16)),
        self_test.receive_diagnostic_results, check=self_test.check_receive,
        conflict=Conflict.EXCLUSIVE_ACCESS, access=Access.STANDBY,
    ),
    Command(
        0x1D, "SEND DIAGNOSTIC", 6,
        (
            Field("self_test_code", 1, 7, 3), Field("pf", 1, 4, 1), Field("self_test", 1, 2, 1),
            Field("devoffl", 1, 1, 1), Field("unitoffl", 1, 0, 1), Field("parameter_list_length", 3, 7, 16),
        ),
        self_test.send_diagnostic, check=self_test.check_send, data_out=sbc.parameter_list,
        in_pieces=True, medium=True, access=Access.STANDBY, timeout=600,
    ),
    Command(
        0x3B, "WRITE BUFFER", 10, (*_BUFFER, Field("parameter_list_length", 6, 7, 24)),
        buffers.write_buffer, check=buffers.check_write, data_out=sbc.parameter_list,
    ),
    Command(
        0x3C, "READ BUFFER", 10, (*_BUFFER, Field("allocation_length", 6, 7, 24)),
        buffers.read_buffer, check=buffers.check_read, conflict=Conflict.EXCLUSIVE_ACCESS,
    ),
    Command(
        0x4C, "LOG SELECT", 10,
        (
            Field("pcr", 1, 1, 1), Field("sp", 1, 0, 1, Kind.ZERO), *_LOG_PAGE,
            Field("parameter_list_length", 7, 7, 16),
        ),
        log.select, check=log.check_select, data_out=sbc.parameter_list, exclusive=True, access=Access.STANDBY,
    ),
    Command(
        0x4D, "LOG SENSE", 10,
        (
            Field("ppc", 1, 1, 1, Kind.ZERO), Field("sp", 1, 0, 1, Kind.ZERO), *_LOG_PAGE,
            Field("parameter_pointer", 5, 7, 16), Field("allocation_length", 7, 7, 16),
        ),
        log.sense, check=log.check_sense, conflict=Conflict.NEVER, access=Access.STANDBY,
    ),
    _report(
        0x05, "REPORT IDENTIFYING INFORMATION", maintenance.report_identifying_information,
        maintenance.check_identifying_information, _INFORMATION_TYPE,
    ),
    _report(
        0x0D, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", maintenance.report_functions,
        maintenance.check_report_functions, Field("repd", 2, 7, 1), conflict=Conflict.EXCLUSIVE_ACCESS,
    ),
    _report(
        0x0E, "REPORT PRIORITY", maintenance.report_priority, maintenance.check_report_priority,
        Field("priority_reported", 2, 7, 2),
    ),
    _report(0x0F, "REPORT TIMESTAMP", maintenance.report_timestamp, None),
    _set(
        0x06, "SET IDENTIFYING INFORMATION", maintenance.set_identifying_information,
        maintenance.check_identifying_information, _INFORMATION_TYPE, blocking=True,
    ),
    _set(
        0x0E, "SET PRIORITY", maintenance.set_priority, maintenance.check_set_priority,
        Field("nexus_to_set", 2, 7, 2),
    ),
    _set(0x0F, "SET TIMESTAMP", maintenance.set_timestamp, maintenance.check_list),
]  # fmt: skip

# CDBs of 32 bytes, for protection information of type 2 (SBC-4; SPC-5, variable length CDB formats)
_HEAD_32 = (
    Field("group_number", 6, 4, 5, Kind.IGNORED),
    Field("additional_cdb_length", 7, 7, 8),
    Field("service_action", 8, 7, 16),
)
_TAGS_32 = (
    Field("lba", 12, 7, 64),
    Field("expected_initial_logical_block_reference_tag", 20, 7, 32),
    Field("expected_logical_block_application_tag", 24, 7, 16),
    Field("logical_block_application_tag_mask", 26, 7, 16),
    Field("count", 28, 7, 32),
)
_DPO_32 = Field("dpo", 10, 4, 1)
_FUA_32 = (_DPO_32, Field("fua", 10, 3, 1), Field("fua_nv", 10, 1, 1, Kind.IGNORED))
_BYTCHK_32 = Field("bytchk", 10, 2, 2)


def _long(make: Callable[..., Command], action: int, name: str, protect: str, *fields: Field) -> Command:
    command = make(VARIABLE_LENGTH, f"{name} (32)", 32, *_HEAD_32, Field(protect, 10, 7, 3), *fields, *_TAGS_32)
    return replace(command, fields=command.fields[1:], service_action=action, requires=Capability.TYPE_2)


_TYPE_2 = [
    _long(_read, 0x09, "READ", "rdprotect", *_FUA_32),
    _long(_verify, 0x0A, "VERIFY", "vrprotect", _DPO_32, _BYTCHK_32),
    _long(_write, 0x0B, "WRITE", "wrprotect", *_FUA_32),
    _long(_write_and_verify, 0x0C, "WRITE AND VERIFY", "wrprotect", _DPO_32, _BYTCHK_32),
    _long(
        _write_same, 0x0D, "WRITE SAME", "wrprotect",
        Field("anchor", 10, 4, 1, Kind.ZERO), Field("unmap", 10, 3, 1), Field("ndob", 10, 0, 1),
    ),
]  # fmt: skip

COMMANDS = CommandTable([*_BASIC, *_BLOCKS, *_TYPE_2, *_RESERVATIONS, *_ASYMMETRIC_ACCESS, *_COPIES, *_PRIMARY])
