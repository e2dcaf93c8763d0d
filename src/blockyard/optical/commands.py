"""The command table of optical drives (MMC-6); what they share with all devices is taken from scsi/commands.py."""

from __future__ import annotations

from dataclasses import replace

from blockyard.optical import (
    burning,
    events,
    features,
    formatting,
    information,
    mechanism,
    performance,
    reading,
    structures,
    subchannel,
    toc,
)
from blockyard.scsi import sbc
from blockyard.scsi.cdb import Access, Check, Command, CommandTable, Conflict, DataOut, Field, Handler, Kind, no_data
from blockyard.scsi.commands import PRIMARY_COMMANDS

# Diagnostics and logs are not of MMC; A3h and A4h are SEND KEY and REPORT KEY there, for the keys of protected discs
_NOT_OURS = frozenset({0x1C, 0x1D, 0x4C, 0x4D, 0xA3, 0xA4})
_LIST_7 = Field("allocation_length", 7, 7, 16)
_LIST_8 = Field("allocation_length", 8, 7, 16)
_IMMED = Field("immed", 1, 0, 1, Kind.IGNORED)
_RELADR = Field("reladr", 1, 0, 1, Kind.ZERO)
_FUA = (
    Field("dpo", 1, 4, 1, Kind.IGNORED),
    Field("fua", 1, 3, 1, Kind.IGNORED),
)  # nothing is ever newer than the medium
_MAIN = (
    Field("sector_type", 1, 4, 3), Field("dap", 1, 1, 1, Kind.IGNORED), Field("main_channel", 9, 7, 8),
    Field("sub_channel", 10, 2, 3),
)  # fmt: skip


def _asking(
    opcode: int, name: str, length: int, run: Handler, *fields: Field, check: Check | None = None, medium: bool = True
) -> Command:
    """A command that looks at the disc or the drive, without waiting."""
    return Command(
        opcode, name, length, fields, run, check=check, medium=medium, conflict=Conflict.EXCLUSIVE_ACCESS,
    )  # fmt: skip


def _telling(opcode: int, name: str, run: Handler, *fields: Field, check: Check) -> Command:
    """A command that is carried out whatever unit attention is pending (MMC-6 4.1)."""
    return Command(
        opcode, name, 10, (*fields, _LIST_7), run, check=check, exempt=True, conflict=Conflict.NEVER, access=Access.STANDBY,
    )  # fmt: skip


def _reading(opcode: int, name: str, length: int, run: Handler, *fields: Field, check: Check | None = None) -> Command:
    """A command that reads the disc: in a thread, as it may have to wait for its file."""
    return Command(
        opcode, name, length, fields, run, check=check, blocking=True, medium=True,
        conflict=Conflict.EXCLUSIVE_ACCESS, timeout=60,
    )  # fmt: skip


def _read(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, (*_FUA, *fields), reading.read, blocking=True, medium=True, ranged=True, transfers=True,
        conflict=Conflict.EXCLUSIVE_ACCESS, timeout=60,
    )  # fmt: skip


def _write(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, (Field("dpo", 1, 4, 1, Kind.IGNORED), Field("fua", 1, 3, 1), *fields), burning.write,
        check=burning.check_write, data_out=burning.blocks, blocking=True, medium=True, writes=True, ranged=True,
        transfers=True, timeout=60,
    )  # fmt: skip


def _burning(
    opcode: int,
    name: str,
    length: int,
    run: Handler,
    *fields: Field,
    check: Check | None = None,
    data_out: DataOut = no_data,
) -> Command:
    """A command that changes what can be written, alone and in a thread."""
    return Command(
        opcode, name, length, fields, run, check=check, data_out=data_out, blocking=True, exclusive=True, medium=True,
        timeout=600,
    )  # fmt: skip


_OWN = [
    Command(
        0x04, "FORMAT UNIT", 6,
        (
            Field("fmtpinfo", 1, 7, 2, Kind.ZERO), Field("longlist", 1, 5, 1, Kind.ZERO), Field("fmtdata", 1, 4, 1),
            Field("cmplst", 1, 3, 1, Kind.IGNORED), Field("format_code", 1, 2, 3, Kind.IGNORED),
        ),
        formatting.format_unit, data_out=formatting.format_list, blocking=True, exclusive=True, medium=True, writes=True,
        timeout=60,
    ),
    Command(
        0x1B, "START STOP UNIT", 6,
        (
            Field("immed", 1, 0, 1, Kind.IGNORED), Field("format_layer", 3, 1, 2, Kind.IGNORED),
            Field("power_condition", 4, 7, 4), Field("fl", 4, 2, 1), Field("loej", 4, 1, 1), Field("start", 4, 0, 1),
        ),
        mechanism.start_stop_unit, check=mechanism.check_start_stop_unit, blocking=True, exclusive=True,
        conflict=Conflict.UNLESS_STARTS, timeout=60,
    ),
    Command(
        0x1E, "PREVENT ALLOW MEDIUM REMOVAL", 6, (Field("prevent", 4, 1, 2),),
        mechanism.prevent_allow_medium_removal, conflict=Conflict.UNLESS_ALLOWS, read_only=True,
    ),
    _asking(0x23, "READ FORMAT CAPACITIES", 10, formatting.read_format_capacities, _LIST_7, medium=False),
    _asking(
        0x25, "READ CAPACITY", 10, reading.read_capacity,
        _RELADR, Field("lba", 2, 7, 32, Kind.IGNORED), Field("pmi", 8, 0, 1, Kind.IGNORED),
    ),
    _read(0x28, "READ (10)", 10, _RELADR, Field("lba", 2, 7, 32), Field("count", 7, 7, 16)),
    _write(0x2A, "WRITE (10)", 10, _RELADR, Field("lba", 2, 7, 32), Field("count", 7, 7, 16)),
    _reading(
        0x2F, "VERIFY (10)", 10, burning.verify, Field("dpo", 1, 4, 1, Kind.IGNORED), Field("lba", 2, 7, 32),
        Field("count", 7, 7, 16),
    ),
    _asking(0x2B, "SEEK (10)", 10, reading.seek, Field("lba", 2, 7, 32)),
    Command(
        0x35, "SYNCHRONIZE CACHE", 10,
        (
            _RELADR, Field("immed", 1, 1, 1, Kind.IGNORED), Field("lba", 2, 7, 32, Kind.IGNORED),
            Field("count", 7, 7, 16, Kind.IGNORED),
        ),
        burning.synchronize_cache, check=burning.check_synchronize, blocking=True, read_only=True, timeout=60,
    ),
    _asking(
        0x42, "READ SUB-CHANNEL", 10, subchannel.read_sub_channel,
        Field("msf", 1, 1, 1), Field("subq", 2, 6, 1), Field("parameter_list", 3, 7, 8), Field("track", 6, 7, 8), _LIST_7,
        check=subchannel.check_read_sub_channel,
    ),
    _asking(
        0x43, "READ TOC/PMA/ATIP", 10, toc.read_toc,
        Field("msf", 1, 1, 1), Field("format", 2, 3, 4), Field("track_session", 6, 7, 8), _LIST_7,
        Field("legacy_format", 9, 7, 2),
    ),
    _telling(
        0x46, "GET CONFIGURATION", features.get_configuration, Field("rt", 1, 1, 2), Field("starting_feature", 2, 7, 16),
        check=features.check_get_configuration,
    ),
    _telling(
        0x4A, "GET EVENT STATUS NOTIFICATION", events.get_event_status, Field("polled", 1, 0, 1),
        Field("notification_class_request", 4, 7, 8), check=events.check_get_event_status,
    ),
    _asking(
        0x51, "READ DISC INFORMATION", 10, information.read_disc_information, Field("data_type", 1, 2, 3), _LIST_7,
        check=information.check_disc_information,
    ),
    _asking(
        0x52, "READ TRACK INFORMATION", 10, information.read_track_information,
        Field("open", 1, 2, 1, Kind.IGNORED), Field("address_type", 1, 1, 2), Field("address", 2, 7, 32), _LIST_7,
        check=information.check_track_information,
    ),
    _burning(
        0x53, "RESERVE TRACK", 10, burning.reserve_track,
        Field("rmz", 1, 1, 1, Kind.ZERO), Field("arsv", 1, 0, 1, Kind.ZERO), Field("reservation_size", 5, 7, 32),
    ),
    _burning(
        0x54, "SEND OPC INFORMATION", 10, burning.send_opc,
        Field("exclude", 1, 1, 1, Kind.IGNORED), Field("doopc", 1, 0, 1), Field("opc_speed", 2, 7, 16, Kind.IGNORED),
        Field("parameter_list_length", 7, 7, 16), check=burning.check_opc, data_out=burning.opc_list,
    ),
    _burning(
        0x5B, "CLOSE TRACK/SESSION", 10, burning.close_track_session,
        _IMMED, Field("close_function", 2, 2, 3), Field("track", 4, 7, 16), check=burning.check_close,
    ),
    _burning(
        0x5D, "SEND CUE SHEET", 10, burning.send_cue_sheet, Field("parameter_list_length", 6, 7, 24),
        check=burning.check_cue_sheet, data_out=sbc.parameter_list,
    ),
    _asking(
        0x5C, "READ BUFFER CAPACITY", 10, performance.read_buffer_capacity, Field("block", 1, 0, 1), _LIST_7, medium=False
    ),
    _read(0x88, "READ (16)", 16, Field("lba", 2, 7, 64), Field("count", 10, 7, 32)),
    _read(
        0xA8, "READ (12)", 12, _RELADR, Field("lba", 2, 7, 32), Field("count", 6, 7, 32),
        Field("streaming", 10, 7, 1, Kind.IGNORED),
    ),
    _burning(
        0xA1, "BLANK", 12, formatting.blank, Field("immed", 1, 4, 1, Kind.IGNORED), Field("blanking_type", 1, 2, 3),
        Field("address", 2, 7, 32), check=formatting.check_blank,
    ),
    _write(
        0xAA, "WRITE (12)", 12, _RELADR, Field("lba", 2, 7, 32), Field("count", 6, 7, 32),
        Field("streaming", 10, 7, 1, Kind.IGNORED),
    ),
    _asking(
        0xAC, "GET PERFORMANCE", 12, performance.get_performance,
        Field("data_type", 1, 4, 5), Field("starting_lba", 2, 7, 32, Kind.IGNORED), Field("maximum_descriptors", 8, 7, 16),
        Field("type", 10, 7, 8), check=performance.check_get_performance,
    ),
    _asking(
        0xAD, "READ DISC STRUCTURE", 12, structures.read_disc_structure,
        Field("media_type", 1, 3, 4), Field("address", 2, 7, 32, Kind.IGNORED), Field("layer", 6, 7, 8),
        Field("format", 7, 7, 8), _LIST_8, Field("agid", 10, 7, 2, Kind.IGNORED),
    ),
    Command(
        0xB6, "SET STREAMING", 12, (Field("type", 8, 7, 8), Field("parameter_list_length", 9, 7, 16)),
        performance.set_streaming, check=performance.check_set_streaming, data_out=sbc.parameter_list, read_only=True,
    ),
    _reading(
        0xB9, "READ CD MSF", 12, reading.read_cd_msf, Field("first", 3, 7, 24), Field("end", 6, 7, 24), *_MAIN,
        check=reading.check_read_cd,
    ),
    Command(
        0xBB, "SET CD SPEED", 12,
        (
            Field("rotational_control", 1, 1, 2, Kind.IGNORED), Field("read_speed", 2, 7, 16),
            Field("write_speed", 4, 7, 16),
        ),
        performance.set_cd_speed, read_only=True,
    ),
    _asking(0xBD, "MECHANISM STATUS", 12, mechanism.mechanism_status, _LIST_8, medium=False),
    _burning(
        0xBF, "SEND DISC STRUCTURE", 12, burning.send_disc_structure, Field("media_type", 1, 3, 4, Kind.IGNORED),
        Field("format", 7, 7, 8), Field("parameter_list_length", 8, 7, 16), check=burning.check_disc_structure,
        data_out=sbc.parameter_list,
    ),
    _reading(
        0xBE, "READ CD", 12, reading.read_cd, _RELADR, Field("lba", 2, 7, 32), Field("count", 6, 7, 24), *_MAIN,
        check=reading.check_read_cd,
    ),
]  # fmt: skip

# Bits where SCSI-2 had the logical unit number: burning programs still put it there
_LUN = Field("lun", 1, 7, 3, Kind.IGNORED)


def _with_lun(row: Command) -> Command:
    """The command, which does not look at these bits, unless it has something else there."""
    mask = _LUN.mask(row.length)
    fields = row.fields[1:]  # without the operation code, which every command has
    return row if any(field.mask(row.length) & mask for field in fields) else replace(row, fields=(*fields, _LUN))


OPTICAL_COMMANDS = CommandTable(
    [_with_lun(row) for row in (*(row for row in PRIMARY_COMMANDS if row.opcode not in _NOT_OURS), *_OWN)]
)
