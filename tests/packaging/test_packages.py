"""What people install: wheel, sdist, the unit of systemd, the Debian package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from tests.conftest import need
from tests.serving import free_port
from tests.waiting import LIMIT

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging" / "systemd" / "blockyard.service"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(directory)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    return directory


def test_the_wheel_has_all_that_is_served(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        entry = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    for path in (ROOT / "src").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT / "src")) in names
    assert {"blockyard/console/index.html", "blockyard/console/vendor/LICENSE.preact"} <= names
    assert "blockyard.cli.main:main" in entry
    assert "pytest11" in entry
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_can_be_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "src/blockyard/__init__.py", "packaging/debian/build"} <= names
    assert not any(name.startswith((".venv", ".git/")) for name in names)


def test_the_unit_is_well_formed_and_hardened(tmp_path: Path) -> None:
    systemd = need("systemd-analyze", "systemd")
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT.read_text().replace("/usr/bin/blockyard", sys.executable).replace("Documentation=man:blockyard(1)\n", "")
    )
    verified = subprocess.run(
        [systemd, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=180, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        [systemd, "security", "--offline=true", str(unit)], capture_output=True, text=True, timeout=180, check=False
    )
    exposure = re.search(r"Overall exposure level for blockyard.service: ([0-9.]+)", rated.stdout)
    assert exposure is not None, rated.stdout + rated.stderr
    assert float(exposure[1]) <= 2.0  # of 10; an ordinary service has 9.6


def test_the_unit_lets_it_do_what_it_does() -> None:
    """It raises its limit of open files, so that resources may not be among what is filtered."""
    assert "@resources" not in UNIT.read_text()


@pytest.mark.soak
def test_the_debian_package_serves(tmp_path: Path) -> None:
    """Built, unpacked elsewhere, and run with nothing of this tree: it takes half a minute."""
    build = ROOT / "packaging" / "debian" / "build"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHON": sys.executable}
    subprocess.run([str(build), str(tmp_path)], check=True, env=environment, timeout=600)
    package = next(tmp_path.glob("blockyard_*.deb"))
    told = subprocess.run(["dpkg-deb", "-I", str(package)], capture_output=True, text=True, check=True).stdout
    assert "Package: blockyard" in told
    subprocess.run(["dpkg-deb", "-x", str(package), str(tmp_path / "root")], check=True)
    program = tmp_path / "root" / "usr" / "bin" / "blockyard"
    portal = f"127.0.0.1:{free_port()}"
    disk, state = str(tmp_path / "disk.img"), str(tmp_path / "s")
    command = [str(program), "serve", disk, "--size", "16M", "--portal", portal, "--state", state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as serving:
        assert serving.stdout is not None
        began = time.monotonic()
        while "Ready." not in serving.stdout.readline():
            assert time.monotonic() < began + LIMIT
        listed = subprocess.run(
            ["iscsi-ls", "-s", f"iscsi://{portal}"], capture_output=True, text=True, timeout=180, check=False
        )
        serving.terminate()
        assert serving.wait(120) == 0
    assert "Lun:0" in listed.stdout
