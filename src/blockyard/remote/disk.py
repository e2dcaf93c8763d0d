"""A logical unit of another target as a block device: iscsi(iscsi://user@host/target/lun)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from blockyard.block.device import Device, Run, merged
from blockyard.block.elsewhere import Buffer, Elsewhere, Terms, pieces
from blockyard.block.layers import Kind, Notify, Opening
from blockyard.block.unflushed import Change
from blockyard.initiator import default_initiator_name
from blockyard.initiator.errors import InitiatorError
from blockyard.initiator.login import PREFERENCES
from blockyard.initiator.lun import Lun
from blockyard.initiator.opening import open_session
from blockyard.initiator.url import TargetUrl, parse_url
from blockyard.iscsi.chap import ALGORITHMS, Account
from blockyard.iscsi.names import InvalidName, normalise
from blockyard.remote import commands
from blockyard.remote.commands import Command
from blockyard.remote.nexus import Limits, Nexus, examined

_LARGEST = 1 << 20  # bytes of one command
_PIECE = 64 << 20  # bytes that are zeroed or freed by one command
_OPENING = 5.0  # seconds
_STATUS = 4096  # bytes of the answer to GET LBA STATUS
_CHAP = {row.name: row.number for row in ALGORITHMS.values()}
_DEALLOCATED = 1  # its provisioning status


@dataclass(frozen=True)
class IscsiOptions:
    """A logical unit of another target."""

    url: str  # iscsi://[USER@]HOST[:PORT]/TARGET/LUN
    secret: str = ""  # the name of the secret that USER has
    secret_file: str = ""  # or the file that it is in, which others may not read
    target_user: str = ""  # the name by which the target proves itself to USER (mutual CHAP)
    target_secret: str = ""  # the name of its secret
    target_secret_file: str = ""  # or the file that it is in
    chap: tuple[
        str, ...
    ] = ()  # algorithms to offer, best first: SHA3-256, SHA-256, SHA-1, MD5; all, unless some are named
    initiator: str = ""  # name of this side; "": one that is made of the host's name
    connections: int = 1  # of the session, at most
    timeout: float = 30.0  # seconds that the target may be silent

    def __post_init__(self) -> None:
        """Raises ValueError."""
        try:
            where = parse_url(self.url)
            if self.initiator:
                normalise(self.initiator)
        except InvalidName as error:
            raise ValueError(str(error)) from None
        if bool(where.user) != bool(self.secret or self.secret_file) or (self.secret and self.secret_file):
            raise ValueError("a user in the URL goes with `secret` or `secret_file`")
        theirs = self.target_secret or self.target_secret_file
        if bool(self.target_user) != bool(theirs) or (self.target_secret and self.target_secret_file):
            raise ValueError("target_user goes with `target_secret` or `target_secret_file`")
        if theirs and not where.user:
            raise ValueError("a target proves itself to a user: name one in the URL")
        for name in self.chap:
            if name not in _CHAP:
                raise ValueError(f"chap has some of {', '.join(_CHAP)}, not {name!r}")
        if not 1 <= self.connections <= 16:
            raise ValueError(f"connections is 1 to 16, not {self.connections}")
        if not 1 <= self.timeout <= 3600:
            raise ValueError(f"timeout is 1 to 3600 seconds, not {self.timeout:g}")


class Login:
    """A Connector (block/keeper.py) that logs in to a target."""

    def __init__(
        self, where: TargetUrl, options: IscsiOptions, account: Callable[[], Account | None], notify: Notify
    ) -> None:
        self.name = str(where)
        self._where = where
        self._options = options
        self._account = account
        self._notify = notify

    def connect(self) -> Nexus:
        options, where = self._options, self._where
        try:
            session = open_session(
                where.portal,
                where.target,
                initiator_name=options.initiator or default_initiator_name(),
                timeout=min(options.timeout, _OPENING),
                preferences=replace(PREFERENCES, max_recv_data_segment_length=256 << 10),
                connections=options.connections,
                account=self._account(),
                algorithms=tuple(_CHAP[name] for name in options.chap or _CHAP),
            )
            try:
                limits = examined(Lun(session, where.lun))
                session.timeout = options.timeout
                return Nexus(session, where.lun, limits, options.timeout, self._resized)
            except BaseException:
                session.drop()
                raise
        except InitiatorError as error:
            raise OSError(errno.EPROTO, str(error), self.name) from None

    def _resized(self) -> None:
        self._notify(
            "info",
            "size-changed",
            f"{self.name} has got another size: a reload takes it over",
        )

    def lost(self) -> None:
        """The target is somebody else's."""


class IscsiDisk(Elsewhere):
    """What is behind a login. Raises OSError when it cannot be reached, and nobody knows what it is."""

    def __init__(self, login: Login, opening: Opening, *, timeout: float) -> None:
        self._identity: str | None = None
        self._has_write_same = self._has_status = True
        super().__init__(login, timeout=timeout, seconds=_OPENING, opening=opening)

    def _take(self, terms: Terms) -> None:
        limits = Limits(**terms)
        size = limits.block_size
        if size < 512 or size & (size - 1) or not limits.blocks:
            raise OSError(errno.EINVAL, f"{limits.blocks} blocks of {size} bytes are no disk", self.name)
        if self._identity not in (None, limits.identity):
            raise OSError(errno.ENODEV, "another disk is there now", self.name)
        self._identity = limits.identity
        self._limits = limits
        self._block = size
        self._latest_size = size * limits.blocks
        self.size = self.size or self._latest_size
        self._accept(size, min(_LARGEST, (limits.max_transfer or _LARGEST) * size))
        self.read_only = self._asked_read_only or limits.protected
        self.cached = limits.cached
        self.rotational = limits.rotational
        frees = limits.thin and (limits.write_same_unmaps or (limits.unmaps and limits.reads_zeros))
        self.granularity = limits.unmap_granularity * size if frees else 0
        self._has_status = self._has_status and limits.thin and limits.reads_zeros

    def __repr__(self) -> str:
        return f"IscsiDisk({self.name!r}, {self.size} bytes)"

    def _read(self, views: Sequence[memoryview], offset: int, length: int) -> Command:
        return Command(commands.read(offset // self._block, length // self._block), views=views, length=length)

    def _write(self, data: Sequence[Buffer], offset: int, length: int) -> Command:
        return Command(commands.write(offset // self._block, length // self._block), data=data)

    def flush_request(self) -> Command:
        return Command(commands.synchronize_cache())

    def redo(self, change: Change) -> Command:
        lba, blocks = change.offset // self._block, change.length // self._block
        if change.data is not None:
            return Command(commands.write(lba, blocks), data=[change.data])
        return Command(commands.write_same(lba, blocks, unmap=change.free), data=[bytes(self._block)])

    def refresh(self) -> None:
        """Ask for the size again."""
        command = Command(commands.read_capacity(), length=32)
        self.keeper.run([command])
        size = (int.from_bytes(command.answer[:8], "big") + 1) * int.from_bytes(command.answer[8:12], "big")
        if size and len(command.answer) >= 12:
            self.size = size

    # ---- zeros

    def write_zeroes(self, offset: int, length: int) -> None:
        self._check_writable()
        self._same(offset, length, unmap=False)

    def discard(self, offset: int, length: int) -> None:
        """UNMAP may leave what it likes, so that it only follows on zeros; WRITE SAME with UNMAP leaves zeros in any case."""
        self._check_writable()
        unmap = self.granularity > 0 and self._limits.write_same_unmaps
        self._same(offset, length, unmap=unmap)
        if self.granularity and not unmap:
            step = self.granularity
            first, last = -(-offset // step) * step, (offset + length) // step * step
            for at, size in pieces(first, last - first, self._step(self._limits.max_unmap)):
                data = commands.unmap_list(at // self._block, size // self._block)
                self.keeper.run([Command(commands.unmap(), data=[data])])

    def _step(self, blocks: int) -> int:
        """Bytes of one command that takes at most so many blocks, 0 being no limit."""
        return min(_PIECE, blocks * self._block) if blocks else _PIECE

    def _same(self, offset: int, length: int, *, unmap: bool) -> None:
        if not self._has_write_same or not self._is_whole(offset, length):
            self._write_zeros(offset, length)
            return
        for at, size in pieces(offset, length, self._step(self._limits.max_write_same)):
            cdb = commands.write_same(at // self._block, size // self._block, unmap=unmap)
            try:
                with self._shared():
                    command = Command(cdb, data=[bytes(self._block)])
                    self._change([command], partial(self.unflushed.zeroed, at, size, free=unmap))
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._has_write_same = False
                self._write_zeros(at, offset + length - at)
                break
        self._make_room()

    # ---- where there is data

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return merged(self._runs(offset, length))

    def _runs(self, offset: int, length: int) -> Iterator[Run]:
        end = offset + length
        while offset < end and self._has_status:
            command = Command(commands.get_lba_status(offset // self._block, _STATUS), length=_STATUS)
            try:
                self.keeper.run([command])
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._has_status = False
            before = offset
            for start, size, mapped in self._extents(command.answer):
                stop = min(end, start + size)
                if start <= offset < stop:
                    yield Run(offset, stop - offset, mapped)
                    offset = stop
            if offset == before:  # an answer that leads no further
                break
        if offset < end:
            yield Run(offset, end - offset, True)

    def _extents(self, answer: bytes) -> Iterator[tuple[int, int, bool]]:
        """The descriptors of GET LBA STATUS: offset, length, and whether there is data."""
        for at in range(8, min(len(answer), 4 + int.from_bytes(answer[:4], "big")) - 15, 16):
            lba, blocks = int.from_bytes(answer[at : at + 8], "big"), int.from_bytes(answer[at + 8 : at + 12], "big")
            yield lba * self._block, blocks * self._block, answer[at + 12] & 0xF != _DEALLOCATED


def _account(options: IscsiOptions, opening: Opening) -> Account | None:
    """As whom to log in. It is asked for anew at each login: secrets change. Raises OSError."""

    def secret(name: str, path: str) -> bytes:
        return _secret_in(path) if path else opening.secret(name)

    user = parse_url(options.url).user
    if not user:
        return None
    try:
        theirs = secret(options.target_secret, options.target_secret_file) if options.target_user else None
        return Account(user, secret(options.secret, options.secret_file), options.target_user, theirs)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), options.url) from None


def _secret_in(path: str) -> bytes:
    if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
        raise OSError(errno.EPERM, "A secret that others may read is none: chmod 600", path)
    return Path(path).read_bytes().strip()


def _open(children: Sequence[Device], options: IscsiOptions, opening: Opening) -> Device:
    login = Login(parse_url(options.url), options, partial(_account, options, opening), opening.notify)
    return IscsiDisk(login, opening, timeout=options.timeout)


KINDS = (
    Kind("iscsi", "A logical unit of another iSCSI target (docs/remote-disks.md).", _open, IscsiOptions, (0, 0), "url",
         claims=lambda options: [f"iscsi:{options.url}"],
         example="iscsi(iscsi://vm@storage.example/iqn.2024-01.example:disk/0, secret_file=/etc/blockyard/vm.secret)"),
)  # fmt: skip
