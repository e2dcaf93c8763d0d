"""Commands that write to a disc, in order or anywhere (MMC-6): WRITE, SEND CUE SHEET, RESERVE TRACK, CLOSE TRACK/SESSION and
what goes with them.

Of discs that are written anywhere the page cache is the drive's: what was written survives the death of the process, and power
loss after SYNCHRONIZE CACHE. Of others see recorder.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.optical import plan
from blockyard.optical.features import MOST_CUE_SHEET
from blockyard.optical.kinds import BLOCK
from blockyard.optical.pages import WRITE_PARAMETERS
from blockyard.optical.reading import check_range, read_blocks
from blockyard.optical.recorder import FURTHER_SESSIONS, SESSION_AT_ONCE, Parameters, Recorder
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.optical.disc import Disc
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_PIECE = 512  # blocks that VERIFY reads together
_NEGATIVE = 0x80000000  # addresses of a lead-in and of the first pregap: two's complement
_STOP_FORMAT, _TRACK, _SESSION, _FINALIZE, _FINALIZE_FULL = 0, 1, 2, 5, 6  # CLOSE FUNCTION
_INVISIBLE = 0xFF  # the track that is not there yet, or goes on
_STRUCTURES = (
    0x04,
    0x05,
    0x0F,
    0x20,
    0x22,
    0x23,
    0x24,
)  # what a host may say of a disc: nothing that the drive goes by
_OPC = 8  # bytes of an entry


def parameters_of(drive: OpticalDrive) -> Parameters:
    """How hosts want discs to be written (mode page 05h)."""

    def get(name: str) -> int:
        return drive.mode.get(WRITE_PARAMETERS, name)

    def text(name: str, width: int) -> str:
        data = get(name).to_bytes(16, "big")
        return data[1 : 1 + width].decode("latin-1").strip("\0") if data[0] & 0x80 else ""

    return Parameters(
        get("write_type"), bool(get("test_write")), get("multi_session"), get("packet_size") if get("fp") else 0,
        get("data_block_type"), bool(get("track_mode") & 0x2), text("media_catalog_number", 13), text("isrc", 12),
    )  # fmt: skip


def address(fields: dict[str, int]) -> int:
    lba = fields["lba"]
    return lba - (1 << 32) if lba >= _NEGATIVE else lba


def recorder_of(disc: Disc) -> Recorder:
    """Raises CheckCondition for discs that are not written in order."""
    if disc.recorder is None:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    return disc.recorder


def _check_same(drive: OpticalDrive, task: Task) -> Disc:
    """The disc, which is still the one that a command has come for. Raises CheckCondition."""
    assert task.command is not None
    drive.check_same_medium(task)  # while the data came
    drive.check_ready(task.command, task)
    return drive.loaded()


# ---- WRITE


def blocks(fields: dict[str, int], block_size: int) -> int:
    """The Data-Out of WRITE, of discs with blocks."""
    return fields["count"] * block_size


def check_write(drive: OpticalDrive, task: Task) -> None:
    recorder = drive.loaded().recorder
    if recorder is not None:
        task.exclusive = True
        task.expected = task.fields["count"] * recorder.block_bytes(address(task.fields), parameters_of(drive))


def write(drive: OpticalDrive, task: Task) -> Buffer:
    """WRITE (10) and (12): what has come of whole blocks."""
    disc, data, fields = _check_same(drive, task), memoryview(task.data_out), task.fields
    before = disc.blocks
    if disc.recorder is not None:
        with disc.recording():
            _record(drive, disc.recorder, address(fields), fields["count"], data)
    elif whole := len(data) // BLOCK * BLOCK:
        disc.write(fields["lba"] * BLOCK, data[:whole])
    if fields["fua"]:
        disc.flush()
    if (
        disc.blocks != before and not disc.kind.pseudo_overwrite
    ):  # a session that is written at once has come to its end
        task.effect = drive.recorded
    return b""


def _record(drive: OpticalDrive, recorder: Recorder, lba: int, count: int, data: memoryview) -> None:
    parameters = parameters_of(drive)
    stride = recorder.block_bytes(lba, parameters)
    whole = min(count, len(data) // stride) if stride else 0
    if whole:
        recorder.write(lba, whole, data[: whole * stride], parameters)


def verify(drive: OpticalDrive, task: Task) -> Buffer:
    """VERIFY (10): the blocks are read."""
    disc, lba, count = drive.loaded(), task.fields["lba"], task.fields["count"]
    check_range(disc, lba, count)
    for at in range(lba, lba + count, _PIECE):
        read_blocks(disc, at, min(_PIECE, lba + count - at))
    return b""


def check_synchronize(drive: OpticalDrive, task: Task) -> None:
    task.exclusive = drive.disc is not None and drive.disc.recorder is not None


def synchronize_cache(drive: OpticalDrive, task: Task) -> Buffer:
    disc = drive.disc
    if disc is not None:
        disc.flush()
        if disc.kind.pseudo_overwrite and disc.blocks != drive.blocks:  # such a session may never be closed
            task.effect = drive.recorded
    return b""


# ---- tracks and sessions


def check_cue_sheet(drive: OpticalDrive, task: Task) -> None:
    if task.fields["parameter_list_length"] > MOST_CUE_SHEET:
        raise parameter_list_length_error()


def send_cue_sheet(drive: OpticalDrive, task: Task) -> Buffer:
    disc, data, parameters = _check_same(drive, task), bytes(task.data_out), parameters_of(drive)
    recorder = recorder_of(disc)
    if disc.kind.family != "cd":
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    if parameters.write_type != SESSION_AT_ONCE:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    if not data or len(data) % 8:
        raise parameter_list_length_error()
    further = parameters.multi_session == FURTHER_SESSIONS
    sheet = plan.parse(data, further=further, test=parameters.test)
    sheet.catalog = sheet.catalog or parameters.catalog
    recorder.begin(sheet)
    return b""


def reserve_track(drive: OpticalDrive, task: Task) -> Buffer:
    disc, size = drive.loaded(), task.fields["reservation_size"]
    with disc.recording():
        recorder_of(disc).reserve(size)
    return b""


def check_close(drive: OpticalDrive, task: Task) -> None:
    if task.fields["close_function"] not in (_STOP_FORMAT, _TRACK, _SESSION, 3, 4, _FINALIZE, _FINALIZE_FULL):
        raise invalid_field(2, 2)


def close_track_session(drive: OpticalDrive, task: Task) -> Buffer:
    """A disc that is written anywhere has nothing to close: formatting has done so. Who closes it has written it, though.

    That is told too: between formatting and writing Linux may have read what is nothing, and keeps it until it hears of another
    disc; and growisofs, which has heard of formatting, does not load the disc anew by itself.
    """
    disc, function = drive.loaded(), task.fields["close_function"]
    if disc.recorder is None:
        if not disc.kind.writable:
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
        disc.flush()
        task.effect = drive.recorded if function != _STOP_FORMAT else None
        return b""
    before = disc.blocks
    with disc.recording():
        _close(drive, disc, disc.recorder, function, task.fields["track"])
    if disc.blocks != before or disc.kind.pseudo_overwrite:  # what is read again there was perhaps replaced
        task.effect = drive.recorded
    return b""


def _close(drive: OpticalDrive, disc: Disc, recorder: Recorder, function: int, number: int) -> None:
    if function == _TRACK:
        unfinished = recorder.unfinished
        if number in (0, _INVISIBLE) and unfinished is not None:
            number = unfinished.number
        recorder.close_track(number)
    elif function != _STOP_FORMAT:
        by_page = disc.kind.family == "cd" or disc.kind.name.startswith("dvd-")  # others say it by the function
        further = parameters_of(drive).multi_session == FURTHER_SESSIONS
        final = (not further if by_page else False) if function < _FINALIZE else True
        recorder.close_session(final=final)


# ---- what a drive does by itself


def opc_list(fields: dict[str, int], block_size: int) -> int:
    """The Data-Out of SEND OPC INFORMATION."""
    return 0 if fields["doopc"] else fields["parameter_list_length"]


def check_opc(drive: OpticalDrive, task: Task) -> None:
    if not task.fields["doopc"] and task.fields["parameter_list_length"] % _OPC:
        raise parameter_list_length_error()


def send_opc(drive: OpticalDrive, task: Task) -> Buffer:
    """The power of a laser that is not there is always right."""
    if not (drive.loaded().kind.sequential or drive.loaded().kind.writable):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    return b""


def check_disc_structure(drive: OpticalDrive, task: Task) -> None:
    if task.fields["format"] not in _STRUCTURES:
        raise invalid_field(7)


def send_disc_structure(drive: OpticalDrive, task: Task) -> Buffer:
    """User data of the lead-in, a time stamp, where the layers of a disc meet: none of it is kept."""
    disc = drive.loaded()
    if disc.kind.family != "dvd" or not (disc.kind.sequential or disc.kind.writable):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
    return b""
