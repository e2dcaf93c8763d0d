"""NBD servers of other people's, on unix sockets."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# $ is the socket, % the image
SERVERS: dict[str, Sequence[str]] = {
    "nbdkit": ("nbdkit", "-f", "-U", "$", "file", "%"),
    "nbdkit, simple replies": ("nbdkit", "-f", "-U", "$", "--no-sr", "file", "%"),
    "nbdkit, blocks of 4096": ("nbdkit", "-f", "-U", "$", "--filter=blocksize-policy", "file", "%",
                               "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M",
                               "blocksize-error-policy=error"),
    "nbdkit, trim alone": ("nbdkit", "-f", "-U", "$", "--filter=nozero", "file", "%"),
    "nbdkit, one connection": ("nbdkit", "-f", "-U", "$", "--filter=multi-conn", "file", "%", "multi-conn-mode=disable"),
    "nbdkit, no flush": ("nbdkit", "-f", "-U", "$", "memory", "64M"),
    "qemu-nbd": ("qemu-nbd", "-f", "raw", "-t", "-e", "8", "--discard=unmap", "-k", "$", "%"),
    "qemu-nbd, simple": ("qemu-nbd", "-f", "raw", "-t", "-k", "$", "%"),
}  # fmt: skip


class Server:
    """One that runs, and can be killed and started again."""

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        self.socket = directory / "nbd.sock"
        self.image = directory / "disk.img"
        places = {"$": str(self.socket), "%": str(self.image)}
        self._command = [places.get(word, word) for word in command]
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(120)
                    sock.connect(str(self.socket))
                    assert sock.recv(8) == b"NBDMAGIC"
                    return
            except OSError:
                assert self.process.poll() is None, "the server has ended"
                select.select((), (), (), 0.005)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(120)


@contextmanager
def serving(command: Sequence[str], directory: Path, size: int = 64 << 20) -> Iterator[Server]:
    with (directory / "disk.img").open("xb") as file:
        file.truncate(size)
    server = Server(command, directory)
    try:
        yield server
    finally:
        server.kill()
