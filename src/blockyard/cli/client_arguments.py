"""What the client's commands can be told: numbers, and how a session is to be."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from blockyard.cli.credentials import account_of, add_options
from blockyard.initiator import DIGEST_CHOICES, PREFERENCES
from blockyard.initiator.session import DEFAULT_TIMEOUT

ALL_PAGES = -1  # for --page


def block_number(text: str) -> int:
    number = int(text, 0)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


block_number.__name__ = "number"  # argparse says "invalid number value"


def block_count(text: str) -> int | None:
    return None if text == "all" else block_number(text)


block_count.__name__ = "number"


def positive_seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time")
    return seconds


def page_code(text: str) -> int:
    if text == "all":
        return ALL_PAGES
    page = int(text, 16)
    if not 0 <= page <= 0xFF:
        raise argparse.ArgumentTypeError(f"{text} is not from 00 to ff")
    return page


page_code.__name__ = "page"


def add_session_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("session")
    group.add_argument(
        "--initiator-name", metavar="IQN", help="the name to log in with (default: one made of this host's name)"
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT,
        help="how long the target may stay silent (default: 30)",
    )
    for kind in ("header", "data"):
        group.add_argument(
            f"--{kind}-digest",
            choices=tuple(DIGEST_CHOICES),
            default="none",
            help=f"protect {'headers' if kind == 'header' else 'data'} by CRC32C: never, if the target can, or always",
        )
    add_options(parser)


def session_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "initiator_name": options.initiator_name,
        "account": account_of(options),
        "algorithms": options.chap_algorithms,
        "timeout": options.timeout,
        "preferences": replace(
            PREFERENCES,
            header_digest=DIGEST_CHOICES[options.header_digest],
            data_digest=DIGEST_CHOICES[options.data_digest],
        ),
    }
