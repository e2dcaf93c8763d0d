"""The configuration of a managed server in the state database: revisions, conflicts, and changes that are killed half way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.block.size import Size
from blockyard.control import audit
from blockyard.control.errors import Conflict, StateError, UsageError
from blockyard.control.managed import Managed
from blockyard.control.redaction import REMOVED, redacted
from blockyard.control.revisions import RETAINED, Revisions
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration, Isns, Metrics, PortalGroup, Target, Volume
from tests.control.changing import AFTER, BEFORE, adjust
from tests.control.killing import Killer

ONE = Configuration({1: PortalGroup(("127.0.0.1:3260",))}, {"a": Volume("a", "/a", Size(1 << 30))})
TWO = replace(ONE, targets={"iqn.x": Target("iqn.x", {0: "a"})}, metrics=Metrics("127.0.0.1:9464"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State(tmp_path)) as opened:
        yield opened


def test_revisions_follow_one_another(state: State) -> None:
    revisions = Revisions(state)
    assert revisions.current() is None
    assert revisions.put(ONE, "first").number == 1
    assert revisions.put(ONE, "again").number == 1  # nothing has changed
    assert revisions.put(TWO, "second", expected=1).number == 2
    with pytest.raises(Conflict, match="revision 1 does not hold any more, but 2") as refused:
        revisions.put(ONE, "late", expected=1)
    assert refused.value.exit_status == 8
    current = revisions.current()
    assert current is not None
    assert (current.number, current.who, current.configuration) == (2, "second", TWO)
    assert current.what == '+ targets."iqn.x", + metrics'
    assert [(revision.number, revision.configuration) for revision in revisions.history(5)] == [(1, ONE), (2, TWO)]
    assert revisions.at(1).configuration == ONE
    with pytest.raises(UsageError, match="there is no revision 3"):
        revisions.at(3)


def test_of_very_many_the_last_are_kept(state: State) -> None:
    revisions = Revisions(state)
    for number in range(RETAINED + 5):
        revisions.put(replace(ONE, isns=Isns(f"192.0.2.1:{number + 1}")), "somebody")
    kept = revisions.history(RETAINED + 5)
    assert [kept[0].number, kept[-1].number, len(kept)] == [6, RETAINED + 5, RETAINED]


def test_each_change_is_in_the_audit_log(state: State) -> None:
    revisions = Revisions(state)
    revisions.put(ONE, "alice")
    revisions.put(TWO, "bob")
    first, second = audit.read(state)
    assert (first.who, second.who) == ("alice", "bob")
    assert second.what == 'configuration 2: + targets."iqn.x", + metrics'
    assert second.before == {}
    assert second.after == {"targets": {"iqn.x": {"luns": {"0": "a"}}}, "metrics": {"listen": "127.0.0.1:9464"}}
    revisions.put(replace(TWO, volumes={"a": replace(TWO.volumes["a"], size=Size(2 << 30))}), "carol")
    (third,) = audit.read(state, after=second.id)
    assert (third.before, third.after) == (
        {"volumes": {"a": {"size": 1 << 30}}},
        {"volumes": {"a": {"size": 2 << 30}}},
    )
    assert json.loads(json.dumps(third.as_dict()))["who"] == "carol"


def test_secrets_do_not_reach_the_audit_log(state: State) -> None:
    audit.record(state, audit.Entry("alice", "something", {"password": "old"}, {"url": "rbd://bob:s3cret@host/x"}))
    (entry,) = audit.read(state)
    assert entry.before == {"password": REMOVED}
    assert entry.after == {"url": f"rbd://bob:{REMOVED}@host/x"}


def test_what_is_secret_shows_by_its_name() -> None:
    plain = {"key_file": "/etc/key", "keys": 3, "path": "/srv/token.img", "url": "iscsi://127.0.0.1:3260/iqn/0"}
    assert redacted(plain) == plain
    for name in ("secret", "target_secret", "Password", "passphrase", "api_token", "key", "luks_key", "psk"):
        assert redacted([{name: "x"}]) == [{name: REMOVED}]


def test_a_configuration_of_a_later_version_is_told(state: State) -> None:
    with state.transaction() as database:
        database.execute("INSERT INTO revisions VALUES (1, 0, 'x', 'y', '{\"wormholes\": {}}')")
    with pytest.raises(
        StateError, match=r"does not understand the configuration there \(wormholes: there is no such key"
    ):
        Revisions(state).current()


def test_what_was_begun_is_tried_once(tmp_path: Path, state: State) -> None:
    Revisions(state).put(ONE, "first")
    Revisions(state).begin(TWO, "second")
    managed = Managed(tmp_path)
    assert managed.candidates(adjust) == [TWO, ONE]
    assert Managed(tmp_path).candidates(adjust) == [ONE]  # the start that tried it has ended before it was done
    managed.serves(TWO, {})
    current = Revisions(state).current()
    assert current is not None
    assert (managed.revision, current.who, current.configuration) == (2, "second", TWO)
    assert Managed(tmp_path).candidates(adjust) == [TWO]


def test_killed_at_every_step(tmp_path: Path) -> None:
    """In the database there is always what was before or what was to be, and whoever was told so finds the latter."""
    killer = Killer(tmp_path)
    program = (
        "import os, pathlib, sys, shutil\n"
        "from tests.control.changing import change\n"
        "from tests.control.killing import Killer\n"
        "top, step = pathlib.Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    step += 1\n"
        "    place = top / str(step)\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        sys.stdin.readline()\n"
        "        change(place)\n"
        "        os._exit(0)\n"
        "    print(child, flush=True)\n"
        "    print(os.waitpid(child, 0)[1], flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        env={**os.environ, **killer.environment, "PYTHONPATH": os.fspath(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    outcomes = []
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step in range(1, 1000):
            killer.arm(int(process.stdout.readline()), step)
            process.stdin.write("\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            killer.disarm()
            place = tmp_path / str(step)
            candidates = Managed(place).candidates(adjust)
            outcomes.append([each.metrics is not None for each in candidates])
            assert all(each in (BEFORE, AFTER) for each in candidates)
            assert candidates[-1] == BEFORE or candidates == [AFTER]
            if (place / "served").exists():
                assert AFTER in candidates  # what initiators may have seen is not forgotten
            if status == 0:
                assert candidates == [AFTER]
                break
            assert status == signal.SIGKILL
        process.kill()
    assert [False] in outcomes
    assert [True, False] in outcomes
    assert outcomes[-1] == [True]
