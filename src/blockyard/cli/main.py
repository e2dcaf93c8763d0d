"""The command `blockyard`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from blockyard.cli.commands import build_parser
from blockyard.control.administration import REMOTE
from blockyard.control.errors import UsageError
from blockyard.control.remote import Remote


def _take_road(options: argparse.Namespace) -> None:
    """Have commands ask a server elsewhere, if that is wanted. Raises UsageError."""
    asks = getattr(options, "asks", False)
    if options.elsewhere is not None and not asks:
        raise UsageError("that is done on this machine, and not by a server elsewhere: leave out --url, or do it there")
    url = options.elsewhere or os.environ.get("BLOCKYARD_URL")
    token = options.token_file or os.environ.get("BLOCKYARD_TOKEN_FILE")
    remote = Remote(url, None if token is None else Path(token), options.cacert, options.pin) if url and asks else None
    REMOTE.set(remote)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text in any encoding
    words = sys.argv[1:] if arguments is None else arguments
    options = build_parser(words).parse_args(words)
    try:
        _take_road(options)
        status: int = options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
        return 1
    return status
