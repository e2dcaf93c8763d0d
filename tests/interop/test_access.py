"""Other people's initiators log in as users: libiscsi, QEMU, and ours; and what they may do then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.control.limits import FREE
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.initiator import LoginError, ScsiError, SessionLost, connect, discover
from blockyard.iscsi.chap import Account
from blockyard.iscsi.pdu import LoginStatus
from tests.conftest import TargetFactory, need, run
from tests.interop.conformance import parse
from tests.serving import Serving
from tests.waiting import eventually

DISK, OTHER = "iqn.2024-01.test.blockyard:disk", "iqn.2024-01.test.blockyard:other"
SECRET, PROOF = "secret of alice", "proof for alice"
ALICE = Account("alice", SECRET.encode(), "disks", PROOF.encode())
BOB = Account("0xb0b", b"secret of 0xb0b")
EVE = Account("0bZXZl", b"secret of 0bZXZl")
CONFIGURATION = f"""
[volumes.one]
path = "one.img"
size = "32M"
[volumes.two]
path = "two.img"
size = "8M"
[targets."{DISK}"]
luns = {{ 0 = "one" }}
[[targets."{DISK}".access]]
users = ["alice"]
luns = {{ 0 = "one", 5 = "two" }}
[[targets."{DISK}".access]]
users = ["0xb0b"]
right = "read-only"
luns = {{ 0 = "two" }}
[[targets."{DISK}".access]]
users = ["0bZXZl"]
right = "virtual-write"
virtual_write_limit = 1048576
[targets."{OTHER}"]
luns = {{ 0 = "two" }}
[[targets."{OTHER}".access]]
initiators = ["iqn.2024-01.test.nobody:*"]
"""


@pytest.fixture
def serving(target: TargetFactory, tmp_path: Path) -> Serving:
    state = State(tmp_path / "state-0")
    for account in (ALICE, BOB, EVE):
        Users(state).add(account)
    state.close()
    return target(config=CONFIGURATION)


def url(serving: Serving, user: str = "", *, lun: int = 0) -> str:
    return serving.url(lun, target=DISK).replace("iscsi://", f"iscsi://{user}@" if user else "iscsi://")


def libiscsi(
    program: str, *words: str, check: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return run([need(program, "libiscsi-bin"), *words], check=check, environment=environment)


@pytest.mark.parametrize("account", [ALICE, BOB, EVE], ids=lambda account: account.name)
def test_libiscsi_logs_in(account: Account, serving: Serving) -> None:
    who = f"{account.name}%{account.secret.decode()}"
    assert "CONNECTED" in libiscsi("iscsi-inq", url(serving, who)).stdout
    assert libiscsi("iscsi-inq", url(serving, f"{account.name}%a wrong secret"), check=False).returncode


def test_libiscsi_has_the_target_prove_itself(serving: Serving) -> None:
    environment = {"LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": SECRET}
    proof = {"LIBISCSI_CHAP_TARGET_USERNAME": "disks", "LIBISCSI_CHAP_TARGET_PASSWORD": PROOF}
    assert "CONNECTED" in libiscsi("iscsi-inq", url(serving), environment=environment | proof).stdout
    wrong = proof | {"LIBISCSI_CHAP_TARGET_PASSWORD": "the wrong proof"}
    refused = libiscsi("iscsi-inq", url(serving), check=False, environment=environment | wrong)
    assert "Invalid CHAP_R" in refused.stdout + refused.stderr


def test_libiscsi_finds_what_it_may_log_in_to(serving: Serving) -> None:
    portal = f"iscsi://alice%{SECRET}@{serving.portals[0]}"
    listed = libiscsi("iscsi-ls", "-s", portal).stdout
    assert f"Target:{DISK}" in listed
    assert OTHER not in listed
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["Lun:0", "Lun:5"]


def test_qemu_logs_in(serving: Serving, random_file: Callable[[str, int], Path], tmp_path: Path) -> None:
    image = random_file("image.raw", 8 << 20)
    (tmp_path / "password").write_text(SECRET)
    options = f"driver=iscsi,transport=tcp,portal={serving.portals[0]},target={DISK},lun=5,user=alice,password-secret=s"
    qemu_img = need("qemu-img", "qemu-utils qemu-block-extra")
    secret = ["--object", f"secret,id=s,file={tmp_path / 'password'}"]
    run([qemu_img, "convert", *secret, "-n", "-f", "raw", image, "--target-image-opts", options])
    serving.stop()
    assert (tmp_path / "two.img").read_bytes() == image.read_bytes()


def test_each_user_has_its_own_view_and_right(serving: Serving, tmp_path: Path) -> None:
    with connect(url(serving, lun=5), account=ALICE) as lun:
        lun.write(0, b"written by alice".ljust(512))
    with connect(url(serving), account=BOB) as lun:
        assert lun.read(0, 1).startswith(b"written by alice")
        with pytest.raises(ScsiError, match="DATA PROTECT"):
            lun.write(0, bytes(512))
    before = (tmp_path / "one.img").read_bytes()
    with connect(url(serving), account=EVE) as one, connect(url(serving), account=EVE) as other:
        one.write(0, b"1" * 65536)
        other.write(0, b"2" * 65536)
        assert one.read(0, 128) == b"1" * 65536
        assert other.read(0, 128) == b"2" * 65536
        with pytest.raises(ScsiError, match="DATA PROTECT"):
            for lba in range(0, 65536, 2048):
                one.write(lba, bytes(1 << 20))
    assert (tmp_path / "one.img").read_bytes() == before
    with connect(url(serving), account=EVE) as lun:
        assert lun.read(0, 128) == before[:65536]


def test_who_may_not_is_told_why_and_recorded(serving: Serving, tmp_path: Path) -> None:
    for account, target, status in (
        (None, DISK, LoginStatus.AUTHENTICATION_FAILURE),
        (Account("alice", b"a wrong secret"), DISK, LoginStatus.AUTHENTICATION_FAILURE),
        (ALICE, OTHER, LoginStatus.AUTHORIZATION_FAILURE),
        (ALICE, DISK + "x", LoginStatus.NOT_FOUND),
    ):
        with pytest.raises(LoginError) as raised:
            connect(serving.url(target=target), account=account)
        assert raised.value.status == status
    assert [found.name for found in discover(serving.portals[0])] == [DISK]
    serving.stop()
    command = [sys.executable, "-m", "blockyard", "events", "--json", "--state", str(tmp_path / "state-0")]
    events = [json.loads(line) for line in run(command).stdout.splitlines()]
    events = [event for event in events if not event["what"].startswith("server-")]
    assert [(event["what"], event["target"]) for event in events] == [
        ("login-failed", name) for name in (DISK, DISK, OTHER)
    ]
    assert events[1]["who"] == "alice"


def blockyard(*words: str, stdin: str = "") -> None:
    subprocess.run([sys.executable, "-m", "blockyard", *words], input=stdin, check=True, timeout=180, text=True)


def logs_in(serving: Serving, account: Account) -> bool:
    try:
        connect(url(serving), account=account).close()
    except LoginError:
        return False
    return True


def test_changed_users_are_known_while_it_serves(serving: Serving, tmp_path: Path) -> None:
    state = str(tmp_path / "state-0")
    with connect(url(serving), account=ALICE) as session:
        blockyard("user", "set", "alice", "--state", state, stdin="a newer secret\n")
        newer = Account("alice", b"a newer secret")
        eventually(lambda: not logs_in(serving, ALICE))
        assert logs_in(serving, newer)
        assert len(session.read(0, 1)) == 512  # a session that there is goes on
        blockyard("user", "remove", "alice", "--state", state)
        eventually(lambda: not logs_in(serving, newer))
        with pytest.raises(SessionLost):  # until there is no such user any more
            while True:  # it is asked to log out first
                session.read(0, 1)
    with connect(url(serving), account=BOB) as other:
        assert len(other.read(0, 1)) == 512


def test_no_secret_is_anywhere_but_where_it_belongs(serving: Serving, tmp_path: Path) -> None:
    libiscsi("iscsi-inq", url(serving, f"alice%{SECRET}"))
    for process in (serving.pid, *serving.workers):
        for name in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{process}/{name}").read_bytes()
    serving.stop()
    for directory, _, names in os.walk(tmp_path):
        for name in names:
            if not name.endswith(".img"):
                assert SECRET.encode() not in Path(directory, name).read_bytes(), name


def status_of(serving: Serving, target: str, account: Account) -> LoginStatus:
    try:
        connect(serving.url(target=target), account=account).close()
    except LoginError as error:
        return LoginStatus(error.status)
    return LoginStatus.SUCCESS


def test_failures_in_one_worker_slow_a_host_down_at_all(target: TargetFactory, tmp_path: Path) -> None:
    state = State(tmp_path / "state-0")
    Users(state).add(ALICE)
    state.close()
    targets = [f"iqn.2024-01.test.blockyard:{number}" for number in range(2)]
    serving = target(
        config="\n".join(
            f"""
            [volumes.v{number}]
            path = "v{number}.img"
            size = "1M"
            [targets."{name}"]
            luns = {{ 0 = "v{number}" }}
            access = [{{ users = ["alice"] }}]
            """
            for number, name in enumerate(targets)
        ),
        options=["--workers", "2"],
    )
    assert len(serving.workers) == 2
    wrong = Account("alice", b"a wrong secret")
    seen = [status_of(serving, targets[0], wrong) for _ in range(FREE + 1)]
    assert seen == [LoginStatus.AUTHENTICATION_FAILURE] * (FREE + 1)
    eventually(lambda: status_of(serving, targets[0], wrong) == LoginStatus.SERVICE_UNAVAILABLE)
    assert status_of(serving, targets[1], wrong) == LoginStatus.AUTHENTICATION_FAILURE  # one guess, no more
    eventually(lambda: status_of(serving, targets[1], wrong) == LoginStatus.SERVICE_UNAVAILABLE)
    eventually(lambda: status_of(serving, targets[0], ALICE) == LoginStatus.SUCCESS)  # the wait has an end


def test_what_destroys_a_disk_leaves_no_trace_with_virtual_write(target: TargetFactory, tmp_path: Path) -> None:
    """Suites of libiscsi that overwrite, unmap and sanitize the whole disk."""
    state = State(tmp_path / "state-0")
    Users(state).add(EVE)
    state.close()
    (tmp_path / "disk.img").write_bytes(os.urandom(32 << 20))
    before = (tmp_path / "disk.img").read_bytes()
    serving = target(
        config=f"""
    [volumes.disk]
    path = "disk.img"
    [targets."{DISK}"]
    luns = {{ 0 = "disk" }}
    access = [{{ users = ["0bZXZl"], right = "virtual-write" }}]
    """
    )
    who = url(serving, f"{EVE.name}%{EVE.secret.decode()}")
    for name in (
        "Sanitize.BlockErase",
        "Sanitize.Overwrite",
        "Unmap",
        "Write16",
        "CompareAndWrite",
        "OrWrite",
        "WriteAtomic16",
    ):
        options = ("--dataloss", "--allow-sanitize", "-V", "--test", f"ALL.{name}")
        outcomes = list(parse(libiscsi("iscsi-test-cu", *options, who, check=False).stdout))
        assert {outcome.verdict for outcome in outcomes} == {"passed"}, outcomes
    serving.stop()
    assert (tmp_path / "disk.img").read_bytes() == before


def test_algorithms_and_their_order_are_policy(target: TargetFactory, tmp_path: Path) -> None:
    state = State(tmp_path / "state-0")
    Users(state).add(ALICE)
    state.close()
    serving = target(config='[auth]\nchap_algorithms = ["sha256", "SHA-1"]\npreference = "target"\n' + CONFIGURATION)
    assert libiscsi("iscsi-inq", url(serving, f"alice%{SECRET}"), check=False).returncode  # it knows MD5 only
    with connect(url(serving), account=ALICE, algorithms=(8, 6, 7, 5)) as lun:
        assert len(lun.read(0, 1)) == 512
    with pytest.raises(LoginError):
        connect(url(serving), account=ALICE, algorithms=(8, 5))


def test_a_reload_ends_the_sessions_whose_right_has_changed(serving: Serving, tmp_path: Path) -> None:
    with connect(url(serving), account=ALICE) as alice, connect(url(serving), account=BOB) as bob:
        configuration = tmp_path / "serve-0.toml"
        carol = 'access = [{ users = ["carol"] }]'
        changed = configuration.read_text().replace('users = ["0xb0b"]\nright = "read-only"', 'users = ["0xb0b"]')
        configuration.write_text(f'{changed}\n[targets."{DISK}-new"]\nluns = {{ 0 = "two" }}\n{carol}\n')
        state = str(tmp_path / "state-0")
        blockyard("user", "add", "carol", "--state", state, stdin="secret of carol\n")
        blockyard("reload", "--state", state)
        with pytest.raises(SessionLost):
            while True:  # it is asked to log out first
                bob.read(0, 1)
        assert len(alice.read(0, 1)) == 512
        with connect(url(serving), account=BOB) as again:
            again.write(0, b"bob may write now".ljust(512))
        with connect(serving.url(target=f"{DISK}-new"), account=Account("carol", b"secret of carol")) as new:
            assert new.read(0, 1).startswith(b"bob may write now")
