"""The image for containers, built and run by buildah on a base that is made of Debian: no registry is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import need, run
from tests.serving import free_port
from tests.waiting import LIMIT

ROOT = Path(__file__).parents[2]
_CERTIFICATES = "/etc/ssl/certs:/etc/ssl/certs:ro"  # of whom this machine trusts, for pip


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_image_serves(tmp_path: Path) -> None:
    store: list[str | Path] = ["--root", tmp_path / "store", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    buildah: list[str | Path] = [need("buildah", "buildah"), *store]
    base = tmp_path / "base.tar"
    run(
        [need("mmdebstrap", "mmdebstrap"), "--mode=root", "--variant=minbase", "--include=python3-pip,ca-certificates",
         "bookworm", base, "http://deb.debian.org/debian"],
        seconds=600,
    )  # fmt: skip
    run([*buildah, "from", "--name", "empty", "scratch"])
    run([*buildah, "add", "empty", base, "/"], seconds=300)
    run([*buildah, "commit", "--rm", "empty", "base"], seconds=300)
    run(
        [*buildah, "build", "--format", "docker", "--isolation", "chroot", "--build-arg", "BASE=localhost/base",
         "--volume", _CERTIFICATES, "-t", "blockyard", "-f", ROOT / "packaging" / "oci" / "Containerfile", ROOT],
        seconds=600,
    )  # fmt: skip
    run([*buildah, "from", "--name", "served", "localhost/blockyard"], seconds=300)
    image = json.loads(run([*buildah, "inspect", "served"]).stdout)["Docker"]["config"]
    assert image["User"] == "blockyard"
    portal = f"127.0.0.1:{free_port()}"  # in this way of running it has the network of the machine
    places = {"0.0.0.0:3260": portal, "0.0.0.0:3261": f"127.0.0.1:{free_port()}"}
    command = [places.get(word, word) for word in image["Entrypoint"] + image["Cmd"]]
    inside = [*buildah, "run", "--isolation", "chroot", "served", "--"]
    with subprocess.Popen([*inside, *command], stdout=subprocess.PIPE, text=True, start_new_session=True) as serving:
        assert serving.stdout is not None
        began = time.monotonic()
        while "Ready." not in serving.stdout.readline():
            assert time.monotonic() < began + LIMIT
            assert serving.poll() is None
        listed = run([need("iscsi-ls", "libiscsi-bin"), "-s", f"iscsi://{portal}"])
        healthy = run([*inside, *image["Healthcheck"]["Test"][1:]])
        serving.send_signal(signal.SIGTERM)
        serving.wait(120)
    assert "Lun:0" in listed.stdout
    assert "demo.img" in healthy.stdout
