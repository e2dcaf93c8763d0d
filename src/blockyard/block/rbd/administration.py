"""What is done with images of RBD as a whole: made, listed, resized, snapshots, clones, differences.

Each function connects to the cluster for itself, and does not mind whether a server has the image: librbd passes on what
changes an image to whoever has its lock. Raises OSError.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import byref, c_int, c_size_t, c_void_p
from typing import Any, NamedTuple

from blockyard.block.device import Run, merged
from blockyard.block.rbd import library
from blockyard.block.rbd.connection import SHARED, Access, Cluster, Image, RbdOptions, Spec
from blockyard.block.rbd.device import spread
from blockyard.block.rbd.library import call, failure, functions

_TIMEOUT = 60  # seconds
_PIECE = 1 << 30  # bytes of an image whose differences are asked for at a time

Told = Callable[[int, int], None]  # so much is done, of so much


class Snapshot(NamedTuple):
    """A snapshot of an image."""

    name: str
    size: int
    created: float  # seconds since the epoch
    protected: bool
    clones: tuple[str, ...]


class About(NamedTuple):
    """What there is to say of an image."""

    spec: str
    size: int
    used: int  # bytes of objects that it has, without those of its parent
    object_size: int
    parent: str  # POOL/IMAGE@SNAPSHOT, or nothing
    owned: bool  # a server has its exclusive lock
    snapshots: tuple[Snapshot, ...]


@contextmanager
def _cluster(access: Access) -> Iterator[Cluster]:
    cluster = Cluster(access, timeout=_TIMEOUT)
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def _image(access: Access, spec: Spec, *, read_only: bool = False) -> Iterator[Image]:
    options = RbdOptions(access.conf, access.id, access.keyring, str(spec), SHARED, _TIMEOUT)
    image = Image(options, read_only=read_only)
    try:
        yield image
    finally:
        image.close()


def _watched(told: Told) -> Any:
    def tell(done: int, total: int, argument: object) -> int:
        told(done, total)
        return 0

    return library.Progress(tell)


def names(access: Access, pool: str, namespace: str = "") -> list[str]:
    """The images of a pool."""
    with _cluster(access) as cluster, cluster.within(pool, namespace) as io:
        count = c_size_t(64)
        while True:
            found = (library.ImageSpec * count.value)()
            result = functions().rbd_list2(io, found, byref(count))
            if result == -errno.ERANGE:  # `count` says how many there are
                continue
            if result < 0:
                raise failure(-result, pool)
            listed = sorted(str(image.name, "utf-8", "replace") for image in found[: count.value])
            functions().rbd_image_spec_list_cleanup(found, count)
            return listed


def create(access: Access, spec: Spec, size: int, *, object_size: int = 0) -> None:
    """Make an image with the features that the cluster gives new ones; the exclusive lock is among them."""
    with _cluster(access) as cluster, cluster.within(spec.pool, spec.namespace) as io, _options(object_size) as options:
        call("rbd_create4", io, spec.image.encode(), size, options, what=str(spec))


@contextmanager
def _options(object_size: int) -> Iterator[c_void_p]:
    options = c_void_p()
    functions().rbd_image_options_create(byref(options))
    try:
        if object_size:
            call("rbd_image_options_set_uint64", options, library.OPTION_ORDER, object_size.bit_length() - 1)
        yield options
    finally:
        functions().rbd_image_options_destroy(options)


def remove(access: Access, spec: Spec, told: Told) -> None:
    """Delete an image that has no snapshots and that nobody has open."""
    with _cluster(access) as cluster, cluster.within(spec.pool, spec.namespace) as io:
        call("rbd_remove_with_progress", io, spec.image.encode(), _watched(told), None, what=str(spec))


def resize(access: Access, spec: Spec, size: int, told: Told, *, shrink: bool = False) -> None:
    """EINVAL when it would get smaller and may not."""
    with _image(access, spec) as image:
        if size < image.size() and not shrink:
            raise OSError(
                errno.EINVAL, "It would get smaller, and lose what is at its end: say so by --shrink", str(spec)
            )
        call("rbd_resize2", image.handle, size, shrink, _watched(told), None, what=str(spec))


def about(access: Access, spec: Spec) -> About:
    """An image and its snapshots, with the clones that stand on each."""
    with _image(access, spec) as image:  # opened for reading only, nobody can see whose its lock is
        size = image.size()
        used = sum(run.length for run in _differences(image, "", size, whole=True, parent=False) if run.mapped)
        snapshots = list(_snapshots(image))
        found = About(str(spec), size, used, image.stripe(), _parent(image), bool(image.owners()), ())
    with_clones = (each._replace(clones=_clones(access, spec._replace(snapshot=each.name))) for each in snapshots)
    return found._replace(snapshots=tuple(with_clones))


def _parent(image: Image) -> str:
    parent, snapshot = library.ChildInfo(), library.Parent()
    result = functions().rbd_get_parent(image.handle, byref(parent), byref(snapshot))
    if result == -errno.ENOENT:
        return ""
    if result < 0:
        raise failure(-result, str(image.spec))
    name = f"{_child(parent)}@{str(snapshot.name, 'utf-8', 'replace')}"
    functions().rbd_linked_image_spec_cleanup(byref(parent))
    functions().rbd_snap_spec_cleanup(byref(snapshot))
    return name


def _child(info: library.ChildInfo) -> str:
    parts = (info.pool_name, info.pool_namespace, info.image_name)
    return "/".join(str(part, "utf-8", "replace") for part in parts if part)


def _snapshots(image: Image) -> Iterator[Snapshot]:
    count = c_int(64)
    while True:
        found = (library.SnapshotInfo * count.value)()
        result = functions().rbd_snap_list(image.handle, found, byref(count))
        if result != -errno.ERANGE:
            break
    if result < 0:
        raise failure(-result, str(image.spec))
    listed = [(each.id, each.size, each.name) for each in found[:result]]
    if result:
        functions().rbd_snap_list_end(found)
    for number, size, name in listed:
        protected, created = c_int(), library.Timespec()
        call("rbd_snap_is_protected", image.handle, name, byref(protected), what=str(image.spec))
        call("rbd_snap_get_timestamp", image.handle, number, byref(created), what=str(image.spec))
        shown = str(name, "utf-8", "replace")
        yield Snapshot(shown, size, created.seconds + created.nanoseconds / 1e9, bool(protected.value), ())


def _clones(access: Access, spec: Spec) -> tuple[str, ...]:
    """The images that stand on a snapshot."""
    with _image(access, spec, read_only=True) as image:
        count = c_size_t(64)
        while True:
            found = (library.ChildInfo * count.value)()
            result = functions().rbd_list_children3(image.handle, found, byref(count))
            if result != -errno.ERANGE:
                break
        if result < 0:
            raise failure(-result, str(spec))
        clones = tuple(_child(each) for each in found[: count.value])
        functions().rbd_linked_image_spec_list_cleanup(found, count)
        return clones


def take_snapshot(access: Access, spec: Spec) -> None:
    with _image(access, spec._replace(snapshot="")) as image:
        call("rbd_snap_create", image.handle, spec.snapshot.encode(), what=str(spec))


def remove_snapshot(access: Access, spec: Spec) -> None:
    """Delete a snapshot; its protection, if nothing stands on it, is no obstacle."""
    with _image(access, spec._replace(snapshot="")) as image:
        _protect(image, spec, protected=False)
        call("rbd_snap_remove", image.handle, spec.snapshot.encode(), what=str(spec))


def _protect(image: Image, spec: Spec, *, protected: bool) -> None:
    now = c_int()
    call("rbd_snap_is_protected", image.handle, spec.snapshot.encode(), byref(now), what=str(spec))
    if bool(now.value) != protected:
        function = "rbd_snap_protect" if protected else "rbd_snap_unprotect"
        call(function, image.handle, spec.snapshot.encode(), what=str(spec))


def protect(access: Access, spec: Spec, *, protected: bool) -> None:
    """Whether a snapshot can be deleted: one with clones should not."""
    with _image(access, spec._replace(snapshot="")) as image:
        _protect(image, spec, protected=protected)


def clone(access: Access, spec: Spec, new: Spec) -> None:
    """Make an image that begins as a snapshot is, and shares all that it does not change. The snapshot gets protected."""
    protect(access, spec, protected=True)
    with (
        _cluster(access) as cluster,
        cluster.within(spec.pool, spec.namespace) as io,
        cluster.within(new.pool, new.namespace) as target,
        _options(0) as options,
    ):
        call(
            "rbd_clone3",
            io,
            spec.image.encode(),
            spec.snapshot.encode(),
            target,
            new.image.encode(),
            options,
            what=str(new),
        )


def flatten(access: Access, spec: Spec, told: Told) -> None:
    """Copy to a clone all that it shares with its parent."""
    with _image(access, spec) as image:
        call("rbd_flatten_with_progress", image.handle, _watched(told), None, what=str(spec))


def roll_back(access: Access, spec: Spec, told: Told) -> None:
    """Make an image what a snapshot is. EBUSY while a server has it: initiators would not know what happens to them."""
    with _image(access, spec._replace(snapshot="")) as image:
        if image.owners():
            raise OSError(errno.EBUSY, "A server has the image: have it let go of it first", str(spec))
        call(
            "rbd_snap_rollback_with_progress",
            image.handle,
            spec.snapshot.encode(),
            _watched(told),
            None,
            what=str(spec),
        )


def differences(access: Access, spec: Spec, since: str) -> Iterator[Run]:
    """An image or snapshot in runs: `mapped` are those that may be other than they were in the snapshot `since`."""
    with _image(access, spec, read_only=True) as image:
        yield from merged(_differences(image, since, image.size()))


def _differences(image: Image, since: str, size: int, *, whole: bool = False, parent: bool = True) -> Iterator[Run]:
    for offset in range(0, size, _PIECE):
        length = min(_PIECE, size - offset)
        found = [(at, many, bool(since) or data)
                 for at, many, data in image.differences(since, offset, length, whole=whole, parent=parent)]  # fmt: skip
        yield from spread(found, offset, length)


def unlock(access: Access, spec: Spec) -> int:
    """Fence off the server that has the image, so that one that waits gets it; how many that were."""
    with _image(access, spec) as image:
        return image.fence()
