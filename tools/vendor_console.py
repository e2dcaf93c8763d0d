"""Fetch what the console did not write itself from npm, and put it where the console looks for it.

To take a newer version: change the row here, run `python tools/vendor_console.py`, and look at the pages.
"""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).parents[1] / "src" / "blockyard" / "console" / "vendor"


class Package(NamedTuple):
    name: str
    version: str
    sha512: str  # of the tarball, as npm gives it (Subresource Integrity)
    files: dict[str, str]  # in the tarball → here


PACKAGES = (
    Package(
        "preact",
        "10.29.8",
        "ej2aVZ+vZ8WO7tvlQWRM9N63A0KzF9q4mWJfDUHgYaIofWY9hu74QdnQrjoPMmZi2/nZ5gN0bJCQF49xQqx09Q==",
        {
            "dist/preact.module.js": "preact.js",
            "hooks/dist/hooks.module.js": "hooks.js",
            "LICENSE": "LICENSE.preact",
        },
    ),
    Package(
        "htm",
        "3.1.1",
        "983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        {"dist/htm.module.js": "htm.js", "LICENSE": "LICENSE.htm"},
    ),
    Package(
        "uplot",
        "1.6.32",
        "KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "LICENSE.uplot"},
    ),
)


def fetch(package: Package) -> None:
    """Raises SystemExit when what npm has is not what is expected."""
    url = f"https://registry.npmjs.org/{package.name}/-/{package.name}-{package.version}.tgz"
    with urllib.request.urlopen(url, timeout=60) as answer:
        tarball = answer.read()
    found = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    if found != package.sha512:
        sys.exit(f"{url} has the checksum {found}, not {package.sha512}")
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        for inside, name in package.files.items():
            member = archive.extractfile(f"package/{inside}")
            assert member is not None
            (VENDOR / name).write_bytes(adapted(name, member.read()))


def adapted(name: str, content: bytes) -> bytes:
    """Browsers resolve paths only, and source maps are not taken along."""
    if not name.endswith(".js"):
        return content
    lines = content.replace(b'from"preact"', b'from"./preact.js"').splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(b"//# sourceMappingURL"))


if __name__ == "__main__":
    for package in PACKAGES:
        fetch(package)
