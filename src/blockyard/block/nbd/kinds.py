"""NBD as a kind of layer: nbd(nbds://backup.example/vm1, connections=4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from blockyard.block.device import Device
from blockyard.block.layers import Kind, Opening
from blockyard.block.nbd.device import NbdDevice
from blockyard.block.nbd.uri import Remote, parse_uri, tls_context

_MAX_CONNECTIONS = 16


@dataclass(frozen=True)
class NbdOptions:
    """An export of an NBD server."""

    uri: str
    connections: int = 4  # at most; more than one where the server says that it makes no difference
    timeout: float = 30.0  # seconds that the server may be silent while it owes an answer
    tls_ca: str = ""  # file with the certificates that the server's must come from, unless it is the system's
    tls_certificate: str = ""  # file with this side's, where the server wants one; its key is there, or
    tls_key: str = ""  # here

    def __post_init__(self) -> None:
        """Raises ValueError."""
        where = parse_uri(self.uri)
        if not 1 <= self.connections <= _MAX_CONNECTIONS:
            raise ValueError(f"connections is 1 to {_MAX_CONNECTIONS}, not {self.connections}")
        if not 1 <= self.timeout <= 3600:
            raise ValueError(f"timeout is 1 to 3600 seconds, not {self.timeout:g}")
        if (self.tls_ca or self.tls_certificate or self.tls_key) and not where.tls:
            raise ValueError(f"{self.uri} does not use TLS: write nbds:// to have what tls_ca and its like are for")
        if self.tls_key and not self.tls_certificate:
            raise ValueError("tls_key goes with tls_certificate")


def _open(children: Sequence[Device], options: NbdOptions, opening: Opening) -> Device:
    context = partial(tls_context, options.tls_ca, options.tls_certificate, options.tls_key)
    if parse_uri(options.uri).tls:
        context()  # a file that is missing is told of at once
    remote = Remote(parse_uri(options.uri), connections=options.connections, timeout=options.timeout, context=context)
    return NbdDevice(remote, opening, timeout=options.timeout)


KINDS = (
    Kind("nbd", "An export of an NBD server (docs/remote-disks.md).", _open, NbdOptions, (0, 0), "uri",
         claims=lambda options: [f"nbd:{options.uri}"], example="nbd(nbds://backup.example/vm1, connections=4)"),
)  # fmt: skip
