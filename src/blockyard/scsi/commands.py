"""The command table: every command that a disk knows, declared once.

Dispatch, checks of fields, REPORT SUPPORTED OPERATION CODES, the page of supported commands in the documentation
and the fuzzer's grammar all come from here. Fields stand at (byte, bit of the most significant bit, width). The rows of
SBC-4 are in block_commands.py.
"""

from __future__ import annotations

from blockyard.scsi import (
    alua,
    buffers,
    copy_results,
    copying,
    log,
    maintenance,
    odx,
    opcodes,
    sbc,
    self_test,
    spc,
)
from blockyard.scsi import persistent_reserve as pr
from blockyard.scsi.block_commands import BLOCK_COMMANDS
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

__all__ = [
    "COMMANDS",
    "PRIMARY_COMMANDS",
    "Access",
    "Capability",
    "Command",
    "CommandTable",
    "Conflict",
    "Field",
    "Kind",
]

_SERVICE_ACTION = Field("service_action", 1, 4, 5)
_GROUP_14 = Field("group_number", 14, 4, 5, Kind.IGNORED)
_MODE_SENSE = (
    Field("dbd", 1, 3, 1),
    Field("page_control", 2, 7, 2),
    Field("page_code", 2, 5, 6),
    Field("subpage_code", 3, 7, 8),
)
_MODE_SELECT = (Field("pf", 1, 4, 1), Field("sp", 1, 0, 1))


# What every initiator asks of every device
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
    action: int,
    name: str,
    run: Handler,
    check: Check | None,
    *fields: Field,
    conflict: Conflict = Conflict.NEVER,
    unready: bool = False,
) -> Command:
    return Command(
        0xA3, name, 12, (_SERVICE_ACTION, *fields, Field("allocation_length", 6, 7, 32)), run, check=check,
        service_action=action, conflict=conflict, access=Access.STANDBY, unready=unready,
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
        log.sense, check=log.check_sense, unready=True, conflict=Conflict.NEVER, access=Access.STANDBY,
    ),
    _report(
        0x05, "REPORT IDENTIFYING INFORMATION", maintenance.report_identifying_information,
        maintenance.check_identifying_information, _INFORMATION_TYPE,
    ),
    _report(
        0x0D, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", maintenance.report_functions,
        maintenance.check_report_functions, Field("repd", 2, 7, 1), conflict=Conflict.EXCLUSIVE_ACCESS,
        unready=True,
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

# What devices of every type have
PRIMARY_COMMANDS = (*_BASIC, *_RESERVATIONS, *_ASYMMETRIC_ACCESS, *_PRIMARY)
COMMANDS = CommandTable([*PRIMARY_COMMANDS, *BLOCK_COMMANDS, *_COPIES])
