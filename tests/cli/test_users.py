"""`blockyard user`, `group` and `events`, as they are typed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.control.events import EventLog
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.iscsi.chap import Account

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "blockyard"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def start(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *words, "--state", str(tmp_path / "state")]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=180)

    return start


@pytest.fixture
def account(tmp_path: Path) -> Callable[[str], Account]:
    def get(name: str) -> Account:
        state = State(tmp_path / "state")
        try:
            return Users(state).get(name)
        finally:
            state.close()

    return get


def test_secrets_come_from_standard_input_and_files(
    run: Run, account: Callable[[str], Account], tmp_path: Path
) -> None:
    assert run("user", "add", "alice", "--mutual", "disks", stdin="secret of alice\nproof for alice\n").returncode == 0
    assert account("alice") == Account("alice", b"secret of alice", "disks", b"proof for alice")
    (tmp_path / "file").write_text("a newer secret\nsecond line")
    assert "everybody on this machine" in run("user", "set", "alice", "--secret-file", str(tmp_path / "file")).stderr
    (tmp_path / "file").chmod(0o600)
    assert run("user", "set", "alice", "--secret-file", str(tmp_path / "file")).returncode == 0
    assert account("alice") == Account("alice", b"a newer secret", "disks", b"proof for alice")
    assert run("user", "set", "alice", "--keep", "--mutual", "host", stdin="another proof\n").returncode == 0
    assert account("alice") == Account("alice", b"a newer secret", "host", b"another proof")


def test_secrets_are_made_up_on_request(run: Run, account: Callable[[str], Account]) -> None:
    printed = run("user", "add", "alice", "--generate", "--mutual", "disks").stdout
    made = account("alice")
    assert made.target_secret is not None
    assert (
        printed
        == f"Secret of alice: {made.secret.decode()}\nSecret of the target for alice: {made.target_secret.decode()}\n"
    )


def test_secrets_are_asked_for_at_the_terminal(tmp_path: Path, account: Callable[[str], Account]) -> None:
    """A real terminal: what is typed does not appear."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [*COMMAND, "user", "add", "alice", "--state", str(tmp_path / "state")])  # noqa: S606
    shown = b""
    for question in (b"Secret of alice: ", b"Once more: "):
        while not shown.endswith(question):
            shown += os.read(terminal, 1000)
        os.write(terminal, b"typed in secret\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert b"typed" not in shown
    assert account("alice").secret == b"typed in secret"


def test_lists_show_everything_but_secrets(run: Run) -> None:
    run("group", "add", "ops")
    run("user", "add", "alice", "--mutual", "disks", "--group", "ops", stdin="secret of alice\nproof for alice\n")
    run("user", "add", "bob", stdin="secret of bob\n")
    run("group", "add", "all", "alice", "bob")
    assert run("user", "list").stdout == "alice  mutual: disks  groups: all, ops\nbob  groups: all\n"
    assert json.loads(run("user", "list", "--json").stdout)[0] == {
        "name": "alice",
        "mutual": "disks",
        "groups": ["all", "ops"],
    }
    assert run("group", "list").stdout == "all: alice, bob\nops: alice\n"
    run("group", "remove", "all", "bob")
    run("user", "remove", "alice")
    run("group", "remove", "ops")
    events = [json.loads(line) for line in run("events", "--json").stdout.splitlines()]
    assert [event["what"] for event in events] == ["users-changed"] * 7
    assert events[1]["text"].startswith("the user alice was made, by ")
    assert json.loads(run("group", "list", "--json").stdout) == {"all": []}


@pytest.mark.parametrize(
    ("words", "stdin", "status", "why"),
    [
        (["user", "add", "alice"], "short\n", 2, "at least 12 bytes"),
        (["user", "add", "alice", "--mutual", "x"], "the same secret\nthe same secret\n", 2, "must differ"),
        (["user", "add", ""], "secret of alice\n", 2, "cannot be empty"),
        (["user", "add", "alice", "--secret-file", "/nowhere"], "", 2, "/nowhere: No such file"),
        (["user", "add", "alice", "--secret-file", "/dev/null", "--generate"], "", 2, "takes no file"),
        (["user", "add", "alice", "--mutual-secret-file", "/dev/null"], "secret of alice\n", 2, "needs --mutual"),
        (["user", "add", "alice", "--group", "nowhere"], "secret of alice\n", 6, "no group nowhere"),
        (["user", "set", "alice"], "secret of alice\n", 6, "no user alice"),
        (["user", "remove", "alice"], "", 6, "no user alice"),
        (["group", "remove", "ops"], "", 6, "no group ops"),
    ],
)
def test_errors_are_one_line(run: Run, words: list[str], stdin: str, status: int, why: str) -> None:
    ended = run(*words, stdin=stdin)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert why in ended.stderr
    assert ended.stderr.startswith("blockyard: ")
    assert len(ended.stderr.splitlines()) == 1


def record(directory: Path, *texts: str) -> None:
    state = State(directory)
    events = EventLog(state)
    for text in texts:
        events.record("login-failed", text, who="alice")
    events.flush()
    state.close()


def test_events_are_shown(run: Run, tmp_path: Path) -> None:
    record(tmp_path / "state", "one", "two", "three")
    assert [line.split()[-1] for line in run("events", "--count", "2").stdout.splitlines()] == ["two", "three"]
    (first, *_) = [json.loads(line) for line in run("events", "--json").stdout.splitlines()]
    assert (first["what"], first["text"], first["who"], first["severity"]) == (
        "login-failed",
        "one",
        "alice",
        "warning",
    )


def test_events_are_followed(tmp_path: Path) -> None:
    record(tmp_path, "one")
    command = [*COMMAND, "events", "--follow", "--json", "--state", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["text"] == "one"
        record(tmp_path, "two")
        assert json.loads(process.stdout.readline())["text"] == "two"
        process.terminate()
