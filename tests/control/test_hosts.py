"""Hosts in rules of access: what each is known by stands once."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.control.configuration_file import dump, load
from blockyard.control.errors import ConfigurationError
from blockyard.control.hosts import users_of, without_hosts
from blockyard.initiator import LoginError, connect
from blockyard.iscsi.access import AccessList, Host, Rule
from tests.conftest import TargetFactory

CONFIG = """
[volumes.a]
path = "a.img"
size = "8M"

[targets."iqn.2026-11.test:a"]
luns = { 0 = "a" }
access = [{ hosts = ["web1", "web2"] }, { right = "read-only", addresses = ["192.0.2.0/24"] }]

[hosts.web1]
initiators = ["iqn.2026-11.test:web1"]
note = "the first"

[hosts.web2]
initiators = ["iqn.2026-11.test:web2"]
users = ["web2"]
"""


def _load(path: Path, text: str) -> object:
    path.write_text(text)
    return load(path)


def test_rules_get_what_hosts_are(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(CONFIG)
    configuration = load(tmp_path / "c.toml")
    (target,) = without_hosts(configuration).targets.values()
    assert target.access == (
        Rule(initiators=("iqn.2026-11.test:web1",)),
        Rule(initiators=("iqn.2026-11.test:web2",), users=("web2",)),
        Rule(right="read-only", addresses=("192.0.2.0/24",)),
    )
    assert users_of("web1", configuration) == ["iqn.2026-11.test:a"]
    (tmp_path / "again.toml").write_text(dump(configuration))
    assert load(tmp_path / "again.toml") == configuration


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"web1", ', '"web3", ', r"hosts: there is no host 'web3'"),
        ('hosts = ["web1"', 'users = ["x"], hosts = ["web1"', "leave out initiators"),
        ('initiators = ["iqn.2026-11.test:web1"]', "", "known by something"),
        ('["iqn.2026-11.test:web1"]', '["IQN.X"]', "lower case"),
        ("[hosts.web1]\n", "[hosts.web1]\nmutual = true\n", "mutual authentication needs users"),
    ],
)
def test_hosts_that_make_no_sense(old: str, new: str, problem: str, tmp_path: Path) -> None:
    assert old in CONFIG
    with pytest.raises(ConfigurationError, match=problem):
        _load(tmp_path / "c.toml", CONFIG.replace(old, new, 1))


def test_a_host_that_nobody_has_looked_up_is_nobody() -> None:
    access = AccessList((Rule(hosts=("web1",)),))
    assert access.methods(Host("iqn.2026-11.test:anybody", None)) == ()


def test_hosts_log_in(target: TargetFactory) -> None:
    served = target(config=CONFIG)
    url = served.url(target="iqn.2026-11.test:a")
    with connect(url, initiator_name="iqn.2026-11.test:web1") as lun:
        lun.write(0, bytes(4096))
    for name in ("web2", "web3"):  # without the user's proof; and somebody else
        with pytest.raises(LoginError):
            connect(url, initiator_name=f"iqn.2026-11.test:{name}")
