"""The command table of tape drives (SSC-5); what they share with others is in media/unit.py."""

from __future__ import annotations

from blockyard.media import encryption, mam, positioning, transfer, volume_commands
from blockyard.media.unit import COMMANDS
from blockyard.scsi import removable, sbc
from blockyard.scsi.cdb import Access, Check, Command, CommandTable, Conflict, Field, Handler, Kind

_IMMED = Field("immed", 1, 0, 1)
_LENGTH = Field("length", 2, 7, 24)
_FIXED = Field("fixed", 1, 0, 1)
_SECURITY = (
    Field("security_protocol", 1, 7, 8), Field("security_protocol_specific", 2, 7, 16), Field("inc_512", 4, 7, 1, Kind.ZERO),
)  # fmt: skip
_READS, _MOVES = Conflict.EXCLUSIVE_ACCESS, Conflict.ANY
_HOURS = 3 * 3600  # seconds for what takes a drive long


def _tape(
    opcode: int,
    name: str,
    length: int,
    run: Handler,
    *fields: Field,
    check: Check | None = None,
    conflict: Conflict = _MOVES,
    read_only: bool | None = True,
    action: int | None = None,
    timeout: int = 900,
) -> Command:
    """A command that needs the cartridge, and moves it or waits for its file."""
    return Command(
        opcode, name, length, fields, run, check=check, service_action=action, blocking=True, exclusive=True,
        medium=True, conflict=conflict, read_only=read_only, timeout=timeout,
    )  # fmt: skip


def _writing(
    opcode: int, name: str, length: int, run: Handler, *fields: Field, check: Check | None = None, timeout: int = 900
) -> Command:
    """A command that changes the cartridge."""
    return Command(
        opcode, name, length, fields, run, check=check, blocking=True, exclusive=True, medium=True, writes=True,
        timeout=timeout,
    )  # fmt: skip


def _position(action: int, name: str, run: Handler) -> Command:
    return Command(
        0x34, f"READ POSITION: {name}", 10,
        (Field("service_action", 1, 4, 5), Field("allocation", 7, 7, 16, Kind.IGNORED)),
        run, service_action=action, blocking=True, exclusive=True, medium=True, conflict=_READS,
    )  # fmt: skip


def _attributes(action: int, name: str, run: Handler) -> Command:
    return Command(
        0x8C, f"READ ATTRIBUTE: {name}", 16,
        (
            Field("service_action", 1, 4, 5), Field("element", 2, 7, 16, Kind.IGNORED),
            Field("element_type", 4, 3, 4, Kind.IGNORED), Field("logical_volume", 5, 7, 8), Field("partition", 7, 7, 8),
            Field("first_attribute", 8, 7, 16), Field("allocation_length", 10, 7, 32), Field("cache", 14, 0, 1, Kind.IGNORED),
        ),
        run, service_action=action, blocking=True, exclusive=True, medium=True, conflict=Conflict.NEVER,
    )  # fmt: skip


_OWN = [
    _tape(0x01, "REWIND", 6, positioning.rewind, _IMMED),
    Command(
        0x05, "READ BLOCK LIMITS", 6, (Field("mloi", 1, 0, 1, Kind.ZERO),),
        volume_commands.read_block_limits, conflict=Conflict.NEVER, access=Access.STANDBY,
    ),
    _writing(
        0x04, "FORMAT MEDIUM", 6, volume_commands.format_medium, Field("verify", 1, 1, 1, Kind.IGNORED), _IMMED,
        Field("format", 2, 3, 4), Field("transfer_length", 3, 7, 16), check=volume_commands.check_format, timeout=_HOURS,
    ),
    _tape(0x08, "READ (6)", 6, transfer.read, Field("sili", 1, 1, 1), _FIXED, _LENGTH, check=transfer.check_read,
          conflict=_READS),
    Command(
        0x0A, "WRITE (6)", 6, (_FIXED, _LENGTH), transfer.write, check=transfer.check_write,
        data_out=transfer.data_length, blocking=True, exclusive=True, medium=True, writes=True, timeout=900,
    ),
    _writing(0x0B, "SET CAPACITY", 6, volume_commands.set_capacity, _IMMED, Field("proportion", 3, 7, 16)),
    _writing(0x10, "WRITE FILEMARKS (6)", 6, transfer.write_filemarks, Field("wsmk", 1, 1, 1, Kind.ZERO), _IMMED,
             Field("count", 2, 7, 24)),
    _tape(0x11, "SPACE (6)", 6, positioning.space_6, Field("code", 1, 3, 4), Field("count", 2, 7, 24),
          check=positioning.check_space),
    _tape(
        0x13, "VERIFY (6)", 6, transfer.verify, Field("vte", 1, 5, 1, Kind.ZERO), Field("vlbpm", 1, 4, 1, Kind.ZERO),
        Field("vbf", 1, 3, 1, Kind.ZERO), Field("immed", 1, 2, 1), Field("bytcmp", 1, 1, 1, Kind.ZERO), _FIXED, _LENGTH,
        check=transfer.check_verify, conflict=_READS, timeout=_HOURS,
    ),
    _writing(0x19, "ERASE (6)", 6, transfer.erase, Field("immed", 1, 1, 1), Field("long", 1, 0, 1), timeout=_HOURS),
    Command(
        0x1B, "LOAD UNLOAD", 6,
        (_IMMED, Field("hold", 4, 3, 1), Field("eot", 4, 2, 1), Field("reten", 4, 1, 1), Field("load", 4, 0, 1)),
        volume_commands.load_unload, check=volume_commands.check_load_unload, blocking=True, exclusive=True,
        read_only=True, timeout=900,
    ),
    Command(
        0x1E, "PREVENT ALLOW MEDIUM REMOVAL", 6, (Field("prevent", 4, 1, 2),),
        removable.prevent_allow_medium_removal, check=removable.check_prevent_allow, conflict=Conflict.UNLESS_ALLOWS,
        read_only=True,
    ),
    _tape(
        0x2B, "LOCATE (10)", 10, positioning.locate_10, Field("bt", 1, 2, 1, Kind.IGNORED), Field("cp", 1, 1, 1), _IMMED,
        Field("identifier", 3, 7, 32), Field("partition", 8, 7, 8),
    ),
    _position(0x00, "SHORT FORM", positioning.short_position),
    _position(0x01, "SHORT FORM, VENDOR-SPECIFIC", positioning.short_position),
    _position(0x06, "LONG FORM", positioning.long_position),
    _position(0x08, "EXTENDED FORM", positioning.extended_position),
    Command(
        0x44, "REPORT DENSITY SUPPORT", 10,
        (Field("medium_type", 1, 1, 1), Field("media", 1, 0, 1), Field("allocation_length", 7, 7, 16)),
        volume_commands.report_density_support, conflict=Conflict.NEVER, access=Access.STANDBY,
    ),
    _tape(
        0x82, "ALLOW OVERWRITE", 16, transfer.allow_overwrite, Field("allow_overwrite", 2, 3, 4),
        Field("partition", 3, 7, 8), Field("identifier", 4, 7, 64), check=transfer.check_allow_overwrite, read_only=None,
    ),
    _attributes(0x00, "ATTRIBUTE VALUES", mam.attribute_values),
    _attributes(0x01, "ATTRIBUTE LIST", mam.attribute_list),
    _attributes(0x02, "LOGICAL VOLUME LIST", mam.logical_volume_list),
    _attributes(0x03, "PARTITION LIST", mam.partition_list),
    _attributes(0x05, "SUPPORTED ATTRIBUTES", mam.supported_attributes),
    Command(
        0x8D, "WRITE ATTRIBUTE", 16,
        (
            Field("wtc", 1, 0, 1), Field("logical_volume", 5, 7, 8), Field("partition", 7, 7, 8),
            Field("parameter_list_length", 10, 7, 32),
        ),
        mam.write_attribute, check=mam.check_write_attribute, data_out=sbc.parameter_list, blocking=True, exclusive=True,
        medium=True, writes=True,
    ),
    _tape(
        0x91, "SPACE (16)", 16, positioning.space_16, Field("code", 1, 3, 4), Field("count", 4, 7, 64),
        Field("parameter_list_length", 12, 7, 16, Kind.ZERO), check=positioning.check_space,
    ),
    _tape(
        0x92, "LOCATE (16)", 16, positioning.locate_16, Field("dest_type", 1, 5, 3), Field("cp", 1, 1, 1), _IMMED,
        Field("bam", 2, 0, 1, Kind.ZERO), Field("partition", 3, 7, 8), Field("identifier", 4, 7, 64),
        check=positioning.check_locate_16,
    ),
    Command(
        0xA2, "SECURITY PROTOCOL IN", 12,
        (*_SECURITY, Field("allocation_length", 6, 7, 32)),
        encryption.security_protocol_in, check=encryption.check_in, blocking=True, exclusive=True, conflict=_READS,
    ),
    Command(
        0xB5, "SECURITY PROTOCOL OUT", 12,
        (*_SECURITY, Field("parameter_list_length", 6, 7, 32)),  # TRANSFER LENGTH
        encryption.security_protocol_out, check=encryption.check_out, data_out=sbc.parameter_list, blocking=True,
        exclusive=True,
    ),
]  # fmt: skip

TAPE_COMMANDS = CommandTable([*COMMANDS, *_OWN])
