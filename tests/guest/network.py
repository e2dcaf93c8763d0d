"""A network namespace with two taps: the wire between the target (192.168.77.1, 192.168.78.1) and a guest (.2)."""

from __future__ import annotations

import os
import subprocess
import uuid
from typing import Self

TAPS = ("tap0", "tap1")  # inside the namespace, so they need no names of their own
HOST = ("192.168.77.1", "192.168.78.1")
GUEST = ("192.168.77.2", "192.168.78.2")

_PROBES = "120"  # of ARP, one a second: connections to a guest that stands still for three are refused otherwise


class NetworkFailed(Exception):
    """`ip` could not do what it was told; says what it answered."""


class Network:
    """A namespace of its own, so that nothing collides, with the machine's networks or with another test run's.

    Removed on exit, and the taps with it.
    """

    def __init__(self) -> None:
        self.name = f"blockyard-{os.getpid()}-{uuid.uuid4().hex[:8]}"  # process ids come again
        _ip("netns", "add", self.name)
        try:
            self._inside("link", "set", "lo", "up")
            for tap, address in zip(TAPS, HOST, strict=True):
                self._inside("tuntap", "add", tap, "mode", "tap")
                self._inside("addr", "add", f"{address}/24", "dev", tap)
                self._inside("link", "set", tap, "up")
                self._inside("ntable", "change", "name", "arp_cache", "dev", tap, "mcast_probes", _PROBES)
        except NetworkFailed:
            self.close()
            raise

    @property
    def prefix(self) -> list[str]:
        """To be put before a command that is to run in the namespace."""
        return ["ip", "netns", "exec", self.name]

    def link(self, number: int, *, up: bool) -> None:
        """Plug a cable in or pull it out."""
        self._inside("link", "set", TAPS[number], "up" if up else "down")

    def close(self) -> None:
        """Remove it."""
        _ip("netns", "del", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _inside(self, *words: str) -> None:
        _ip("-n", self.name, *words)


def _ip(*words: str) -> None:
    result = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=180, check=False)
    if result.returncode:
        said = result.stderr.strip() or f"status {result.returncode}"
        raise NetworkFailed(f"ip {' '.join(words)}: {said} (network namespaces and taps need root)")
