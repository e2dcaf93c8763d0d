"""Secrets in what is told to people or kept for them: the audit log, support bundles. What is one shows by its name.

Configurations have none as they are, only names of secrets and files; what is written here holds for what may come.
"""

from __future__ import annotations

import re
from typing import Any

REMOVED = "(removed)"
_SECRET = re.compile(r"pass(word|phrase|wd)|secret|token|credential|(^|_)(key|psk|otp|totp)$", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+(?=@)")  # user:password@host (RFC 3986 §3.2.1)


def redacted(data: Any) -> Any:
    """The same plain data without what is secret."""
    if isinstance(data, dict):
        return {
            name: REMOVED if isinstance(value, str) and value and _SECRET.search(str(name)) else redacted(value)
            for name, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [redacted(value) for value in data]
    return _IN_URL.sub(rf"\1:{REMOVED}", data) if isinstance(data, str) else data
