"""The NBD client with servers of other people's, each of which knows something else of the protocol."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from blockyard.block.building import open_stack, tree
from tests.block.disks import SECTOR
from tests.block.nbd.servers import SERVERS, serving
from tests.block.usage import check, use, use_by_many

SIZE = 64 << 20


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("n")  # the path of a socket is short


@pytest.mark.parametrize("name", SERVERS)
def test_all_that_a_disk_can_do(name: str, directory: Path) -> None:
    with serving(SERVERS[name], directory) as server:
        device = open_stack(f"nbd({server.uri})")
        assert device.size == SIZE
        model = use(device, name)
        check(device, model)
        device.close()
        device = open_stack(f"nbd({server.uri}, connections=1)")
        check(device, model)
        device.close()


def test_what_is_discarded_leaves_the_servers_file(directory: Path) -> None:
    for name in ("nbdkit", "nbdkit, trim alone", "qemu-nbd"):
        place = directory / name.partition(",")[0] / name[-5:]
        place.mkdir(parents=True)
        with serving(SERVERS[name], place) as server:
            device = open_stack(f"nbd({server.uri})")
            device.pwritev([b"x" * (4 << 20)], 0)
            device.flush()
            assert server.image.stat().st_blocks * 512 >= 4 << 20
            device.discard(0, 4 << 20)
            device.flush()
            assert server.image.stat().st_blocks * 512 < 1 << 20
            assert not any(run.mapped for run in device.runs(0, 4 << 20))
            device.close()


def test_many_threads_on_many_connections(directory: Path) -> None:
    with serving(SERVERS["nbdkit"], directory) as server:
        device = open_stack(f"nbd({server.uri}, connections=4)")
        use_by_many(device, align=1)
        device.close()


def test_a_server_that_is_read_only(directory: Path) -> None:
    with serving((*SERVERS["nbdkit"][:2], "-r", *SERVERS["nbdkit"][2:]), directory) as server:
        device = open_stack(f"nbd({server.uri})")
        assert device.read_only
        with pytest.raises(OSError, match="for reading only"):
            device.pwritev([bytes(SECTOR)], 0)
        device.close()


def test_what_is_not_there_is_said(directory: Path) -> None:
    with serving(("qemu-nbd", "-f", "raw", "-t", "-x", "one", "-k", "$", "%"), directory) as server:
        with pytest.raises(OSError, match="no such export"):
            open_stack(f"nbd(nbd+unix:///two?socket={server.socket})")
        device = open_stack(f"nbd(nbd+unix:///one?socket={server.socket})")
        assert tree(device)["health"] == "ok"
        device.close()
    with pytest.raises(OSError, match=r"refused|No such file"):
        open_stack(f"nbd({server.uri})")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority of its own, with certificates for localhost and for a client."""
    place = tmp_path_factory.mktemp("pki")

    def openssl(*words: str) -> None:
        subprocess.run(("openssl", *words), cwd=place, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *new, "-x509", "-days", "30", "-subj", "/CN=Authority of a test", "-keyout", "ca-key.pem", "-out", "ca-cert.pem"
    )
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-days", "30",
                "-copy_extensions", "copy", "-out", f"{name}-cert.pem")  # fmt: skip
    return place


def test_tls(certificates: Path, directory: Path) -> None:
    command = ("nbdkit", "-f", "-U", "$", "--tls=require", f"--tls-certificates={certificates}", "--tls-verify-peer")
    with serving((*command, "file", "%"), directory) as server:
        uri = f"nbds+unix:///?socket={server.socket}"
        ours = f"tls_certificate={certificates}/client-cert.pem, tls_key={certificates}/client-key.pem"
        device = open_stack(f"nbd({uri}, tls_ca={certificates}/ca-cert.pem, {ours})")
        data = random.Random(1).randbytes(5 << 20)
        device.pwritev([data], SECTOR)
        found = bytearray(len(data))
        device.preadv([memoryview(found)], SECTOR)
        assert found == data
        device.close()
        with pytest.raises(OSError, match="demands TLS"):
            open_stack(f"nbd({server.uri})")
        with pytest.raises(OSError, match="not to be trusted"):
            open_stack(f"nbd({uri}, {ours})")  # an authority that this machine does not know
        with pytest.raises(OSError, match=r"TLS|closes|reset"):
            open_stack(f"nbd({uri}, tls_ca={certificates}/ca-cert.pem)")  # nothing to show to the server
