"""Make a virtual environment with pip, on a machine that may lack what `python -m venv` needs for that.

    python3 tools/make_venv.py DIRECTORY

Debian and its relatives ship Python without ensurepip. Where it is missing: as root, its package is installed;
else pip comes as a wheel from the package index ($PIP_INDEX_URL, default PyPI), its SHA-256 checked. This file
needs the standard library only.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

APT = ("apt-get", "-o", "DPkg::Lock::Timeout=600")
LINK = re.compile(r"<a [^>]*>")
WHEEL = re.compile(r'href="([^"]*/(pip-(\d+(?:\.\d+)*)-py3-none-any\.whl)#sha256=([0-9a-f]{64}))"')
REQUIRES = re.compile(r'data-requires-python="&gt;=(\d+)\.(\d+)')


def main() -> int:
    directory = Path(sys.argv[1])
    if (directory / "bin" / "pip").exists():
        return 0
    if not has_ensurepip() and os.geteuid() == 0 and shutil.which("apt-get"):
        install_package()
    shutil.rmtree(directory, ignore_errors=True)  # half of one, of an earlier attempt
    try:
        if has_ensurepip():
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
            bootstrap_pip(directory)
    except (subprocess.CalledProcessError, OSError, LookupError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        print(f"Could not make {directory}: {error}", file=sys.stderr)
        print(f"On Debian and Ubuntu this helps: sudo apt-get install python{version}-venv", file=sys.stderr)
        return 1
    return 0


def has_ensurepip() -> bool:
    """Whether this Python can put pip into a new environment by itself."""
    importlib.invalidate_caches()
    return importlib.util.find_spec("ensurepip") is not None


def install_package() -> None:
    """Install the Debian package with ensurepip for this Python; failure is found out afterwards."""
    print("Python's venv module is incomplete: installing its package", file=sys.stderr)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*APT, "update", "-q"], env=environment, stdout=sys.stderr, check=False)
    subprocess.run(
        [*APT, "install", "-y", "-q", "--no-install-recommends", name], env=environment, stdout=sys.stderr, check=False
    )


def bootstrap_pip(directory: Path) -> None:
    """Put pip into an environment without it: a wheel of pip can install itself."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    print(f"Python has no ensurepip: fetching pip from {index}", file=sys.stderr)
    wheels = list(find_wheels(fetch(index).decode()))
    if not wheels:
        raise LookupError(f"no wheel of pip for this Python at {index}")
    _, name, link, digest = max(wheels)
    wheel = fetch(urllib.parse.urljoin(index, link.partition("#")[0]))
    if hashlib.sha256(wheel).hexdigest() != digest:
        raise LookupError(f"{name} does not have the SHA-256 that {index} tells")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(wheel)
        subprocess.run(
            [directory / "bin" / "python", path / "pip", "install", "-q", "--no-index", path],
            check=True,
        )


def find_wheels(page: str) -> Iterator[tuple[tuple[int, ...], str, str, str]]:
    """Version, file name, address and SHA-256 of the wheels on an index page that this Python can use (PEP 503)."""
    for link in LINK.findall(page):
        wheel, requires = WHEEL.search(html.unescape(link)), REQUIRES.search(link)
        if wheel and (requires is None or (int(requires[1]), int(requires[2])) <= sys.version_info[:2]):
            yield tuple(map(int, wheel[3].split("."))), wheel[2], wheel[1], wheel[4]


def fetch(url: str) -> bytes:
    """The body of a page. Raises OSError."""
    request = urllib.request.Request(url, headers={"Accept": "text/html, */*;q=0.1"})
    with urllib.request.urlopen(request, timeout=60) as response:
        body: bytes = response.read()
        return body


if __name__ == "__main__":
    sys.exit(main())
