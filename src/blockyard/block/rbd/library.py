"""The part of librados and librbd that is used, bound by ctypes; loaded when the first image is opened.

Two ways lead into each library. `functions` let go of the interpreter lock while a call lasts; the `held` ones do not, which
is faster, and is for the few that only look at a completion. librbd never calls Python where data moves: completions come by an
eventfd (rbd_set_image_notification). Signatures are those of librbd.h and librados.h, which have not changed since Octopus.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_ssize_t, c_uint8, c_uint64, c_void_p
from functools import cache
from typing import Any

PACKAGE = "install librbd1 (Debian, Ubuntu) or librbd (Red Hat, SUSE), version 15 (Octopus) or later"

EVENTFD = 2  # EVENT_TYPE_EVENTFD
LOCK_EXCLUSIVE = 0  # RBD_LOCK_MODE_EXCLUSIVE
FEATURE_EXCLUSIVE_LOCK = 1 << 2
OPTION_ORDER, OPTION_FEATURES = 2, 1  # RBD_IMAGE_OPTION_…

Progress = ctypes.CFUNCTYPE(c_int, c_uint64, c_uint64, c_void_p)
Updated = ctypes.CFUNCTYPE(None, c_void_p)
Differs = ctypes.CFUNCTYPE(c_int, c_uint64, c_size_t, c_int, c_void_p)


class ImageSpec(ctypes.Structure):
    """rbd_image_spec_t."""

    _fields_ = (("id", c_char_p), ("name", c_char_p))


class SnapshotInfo(ctypes.Structure):
    """rbd_snap_info_t."""

    _fields_ = (("id", c_uint64), ("size", c_uint64), ("name", c_char_p))


class ChildInfo(ctypes.Structure):
    """rbd_linked_image_spec_t."""

    _fields_ = (
        ("pool_id", ctypes.c_int64), ("pool_name", c_char_p), ("pool_namespace", c_char_p), ("image_id", c_char_p),
        ("image_name", c_char_p), ("trash", ctypes.c_bool),
    )  # fmt: skip


class Parent(ctypes.Structure):
    """rbd_snap_spec_t."""

    _fields_ = (("id", c_uint64), ("namespace_type", c_int), ("name", c_char_p))


class Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_long))


_IMAGE, _IO, _BUFFER, _COMPLETION = c_void_p, c_void_p, c_void_p, c_void_p
_RADOS: dict[str, tuple[Any, ...]] = {
    "rados_create": (c_int, POINTER(c_void_p), c_char_p),
    "rados_conf_read_file": (c_int, c_void_p, c_char_p),
    "rados_conf_set": (c_int, c_void_p, c_char_p, c_char_p),
    "rados_connect": (c_int, c_void_p),
    "rados_shutdown": (None, c_void_p),
    "rados_ioctx_create": (c_int, c_void_p, c_char_p, POINTER(c_void_p)),
    "rados_ioctx_destroy": (None, c_void_p),
    "rados_ioctx_set_namespace": (None, c_void_p, c_char_p),
    "rados_getaddrs": (c_int, c_void_p, POINTER(c_char_p)),
    "rados_buffer_free": (None, c_void_p),
}
_RBD: dict[str, tuple[Any, ...]] = {
    "rbd_open": (c_int, _IO, c_char_p, POINTER(_IMAGE), c_char_p),
    "rbd_open_read_only": (c_int, _IO, c_char_p, POINTER(_IMAGE), c_char_p),
    "rbd_close": (c_int, _IMAGE),
    "rbd_get_size": (c_int, _IMAGE, POINTER(c_uint64)),
    "rbd_get_features": (c_int, _IMAGE, POINTER(c_uint64)),
    "rbd_get_stripe_unit": (c_int, _IMAGE, POINTER(c_uint64)),
    "rbd_get_parent": (c_int, _IMAGE, POINTER(ChildInfo), POINTER(Parent)),
    "rbd_linked_image_spec_cleanup": (None, POINTER(ChildInfo)),
    "rbd_snap_spec_cleanup": (None, POINTER(Parent)),
    "rbd_set_image_notification": (c_int, _IMAGE, c_int, c_int),
    "rbd_update_watch": (c_int, _IMAGE, POINTER(c_uint64), Updated, c_void_p),
    "rbd_update_unwatch": (c_int, _IMAGE, c_uint64),
    # data, in a thread
    "rbd_read": (c_ssize_t, _IMAGE, c_uint64, c_size_t, _BUFFER),
    "rbd_write": (c_ssize_t, _IMAGE, c_uint64, c_size_t, _BUFFER),
    "rbd_flush": (c_int, _IMAGE),
    "rbd_write_zeroes": (c_ssize_t, _IMAGE, c_uint64, c_size_t, c_int, c_int),
    "rbd_writesame": (c_ssize_t, _IMAGE, c_uint64, c_size_t, _BUFFER, c_size_t, c_int),
    "rbd_compare_and_write": (c_ssize_t, _IMAGE, c_uint64, c_size_t, _BUFFER, _BUFFER, POINTER(c_uint64), c_int),
    "rbd_diff_iterate2": (c_int, _IMAGE, c_char_p, c_uint64, c_uint64, c_uint8, c_uint8, Differs, c_void_p),
    # data, beside others
    "rbd_aio_create_completion": (c_int, c_void_p, c_void_p, POINTER(_COMPLETION)),
    "rbd_aio_read": (c_int, _IMAGE, c_uint64, c_size_t, _BUFFER, _COMPLETION),
    "rbd_aio_write": (c_int, _IMAGE, c_uint64, c_size_t, _BUFFER, _COMPLETION),
    "rbd_aio_flush": (c_int, _IMAGE, _COMPLETION),
    "rbd_aio_write_zeroes": (c_int, _IMAGE, c_uint64, c_size_t, _COMPLETION, c_int, c_int),
    "rbd_aio_writesame": (c_int, _IMAGE, c_uint64, c_size_t, _BUFFER, c_size_t, _COMPLETION, c_int),
    "rbd_poll_io_events": (c_int, _IMAGE, POINTER(_COMPLETION), c_int),
    "rbd_aio_get_return_value": (c_ssize_t, _COMPLETION),
    "rbd_aio_release": (None, _COMPLETION),
    # the exclusive lock
    "rbd_is_exclusive_lock_owner": (c_int, _IMAGE, POINTER(c_int)),
    "rbd_lock_acquire": (c_int, _IMAGE, c_int),
    "rbd_lock_release": (c_int, _IMAGE),
    "rbd_lock_get_owners": (c_int, _IMAGE, POINTER(c_int), POINTER(c_char_p), POINTER(c_size_t)),
    "rbd_lock_get_owners_cleanup": (None, POINTER(c_char_p), c_size_t),
    "rbd_lock_break": (c_int, _IMAGE, c_int, c_char_p),
    # administration
    "rbd_list2": (c_int, _IO, POINTER(ImageSpec), POINTER(c_size_t)),
    "rbd_image_spec_list_cleanup": (None, POINTER(ImageSpec), c_size_t),
    "rbd_image_options_create": (None, POINTER(c_void_p)),
    "rbd_image_options_destroy": (None, c_void_p),
    "rbd_image_options_set_uint64": (c_int, c_void_p, c_int, c_uint64),
    "rbd_create4": (c_int, _IO, c_char_p, c_uint64, c_void_p),
    "rbd_clone3": (c_int, _IO, c_char_p, c_char_p, _IO, c_char_p, c_void_p),
    "rbd_remove_with_progress": (c_int, _IO, c_char_p, Progress, c_void_p),
    "rbd_resize2": (c_int, _IMAGE, c_uint64, ctypes.c_bool, Progress, c_void_p),
    "rbd_flatten_with_progress": (c_int, _IMAGE, Progress, c_void_p),
    "rbd_snap_list": (c_int, _IMAGE, POINTER(SnapshotInfo), POINTER(c_int)),
    "rbd_snap_list_end": (None, POINTER(SnapshotInfo)),
    "rbd_snap_create": (c_int, _IMAGE, c_char_p),
    "rbd_snap_remove": (c_int, _IMAGE, c_char_p),
    "rbd_snap_protect": (c_int, _IMAGE, c_char_p),
    "rbd_snap_unprotect": (c_int, _IMAGE, c_char_p),
    "rbd_snap_is_protected": (c_int, _IMAGE, c_char_p, POINTER(c_int)),
    "rbd_snap_rollback_with_progress": (c_int, _IMAGE, c_char_p, Progress, c_void_p),
    "rbd_snap_get_timestamp": (c_int, _IMAGE, c_uint64, POINTER(Timespec)),
    "rbd_list_children3": (c_int, _IMAGE, POINTER(ChildInfo), POINTER(c_size_t)),
    "rbd_linked_image_spec_list_cleanup": (None, POINTER(ChildInfo), c_size_t),
}  # fmt: skip


class Functions:
    """Functions of both libraries by their names."""

    def __init__(self, loader: Any) -> None:
        for name, table in (("librados.so.2", _RADOS), ("librbd.so.1", _RBD)):
            try:
                library = loader(name)
                for function, (result, *arguments) in table.items():
                    found = getattr(library, function)
                    found.restype, found.argtypes = result, arguments
                    setattr(self, function, found)
            except (OSError, AttributeError) as error:
                raise OSError(
                    errno.ENOPKG, f"Images of RBD need {name}, which cannot be had ({error}): {PACKAGE}"
                ) from None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@cache
def functions() -> Functions:
    """Those that let other threads of Python run meanwhile. Raises OSError where the libraries are not installed."""
    return Functions(ctypes.CDLL)


@cache
def held() -> Functions:
    """Those that keep the interpreter lock: only for what returns at once, and waits for no other thread."""
    return Functions(ctypes.PyDLL)


def call(name: str, *arguments: Any, what: str = "") -> int:
    """Call a function that returns a negative errno when it fails. Raises OSError, about `what`."""
    result: int = getattr(functions(), name)(*arguments)
    if result < 0:
        raise failure(-result, what)
    return result


def failure(number: int, what: str = "") -> OSError:
    """An error as librbd tells it, by its positive errno."""
    return OSError(number, os.strerror(number), what) if what else OSError(number, os.strerror(number))
