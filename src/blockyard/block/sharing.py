"""Devices that several layers stand on, each on a part of its own: open once, for as long as anybody has them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from blockyard.block.device import Device


class _Entry:
    def __init__(self) -> None:
        self.users = 0
        self.device: Device | None = None
        # Held while it is opened or closed, which may take long: whoever comes meanwhile waits, and does not find in use
        # what is just being closed.
        self.lock = Lock()


class Shared:
    """Such devices, by the text of their stacks."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = Lock()

    def take(self, text: str, open: Callable[[], Device]) -> Device:
        """What that stack is, opened unless it is. Raises what `open` raises."""
        with self._lock:
            entry = self._entries.setdefault(text, _Entry())
            entry.users += 1
        try:
            with entry.lock:
                if entry.device is None:
                    entry.device = open()
                return entry.device
        except BaseException:
            self._leave(text, entry, lambda device: device.close())
            raise

    def give_back(self, device: Device, close: Callable[[Device], None] = lambda device: device.close()) -> None:
        """One of those who have it needs it no more; the last one closes it. Raises OSError, as closing does."""
        with self._lock:
            text, entry = next((text, entry) for text, entry in self._entries.items() if entry.device is device)
        self._leave(text, entry, close)

    def _leave(self, text: str, entry: _Entry, close: Callable[[Device], None]) -> None:
        with entry.lock:
            with self._lock:
                entry.users -= 1
                if entry.users:
                    return
            device, entry.device = entry.device, None
            try:
                if device is not None:
                    close(device)
            finally:
                with self._lock:
                    if not entry.users:
                        del self._entries[text]
