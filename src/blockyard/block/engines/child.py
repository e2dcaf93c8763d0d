"""Becomes a server that gets its listening socket as from a service manager, and ends when its parent does.

    python -I -S child.py PARENT SOCKET COMMAND...

A file of its own because nothing may happen between fork and exec in a process that has threads. It knows nothing of the rest.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FIRST = 3  # descriptor of the first socket that is handed over (sd_listen_fds(3))


def main() -> None:
    parent, listener, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # it then ends as if asked to: nothing written is lost
    if os.getppid() != int(parent):
        return  # it died before that
    os.dup2(int(listener), _FIRST)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LC_ALL="C.UTF-8")
    for name in ("LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"):
        os.environ.pop(name, None)
    try:
        os.execvp(command[0], command)  # noqa: S606  (what the parent says)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
