"""Where a logical unit is: iscsi://[user@]host[:port]/target/lun, the form that libiscsi and QEMU use.

They know user%secret@ too. Here that is refused: a URL stands in argument lists, logs and histories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from blockyard.iscsi.names import InvalidName, PortalAddress, normalise_target, parse_portal
from blockyard.scsi.lun import MAX_LUN

_URL = re.compile(
    r"iscsi://(?:(?P<user>[^@%/]+)(?:%(?P<secret>[^@/]*))?@)?(?P<portal>\[[^\]]*\][^/]*|[^/@]+)/(?P<target>[^/]+)/(?P<lun>[0-9]{1,5})/?\Z"
)


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A logical unit of a target behind a portal."""

    portal: PortalAddress
    target: str
    lun: int
    user: str = ""

    def __str__(self) -> str:
        """The URL without the user."""
        return f"iscsi://{self.portal}/{self.target}/{self.lun}"


def parse_url(text: str) -> TargetUrl:
    """Take an iscsi:// URL apart. Raises InvalidName, with the form in its message."""
    match = _URL.match(text)
    if match is None:
        raise InvalidName(f"{_without_secret(text)!r} is not iscsi://HOST[:PORT]/TARGET/LUN")
    if match["secret"] is not None:
        raise InvalidName("a secret does not belong in a URL, where others can see it: name the user only")
    lun = int(match["lun"])
    if lun > MAX_LUN:
        raise InvalidName(f"LUN {lun} is greater than {MAX_LUN}")
    return TargetUrl(
        portal=parse_portal(match["portal"]),
        target=normalise_target(unquote(match["target"])),
        lun=lun,
        user=unquote(match["user"] or ""),
    )


def _without_secret(text: str) -> str:
    return re.sub(r"//[^/]*@", "//…@", text)
