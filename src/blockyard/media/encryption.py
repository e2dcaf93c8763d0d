"""Tape data encryption: SECURITY PROTOCOL IN and OUT with protocol 20h (SSC-5), and what its parameters do to transfers.

A host sets them for itself or for all that use the drive. They live in the drive alone: a reset and a restart of the server
end them, as loss of power does in hardware.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockyard.media.envelope import AUTHENTICATED, MOST_ASSOCIATED, UNAUTHENTICATED, Associated, envelope
from blockyard.media.partition import Seal
from blockyard.media.record import Sealed
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_field,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.sealing import Key
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.task import Buffer, Task

INFORMATION, TAPE = 0x00, 0x20  # security protocols
SET_DATA_ENCRYPTION = 0x0010
_PUBLIC, _LOCAL, _ALL = 0, 1, 2  # SCOPE
_ENCRYPT = 2  # ENCRYPTION MODE; 0: none
_RAW, _DECRYPT, _MIXED = 1, 2, 3  # DECRYPTION MODE; 0: none
_ALGORITHM = 1  # ALGORITHM INDEX
_AES_256_GCM = 0x00010014  # SECURITY ALGORITHM CODE: ENCR_AES_GCM with a tag of 16 bytes
_PLAIN_TEXT = 0  # KEY FORMAT
_KEY_LENGTH = 32
_NOT_RAW = 3  # RDMC: what is written is not to be read raw
_DEMOUNT = 0x04  # CKOD
_NO_BLOCK, _NOT_ENCRYPTED, _ENCRYPTED, _NO_KEY = 2, 3, 5, 6  # ENCRYPTION STATUS
_NOT_COVERED, _NOT_TRIED = 1, 2  # AUTHENTICATED


@dataclass(frozen=True)
class Parameters:
    """What a host has set."""

    encryption: int = 0
    decryption: int = 0
    key: Key | None = field(default=None, repr=False)
    associated: tuple[Associated, ...] = ()
    external: int = 0  # CEEM
    raw: bool = True  # what is written may be read as it is stored
    until_demount: bool = False
    instance: int = 0  # KEY INSTANCE COUNTER

    @property
    def plain(self) -> bool:
        """Whether nothing is encrypted or decrypted."""
        return not self.encryption and not self.decryption

    @property
    def seal(self) -> Seal | None:
        """What encrypts blocks that are written."""
        key = self.key
        if not self.encryption or key is None:
            return None
        return lambda kind, data, length, number: key.seal(
            kind, data, length, number, associated=self.associated, raw=self.raw
        )

    def open(self, block: bytes | Sealed) -> bytes:
        """A block as the host is to see it. Raises CheckCondition where it must not or cannot, OSError where it is damaged."""
        if not isinstance(block, Sealed):
            if self.decryption in (_RAW, _DECRYPT):
                raise _protected(Asc.UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING)
            return block
        if self.decryption == _RAW:
            if not envelope(block).raw:
                raise _protected(Asc.ENCRYPTED_BLOCK_NOT_RAW_READ_ENABLED)
            return block.stored
        if not self.decryption or self.key is None:
            raise _protected(Asc.UNABLE_TO_DECRYPT_DATA)
        if not self.key.fits(envelope(block)):
            raise _protected(Asc.INCORRECT_DATA_ENCRYPTION_KEY)
        try:
            return self.key.open(block)
        except OSError as error:
            raise _protected(Asc.CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED) from error


def _protected(asc: Asc) -> CheckCondition:
    return CheckCondition(SenseKey.DATA_PROTECT, asc)


_NONE = Parameters()


class Encryption:
    """The parameters that hold in one drive. What is looked at from several threads is replaced whole."""

    def __init__(self) -> None:
        self._all = _NONE
        self._setter: Nexus | None = None  # who has set those for all
        self._local: dict[Nexus, Parameters] = {}
        self._instance = 0

    def of(self, nexus: Nexus) -> Parameters:
        """What holds for an initiator."""
        return self._local.get(nexus, self._all)

    def scopes(self, nexus: Nexus) -> tuple[int, int]:
        """I_T NEXUS SCOPE and KEY SCOPE."""
        if nexus in self._local:
            return _LOCAL, _LOCAL
        return (
            _ALL if nexus is self._setter else _PUBLIC,
            _ALL if self._instance and self._all is not _NONE else _PUBLIC,
        )

    def next_instance(self) -> int:
        self._instance = self._instance + 1 & 0xFFFFFFFF
        return self._instance

    def put(self, nexus: Nexus, scope: int, parameters: Parameters) -> None:
        """One has set parameters; with `_PUBLIC` it gives up those of its own."""
        local = {known: value for known, value in self._local.items() if known is not nexus}
        if scope == _LOCAL:
            local[nexus] = parameters
        elif scope == _ALL:
            self._all, self._setter = parameters, nexus
        self._local = local

    def others(self, nexus: Nexus, nexuses: Sequence[Nexus]) -> list[Nexus]:
        """Who else uses those for all."""
        return [one for one in nexuses if one is not nexus and one not in self._local]

    def forget(self, nexus: Nexus) -> None:
        """It is gone: so are parameters that were its own."""
        self._local = {known: value for known, value in self._local.items() if known is not nexus}
        self._setter = None if self._setter is nexus else self._setter

    def demounted(self) -> None:
        """The cartridge is gone, and with it keys that were set for as long as it is there (CKOD)."""
        self._local = {nexus: value for nexus, value in self._local.items() if not value.until_demount}
        if self._all.until_demount:
            self._all, self._setter = _NONE, None

    def reset(self) -> None:
        self._all, self._setter, self._local = _NONE, None, {}


# ---- SECURITY PROTOCOL IN


def _head(code: int, body: bytes) -> bytes:
    return struct.pack(">HH", code, len(body)) + body


def _protocols(unit: TapeDrive, task: Task) -> bytes:
    return bytes(6) + struct.pack(">H", 2) + bytes([INFORMATION, TAPE])


def _no_certificate(unit: TapeDrive, task: Task) -> bytes:
    return bytes(4)


def _in_pages(unit: TapeDrive, task: Task) -> bytes:
    codes = sorted(code for protocol, code in _IN if protocol == TAPE)
    return _head(0x0000, b"".join(code.to_bytes(2, "big") for code in codes))


def _out_pages(unit: TapeDrive, task: Task) -> bytes:
    return _head(0x0001, SET_DATA_ENCRYPTION.to_bytes(2, "big"))


def _capabilities(unit: TapeDrive, task: Task) -> bytes:
    """The one algorithm: encryption and decryption, authenticated blocks that are known from others, RAW unless forbidden."""
    here = unit.tape is not None
    algorithm = struct.pack(
        ">BxHBBHHHBxH2xHI", _ALGORITHM, 20,
        here << 7 | 0x3A,  # AVFMV, MAC_C, DED_C, DECRYPT_C and ENCRYPT_C 2
        (2 if here else 0) << 6 | 1 << 4,  # AVFCLP, NONCE_C: the drive makes them
        MOST_ASSOCIATED[UNAUTHENTICATED], MOST_ASSOCIATED[AUTHENTICATED], _KEY_LENGTH,
        3 << 6 | 5 << 1,  # DKAD_C: it may be there, RDMC_C: raw unless the host forbids it
        0, 0, _AES_256_GCM,
    )  # fmt: skip
    return _head(0x0010, bytes([0x01]).ljust(16, b"\0") + algorithm)  # CFG_P: it can be set


def _key_formats(unit: TapeDrive, task: Task) -> bytes:
    return _head(0x0011, bytes([_PLAIN_TEXT]))


def _management(unit: TapeDrive, task: Task) -> bytes:
    """CKOD; all scopes."""
    return _head(0x0012, bytes([0, _DEMOUNT, 0, 0x07]).ljust(12, b"\0"))


def _list(associated: Sequence[Associated], authenticated: dict[int, int]) -> bytes:
    return b"".join(
        struct.pack(">BBH", one.kind, authenticated.get(one.kind, 0), len(one.data)) + one.data for one in associated
    )


def _status(unit: TapeDrive, task: Task) -> bytes:
    held = unit.encryption.of(task.nexus)
    nexus, key = unit.encryption.scopes(task.nexus)
    body = struct.pack(
        ">BBBBIBxHxxxxxxxx", nexus << 5 | key, held.encryption, held.decryption, 0 if held.plain else _ALGORITHM,
        held.instance, 0x10 | held.external << 1 | (not held.raw), 0,  # PARAMETERS CONTROL: hosts set them
    )  # fmt: skip
    return _head(0x0020, body + _list(held.associated, {}))


def _next_block(unit: TapeDrive, task: Task) -> bytes:
    tape = unit.tape
    if tape is None:
        raise unit.not_ready()
    held = unit.encryption.of(task.nexus)
    block = tape.peek()
    status, raw, associated = _NO_BLOCK, True, b""
    if isinstance(block, Sealed):
        head = envelope(block)
        able = held.decryption in (_DECRYPT, _MIXED) and held.key is not None and held.key.fits(head)
        status, raw = _ENCRYPTED if able else _NO_KEY, head.raw
        associated = _list(head.associated, {UNAUTHENTICATED: _NOT_COVERED, AUTHENTICATED: _NOT_TRIED})
    elif block is not None:
        status = _NOT_ENCRYPTED
    sealed = isinstance(block, Sealed)
    body = struct.pack(">QBBBx", tape.position, status, _ALGORITHM if sealed else 0, not raw)
    return _head(0x0021, body + associated)


_Page = Callable[["TapeDrive", "Task"], bytes]
_IN: dict[tuple[int, int], _Page] = {
    (INFORMATION, 0x0000): _protocols,
    (INFORMATION, 0x0001): _no_certificate,
    (TAPE, 0x0000): _in_pages,
    (TAPE, 0x0001): _out_pages,
    (TAPE, 0x0010): _capabilities,
    (TAPE, 0x0011): _key_formats,
    (TAPE, 0x0012): _management,
    (TAPE, 0x0020): _status,
    (TAPE, 0x0021): _next_block,
}


def check_in(unit: TapeDrive, task: Task) -> None:
    protocol, page = task.fields["security_protocol"], task.fields["security_protocol_specific"]
    if protocol not in (INFORMATION, TAPE):
        raise invalid_field(1, 7)
    if (protocol, page) not in _IN:
        raise invalid_field(2, 7)


def security_protocol_in(unit: TapeDrive, task: Task) -> Buffer:
    return _IN[task.fields["security_protocol"], task.fields["security_protocol_specific"]](unit, task)


# ---- SECURITY PROTOCOL OUT


def check_out(unit: TapeDrive, task: Task) -> None:
    if task.fields["security_protocol"] != TAPE:
        raise invalid_field(1, 7)
    if task.fields["security_protocol_specific"] != SET_DATA_ENCRYPTION:
        raise invalid_field(2, 7)


def security_protocol_out(unit: TapeDrive, task: Task) -> Buffer:
    """The Set Data Encryption page."""
    data = bytes(task.data_out)
    if len(data) < 20 or len(data) < task.expected:
        raise parameter_list_length_error()
    code, length, scope = *struct.unpack_from(">HH", data), data[4] >> 5
    if code != SET_DATA_ENCRYPTION:
        raise invalid_parameter(0)
    if length != len(data) - 4:
        raise invalid_parameter(2)
    if scope > _ALL:
        raise invalid_parameter(4, 7)
    if data[4] & 0x01:  # LOCK
        raise invalid_parameter(4, 0)
    held = unit.encryption
    if scope != _PUBLIC:
        parameters = _parameters(unit, data)
    held.put(task.nexus, scope, _NONE if scope == _PUBLIC else parameters)
    if scope == _ALL:
        for nexus in held.others(task.nexus, unit.nexuses):
            nexus.establish(Asc.DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS)
    return b""


def _parameters(unit: TapeDrive, data: bytes) -> Parameters:
    flags, encryption, decryption, algorithm, key_format = data[5:10]
    if encryption not in (0, _ENCRYPT):
        raise invalid_parameter(6)
    if decryption > _MIXED:
        raise invalid_parameter(7)
    instance = unit.encryption.next_instance
    if not encryption and not decryption:  # then there is no key, whatever stands in its place
        return Parameters(instance=instance())
    for bit in (3, 1, 0):  # SDK, CKORP, CKORL
        if flags & 1 << bit:
            raise invalid_parameter(5, bit)
    if flags & _DEMOUNT and unit.tape is None:
        raise invalid_parameter(5, 2)
    rdmc = flags >> 4 & 0x03
    if rdmc == 1:
        raise invalid_parameter(5, 5)
    if algorithm != _ALGORITHM:
        raise invalid_parameter(8)
    if key_format != _PLAIN_TEXT:
        raise invalid_parameter(9)
    key_length = int.from_bytes(data[18:20], "big")
    needed = encryption or decryption != _RAW
    if key_length not in ((_KEY_LENGTH,) if needed else (0, _KEY_LENGTH)) or len(data) < 20 + key_length:
        raise invalid_parameter(18)
    associated = _key_associated(data, 20 + key_length)
    key = _key(data[20 : 20 + key_length]) if key_length else None
    return Parameters(
        encryption, decryption, key, associated,
        external=flags >> 6, raw=rdmc != _NOT_RAW, until_demount=bool(flags & _DEMOUNT), instance=instance(),
    )  # fmt: skip


def _key(secret: bytes) -> Key:
    from blockyard.media.sealing import Key  # noqa: PLC0415  # loads cryptography, which few need

    return Key(secret)


def _key_associated(data: bytes, at: int) -> tuple[Associated, ...]:
    """The key-associated data descriptors: each kind once, in order (SSC-5)."""
    found: list[Associated] = []
    while at < len(data):
        if at + 4 > len(data):
            raise parameter_list_length_error()
        kind, length = data[at], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind not in MOST_ASSOCIATED or (found and kind <= found[-1].kind):
            raise invalid_parameter(at)
        if length > MOST_ASSOCIATED[kind]:
            raise invalid_parameter(at + 2)
        if at + 4 + length > len(data):
            raise parameter_list_length_error()
        found.append(Associated(kind, data[at + 4 : at + 4 + length]))
        at += 4 + length
    return tuple(found)
