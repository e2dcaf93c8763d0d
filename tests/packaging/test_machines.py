"""The Debian package and the Ansible role, as they are applied to a machine: a Debian with systemd that is made for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need, run
from tests.packaging.machine import Machine, booted, make
from tests.serving import free_port

ROOT = Path(__file__).parents[2]
PLAYBOOK = "/packaging/ansible/site.yml"
SETTINGS = """\
blockyard_package: {wheel}
blockyard_data: [/srv/disks]
blockyard_options: --portal {portal}
blockyard_config: |
  [volumes.one]
  path = "/srv/disks/one.img"
  size = "{size}"
  [targets."iqn.2026-11.test:one"]
  luns = {{ 0 = "one" }}
"""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One that is copied."""
    root = tmp_path_factory.mktemp("debian") / "root"
    make(root, "ansible-core", "ca-certificates", "init-system-helpers", "python3-apt", "python3-venv", "systemd")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def machine(debian: Path, tmp_path: Path) -> Iterator[Machine]:
    root = tmp_path / "root"
    run(["cp", "--archive", "--reflink=auto", debian, root], seconds=300)
    with booted(root) as found:
        yield found
    shutil.rmtree(root)


def _shown(portal: str) -> str:
    return run([need("iscsi-ls", "libiscsi-bin"), "-s", f"iscsi://{portal}"]).stdout


def test_the_debian_package(machine: Machine, tmp_path: Path) -> None:
    """Looked at by lintian; installed, upgraded, removed and purged."""
    build = ROOT / "packaging" / "debian" / "build"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHON": sys.executable}
    subprocess.run([build, tmp_path], check=True, env=environment, timeout=600)
    package = next(tmp_path.glob("blockyard_*.deb"))
    run([need("lintian", "lintian"), "--allow-root", "--fail-on", "error,warning", package], seconds=300)
    shutil.copy(package, machine.root / "blockyard.deb")
    portal = f"127.0.0.1:{free_port()}"
    own = machine.root / "etc" / "systemd" / "system" / "blockyard.service.d"
    own.mkdir()
    options = f"--portal {portal} --console 127.0.0.1:{free_port()}"
    (own / "options.conf").write_text(f'[Service]\nEnvironment="BLOCKYARD_OPTIONS={options}"\n')
    machine.run("dpkg", "-i", "/blockyard.deb")
    assert machine.run("systemctl", "is-active", "blockyard") == "active\n"
    assert machine.run("systemctl", "is-enabled", "blockyard") == "enabled\n"
    assert machine.run("systemd-analyze", "verify", "--man=no", "blockyard.service") == ""
    assert machine.run("stat", "-c", "%U %a", "/var/lib/blockyard") == "blockyard 700\n"
    assert "Lun:0" in _shown(portal)
    machine.run("systemctl", "disable", "blockyard")
    machine.run("dpkg", "-i", "/blockyard.deb")
    assert machine.run("systemctl", "is-active", "blockyard") == "active\n"
    assert machine.run("systemctl", "is-enabled", "blockyard", check=False) == "disabled\n"
    assert "Lun:0" in _shown(portal)
    machine.run("dpkg", "-r", "blockyard")
    assert machine.run("systemctl", "is-active", "blockyard", check=False) == "inactive\n"
    machine.run("dpkg", "-P", "blockyard")
    assert (machine.root / "var" / "lib" / "blockyard" / "demo.img").exists()
    assert not (machine.root / "usr" / "lib" / "blockyard").exists()
    assert not list((machine.root / "etc" / "systemd" / "system").rglob("blockyard.service"))


def test_the_ansible_role(machine: Machine, tmp_path: Path) -> None:
    """Applied by Ansible: a second time it changes nothing, another configuration is taken without a restart."""
    build: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "-d", tmp_path, "-t", "wheel"]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=300)
    wheel = next(tmp_path.glob("*.whl"))
    shutil.copy(wheel, machine.root)
    shutil.copytree(ROOT / "packaging", machine.root / "packaging", symlinks=True)
    machine.run("apt-get", "update")
    portal = f"127.0.0.1:{free_port()}"

    def apply(size: str) -> str:
        settings = SETTINGS.format(wheel=f"/{wheel.name}", portal=portal, size=size)
        (machine.root / "settings.yml").write_text(settings)
        command = ("ansible-playbook", "-c", "local", "-i", "localhost,", PLAYBOOK, "-e", "@/settings.yml")
        return machine.run(*command, seconds=600)

    assert "failed=0" in apply("16M")
    assert machine.run("systemctl", "is-active", "blockyard") == "active\n"
    assert "Lun:0" in _shown(portal)
    assert "changed=0" in apply("16M")
    process = machine.run("systemctl", "show", "--property=MainPID", "blockyard")
    assert "Reload blockyard" in apply("32M")
    assert (machine.root / "srv" / "disks" / "one.img").stat().st_size == 32 << 20
    assert machine.run("systemctl", "show", "--property=MainPID", "blockyard") == process
