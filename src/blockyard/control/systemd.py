"""Telling the service manager how the service is doing: the protocol of sd_notify(3).

Datagrams of VARIABLE=VALUE lines to the socket named in NOTIFY_SOCKET; a name that begins with "@" is in
the abstract namespace (unix(7)). A few lines, so that no library is needed for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def notify(**variables: str) -> None:
    """Send e.g. READY="1", STATUS="text". Does nothing without a service manager, nor when it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in variables.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(message.encode(), address)


def watchdog_interval() -> float | None:
    """Seconds between signs of life, half of what WatchdogSec= allows (sd_watchdog_enabled(3)); None: not wanted."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else None


async def keep_watchdog() -> None:
    """Send signs of life for as long as the event loop turns. Returns at once when nobody waits for them."""
    interval = watchdog_interval()
    while interval is not None:
        notify(WATCHDOG="1")
        await asyncio.sleep(interval)
