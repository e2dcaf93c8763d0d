"""How an image is named and reached, and an open image: a connection to the cluster of its own, and librbd's handle.

Each image has its own connection, because that is what a cluster fences off: an image that is taken away must not take others
of the same server with it. It costs 15 threads and about 2 MiB.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from typing import NamedTuple

from blockyard.block.rbd import library
from blockyard.block.rbd.library import call, functions

EXCLUSIVE, SHARED = "exclusive", "shared"
BLOCKLISTED = errno.ESHUTDOWN  # what librados calls EBLOCKLISTED
_OWNERS = 8  # of a lock that are asked for; there is one at most

Buffer = memoryview | bytes | bytearray


class Spec(NamedTuple):
    """POOL/IMAGE, POOL/NAMESPACE/IMAGE, either with @SNAPSHOT."""

    pool: str
    namespace: str
    image: str
    snapshot: str = ""

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Raises ValueError."""
        name, at, snapshot = text.partition("@")
        parts = name.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts) or (at and not snapshot) or "@" in snapshot or "\0" in text:
            raise ValueError(f"{text!r} is not POOL/IMAGE: write for example rbd(rbd/vm1) or rbd(rbd/vm1@monday)")
        return cls(parts[0], parts[1] if len(parts) == 3 else "", parts[-1], snapshot)

    def __str__(self) -> str:
        name = "/".join(filter(None, (self.pool, self.namespace, self.image)))
        return f"{name}@{self.snapshot}" if self.snapshot else name


@dataclass(frozen=True)
class Access:
    """How a cluster is reached."""

    conf: str = ""  # its ceph.conf; "": where Ceph looks for it, /etc/ceph/ceph.conf and so on
    id: str = "admin"  # the user, without "client."
    keyring: str = ""  # the file with the user's key; "": where ceph.conf says


@dataclass(frozen=True)
class RbdOptions(Access):
    """An image, or with @SNAPSHOT one of its snapshots."""

    image: str = ""  # POOL/IMAGE, POOL/NAMESPACE/IMAGE, either with @SNAPSHOT
    lock: str = EXCLUSIVE  # exclusive: nobody else may write to the image while it is open here; shared: others may
    timeout: int = 15  # seconds after which what the cluster has not answered fails

    def __post_init__(self) -> None:
        """Raises ValueError."""
        Spec.parse(self.image)
        if self.lock not in (EXCLUSIVE, SHARED):
            raise ValueError(f"lock is {EXCLUSIVE} or {SHARED}, not {self.lock!r}")
        if not 1 <= self.timeout <= 3600:
            raise ValueError(f"timeout is 1 to 3600 seconds, not {self.timeout}")

    @property
    def spec(self) -> Spec:
        return Spec.parse(self.image)


class Cluster:
    """A connection to a cluster. Raises OSError."""

    def __init__(self, access: Access, *, timeout: int) -> None:
        self._handle = c_void_p()
        call("rados_create", byref(self._handle), access.id.encode())
        try:
            where = access.conf or "ceph.conf, where Ceph looks for it"
            call("rados_conf_read_file", self._handle, access.conf.encode() or None, what=where)
            if access.keyring:
                self._set("keyring", access.keyring)
            # What is acknowledged is in the cluster: a cache in this process would die with it.
            self._set("rbd_cache", "false")
            # One image keeps one messenger busy; with more of them each access wakes another one. Of librados_thread_count
            # there have to be two: operations on snapshots wait for each other in those threads.
            self._set("ms_async_op_threads", "1")
            # librbd would begin each access in a thread of its own, which has to be woken. Where the loop does that, it must not
            # be made to wait: librados gets no limit of what is under way, as sessions have one (scsi/limits.py).
            self._set("rbd_non_blocking_aio", "false")
            for name in ("objecter_inflight_ops", "objecter_inflight_op_bytes"):
                self._set(name, "0")
            for name in ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"):
                self._set(name, str(timeout))
            call("rados_connect", self._handle, what=f"the cluster of {where}")
        except BaseException:
            self.close()
            raise

    def _set(self, name: str, value: str) -> None:
        call("rados_conf_set", self._handle, name.encode(), value.encode(), what=name)

    def pool(self, pool: str, namespace: str = "") -> c_void_p:
        """A pool, for functions that ask for one; `rados_ioctx_destroy` lets go of it. Raises OSError."""
        io = c_void_p()
        call("rados_ioctx_create", self._handle, pool.encode(), byref(io), what=f"the pool {pool}")
        if namespace:
            functions().rados_ioctx_set_namespace(io, namespace.encode())
        return io

    @contextmanager
    def within(self, pool: str, namespace: str = "") -> Iterator[c_void_p]:
        """`pool` for a while."""
        io = self.pool(pool, namespace)
        try:
            yield io
        finally:
            functions().rados_ioctx_destroy(io)

    def close(self) -> None:
        functions().rados_shutdown(self._handle)


class Image:
    """An open image or snapshot. Its methods block and raise OSError, if only because the cluster's time is up."""

    def __init__(self, options: RbdOptions, *, read_only: bool) -> None:
        self.spec = options.spec
        self.handle = c_void_p()
        self._watch: tuple[c_uint64, object] | None = None
        self._cluster = Cluster(options, timeout=options.timeout)
        try:
            self._io = self._cluster.pool(self.spec.pool, self.spec.namespace)
        except BaseException:
            self._cluster.close()
            raise
        try:
            snapshot = self.spec.snapshot.encode() or None
            opened = "rbd_open_read_only" if read_only or snapshot else "rbd_open"
            call(opened, self._io, self.spec.image.encode(), byref(self.handle), snapshot, what=str(self.spec))
        except BaseException:
            functions().rados_ioctx_destroy(self._io)
            self._cluster.close()
            raise

    def _number(self, function: str) -> int:
        number = c_uint64()
        call(function, self.handle, byref(number), what=str(self.spec))
        return number.value

    def size(self) -> int:
        return self._number("rbd_get_size")

    def stripe(self) -> int:
        """Bytes that lie in one object, so that they can be compared and written in one step: a power of two."""
        return self._number("rbd_get_stripe_unit")

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called, in a thread of librbd, when the image may have got another size."""
        number, function = c_uint64(), library.Updated(lambda argument: changed())
        call("rbd_update_watch", self.handle, byref(number), function, None, what=str(self.spec))
        self._watch = number, function

    # ---- the exclusive lock

    def lockable(self) -> bool:
        """Whether it has the feature exclusive-lock."""
        return bool(self._number("rbd_get_features") & library.FEATURE_EXCLUSIVE_LOCK)

    def owns(self) -> bool:
        """Whether it is ours, as far as librbd knows."""
        owner = c_int()
        call("rbd_is_exclusive_lock_owner", self.handle, byref(owner), what=str(self.spec))
        return bool(owner.value)

    def acquire(self) -> None:
        """Take the lock, from somebody who is dead too; EROFS (or EBUSY) means that its owner lives and keeps it."""
        call("rbd_lock_acquire", self.handle, library.LOCK_EXCLUSIVE, what=str(self.spec))

    def owners(self) -> list[bytes]:
        """Whose lock it is now; asks the cluster."""
        mode, count, found = c_int(), c_size_t(_OWNERS), (c_char_p * _OWNERS)()
        try:
            call("rbd_lock_get_owners", self.handle, byref(mode), found, byref(count), what=str(self.spec))
        except FileNotFoundError:
            return []
        try:
            return [owner for owner in found[: count.value] if owner]
        finally:
            functions().rbd_lock_get_owners_cleanup(found, count)

    def fence(self) -> int:
        """Shut out whoever has the lock: his client is on the cluster's blocklist before this returns. How many those were."""
        owners = self.owners()
        for owner in owners:
            call("rbd_lock_break", self.handle, library.LOCK_EXCLUSIVE, owner, what=str(self.spec))
        return len(owners)

    # ---- data

    def compare_and_write(self, expected: Buffer, data: Buffer, offset: int) -> int | None:
        """None when it is done, or where in `expected` the first byte differs. EINVAL where librbd cannot."""
        mismatch = c_uint64()
        (compared, kept), (written, also_kept) = address(expected), address(data)
        try:
            call("rbd_compare_and_write", self.handle, offset, len(data), compared, written, byref(mismatch), 0)
        except OSError as error:
            if error.errno != errno.EILSEQ:
                raise
            return mismatch.value - offset if mismatch.value >= offset else mismatch.value  # told in the image's terms
        finally:
            del kept, also_kept
        return None

    def differences(
        self, since: str, offset: int, length: int, *, whole: bool = False, parent: bool = True
    ) -> list[tuple[int, int, bool]]:
        """What is other than in the snapshot `since` ("": than nothing), as offset, length, and whether there is data."""
        found: list[tuple[int, int, bool]] = []

        def note(at: int, size: int, exists: int, argument: object) -> int:
            found.append((at, size, bool(exists)))
            return 0

        call("rbd_diff_iterate2", self.handle, since.encode() or None, offset, length, parent, whole, library.Differs(note), None,
             what=str(self.spec))  # fmt: skip
        return sorted(found)

    def close(self) -> None:
        """Let go of everything: the lock, too. Nothing may be under way."""
        if self._watch is not None:
            functions().rbd_update_unwatch(self.handle, self._watch[0])
        functions().rbd_close(self.handle)
        functions().rados_ioctx_destroy(self._io)
        self._cluster.close()


def address(buffer: Buffer) -> tuple[int, object]:
    """Where the bytes of a buffer are, and what has to be kept as long as somebody looks there.

    ctypes gives no address of a read-only view, so that one of those is copied.
    """
    if isinstance(buffer, memoryview) and buffer.readonly:
        buffer = buffer.tobytes()
    if isinstance(buffer, bytes):
        kept = c_char_p(buffer)
        return ctypes.cast(kept, c_void_p).value or 0, buffer
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)), buffer
