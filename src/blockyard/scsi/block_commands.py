"""The rows of the command table that SBC-4 has: the commands of block devices (see commands.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from blockyard.scsi import atomic, defects, format, removable, sanitize, sbc
from blockyard.scsi.cdb import Access, Capability, Command, Conflict, Field, Handler, Kind
from blockyard.scsi.task import VARIABLE_LENGTH

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


def _read(opcode: int, name: str, length: int, *fields: Field) -> Command:
    return Command(
        opcode, name, length, fields, sbc.read, check=sbc.check_read,
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
    _read(0x08, "READ (6)", 6, *_RANGE_6),
    _write(0x0A, "WRITE (6)", 6, *_RANGE_6),
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
    _sanitize(sanitize.CRYPTOGRAPHIC_ERASE, "CRYPTOGRAPHIC ERASE", sanitize.erase_keys),
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

BLOCK_COMMANDS = [*_BASIC, *_BLOCKS, *_TYPE_2]
