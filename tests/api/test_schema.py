"""schemathesis makes requests up from the OpenAPI document, for an administrator: no answer is a 5xx, and each is as documented.

What it makes up may name any path of the machine: so the server sees a file system of which it can write the directory of the
test only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.conftest import run

_CONTAINED = 'mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"'
_CONFIGURATION = """\
[checks]
# A body that is too long is refused before it is looked at.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429]
# No schema can say which configurations make sense as a whole, or what there is.
positive_data_acceptance.enabled = false
"""
# Who is logged out, or has another password, would end the run; a stream does not end.
_EXCLUDED = ("/api/v1/stream", "/api/v1/logout", "/api/v1/me/password", "/api/v1/me/totp")
_TRIES = "^/api/v1/notifications/.*test$"  # how long that takes is up to the hosts that were made up


def _run(api: ApiFactory, tmp_path: Path, phases: str, examples: int, seconds: float) -> str:
    served = api(managed=True, prefix=["unshare", "--mount", "sh", "-c", _CONTAINED, str(tmp_path)])
    (tmp_path / "schemathesis.toml").write_text(_CONFIGURATION)
    command: list[str | Path] = [
        "env", "--chdir", tmp_path, Path(sys.executable).with_name("st"), "--config-file", tmp_path / "schemathesis.toml", "run",
        f"{served.base}/openapi.json", "--header", f"Authorization: Bearer {served.token(Role.ADMIN)}",
        "--phases", phases, "--max-examples", str(examples), "--generation-deterministic", "--request-timeout", "120",
        "--warnings", "off", "--suppress-health-check", "all",
    ]  # fmt: skip
    command += ["--exclude-path-regex", _TRIES]
    command += [word for path in _EXCLUDED for word in ("--exclude-path", path)]
    result = run(command, seconds=seconds, check=False)
    assert result.returncode == 0, result.stdout[-20000:]
    return result.stdout


def test_requests_that_are_made_up(api: ApiFactory, tmp_path: Path) -> None:
    assert "No issues found" in _run(api, tmp_path, "fuzzing", 4, 800)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_requests_that_are_made_up(api: ApiFactory, tmp_path: Path) -> None:
    assert "No issues found" in _run(api, tmp_path, "coverage,fuzzing,stateful", 200, 3500)
