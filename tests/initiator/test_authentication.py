"""CHAP from the initiator's side: against the target's side in memory, against a target that cheats, and tgtd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.initiator import Account, InvalidName, LoginError, ProtocolError, WeakSecret, connect
from blockyard.initiator.authentication import InitiatorChap
from blockyard.initiator.login import InitiatorLogin
from blockyard.iscsi.chap import ALGORITHMS, Challenge, Challenges, Policy, Response, TargetChap, respond
from blockyard.iscsi.login import Found, LoginState, TargetLogin
from blockyard.iscsi.negotiation import NegotiationError, Pairs
from tests.initiator.conftest import Tgtd

ONE_WAY = Account("user", b"a secret of the user")
MUTUAL = Account("user", b"a secret of the user", "target", b"a secret of the target")
NAMES = ("iqn.2024-01.test:initiator", "iqn.2024-01.test:target")


class Node:
    def find(self, name: str, portal: str) -> Found:
        return Found(self, 1)


def log_in(
    account: Account | None,
    known: Account | None,
    *,
    policy: Policy | None = None,
    methods: tuple[str, ...] = ("CHAP",),
) -> tuple[InitiatorLogin, TargetLogin]:
    """A whole login in memory; raises what the initiator raises."""
    challenges = Challenges(lambda length: bytes(range(7, 7 + length)))

    def find(name: str) -> Account | None:
        return known if known is not None and name == known.name else None

    target = TargetLogin(
        Node(),
        "",
        attach=lambda login: 1,
        authenticator=lambda login: TargetChap(find, challenges, policy, methods=methods),
    )
    initiator = InitiatorLogin(*NAMES, isid=b"\x80" + bytes(5), account=account)
    request = initiator.start()
    while True:
        (response,) = target.receive(request)
        following = initiator.receive(response)
        if following is None:
            return initiator, target
        request = following


@pytest.mark.parametrize("account", [ONE_WAY, MUTUAL])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_both_ways(account: Account, algorithm: int) -> None:
    initiator, target = log_in(account, MUTUAL, policy=Policy((algorithm,)))
    assert target.state is LoginState.FULL_FEATURE
    assert initiator.parameters.auth_method == "CHAP"
    assert ("CHAP_A", str(algorithm)) in initiator.answers
    assert (("CHAP_N", "target") in initiator.answers) is (account is MUTUAL)


def test_the_strongest_algorithm_is_offered_first() -> None:
    initiator, _ = log_in(ONE_WAY, ONE_WAY)
    assert ("CHAP_A", "8") in initiator.answers


def test_a_target_that_asks_for_nothing_gets_nothing() -> None:
    initiator, _ = log_in(ONE_WAY, ONE_WAY, methods=("None",))
    assert initiator.parameters.auth_method == "None"
    with pytest.raises(LoginError, match="authentication"):
        log_in(MUTUAL, MUTUAL, methods=("None",))  # who wants proof does not go on without


@pytest.mark.parametrize(
    "account",
    [None, Account("user", b"another secret"), Account("nobody", ONE_WAY.secret)],
    ids=["none", "secret", "name"],
)
def test_who_cannot_prove_it_stays_out(account: Account | None) -> None:
    with pytest.raises(LoginError, match="wants authentication"):
        log_in(account, ONE_WAY)


@pytest.mark.parametrize(
    ("name", "secret"),
    [("target", b"not the target's"), ("another", b"a secret of the target")],
    ids=["secret", "name"],
)
def test_a_target_that_is_another_is_not_entered(name: str, secret: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not prove who it is"):
        log_in(MUTUAL, Account("user", MUTUAL.secret, name, secret))


# ---- a target that plays tricks

CHALLENGE = Challenge(3, b"sixteen bytes of")


def started() -> InitiatorChap:
    chap = InitiatorChap(MUTUAL)
    chap.step([])
    return chap


def test_a_reflected_challenge_is_not_answered() -> None:
    """RFC 7143 §9.2.1: the initiator's own challenge comes back, on this or another connection."""
    answer = started().step([("CHAP_A", "7"), *CHALLENGE.pairs()])
    reflected = Challenge.of(answer)
    assert reflected is not None
    with pytest.raises(NegotiationError, match="reflection"):
        started().step([("CHAP_A", "7"), *reflected.pairs()])


def test_its_own_response_is_no_proof() -> None:
    chap = started()
    answer = chap.step([("CHAP_A", "7"), *CHALLENGE.pairs()])
    with pytest.raises(NegotiationError, match="does not prove"):
        chap.step(Response.of(answer).pairs())


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("CHAP_A", "7")],
        CHALLENGE.pairs(),
        [("CHAP_A", "9"), *CHALLENGE.pairs()],
        [("CHAP_A", "x"), *CHALLENGE.pairs()],
        [("CHAP_A", "7"), ("CHAP_I", "256"), ("CHAP_C", "0x00")],
        [("CHAP_A", "7"), ("CHAP_I", "1"), ("CHAP_C", "what")],
    ],
)
def test_bad_challenges(pairs: Pairs) -> None:
    with pytest.raises(NegotiationError):
        started().step(pairs)


def test_nothing_comes_after_the_end() -> None:
    chap = started()
    challenge = Challenge.of(chap.step([("CHAP_A", "5"), *CHALLENGE.pairs()]))
    assert challenge is not None
    assert MUTUAL.target_secret is not None
    proof = Response("target", respond(5, challenge.identifier, MUTUAL.target_secret, challenge.value))
    assert chap.step(proof.pairs()) == []
    assert chap.done
    with pytest.raises(NegotiationError, match="after its end"):
        chap.step(proof.pairs())


def test_secrets_that_cannot_serve() -> None:
    with pytest.raises(WeakSecret):
        Account("user", b"short")
    assert "a secret" not in repr(MUTUAL)


# ---- tgtd, and the command line

MD5 = ("--chap-algorithms", "5")  # tgtd takes 7 for SHA-1


@pytest.fixture(scope="module")
def chap_url(tgtd: Tgtd) -> Iterator[str]:
    assert MUTUAL.target_secret is not None
    yield tgtd.require_chap("user", MUTUAL.secret, "target", MUTUAL.target_secret)
    tgtd.drop_chap()


@pytest.mark.parametrize("account", [ONE_WAY, MUTUAL])
def test_tgtd_lets_the_user_in(chap_url: str, account: Account) -> None:
    with connect(chap_url, timeout=120, algorithms=(5,), account=account) as lun:
        lun.test_unit_ready()
        assert lun.session.parameters.auth_method == "CHAP"


def test_tgtd_refuses_others(chap_url: str) -> None:
    with pytest.raises(LoginError, match="authentication"):
        connect(chap_url, timeout=120)
    with pytest.raises(LoginError, match="authentication"):
        connect(chap_url, timeout=120, algorithms=(5,), account=Account("user", b"another secret"))
    with pytest.raises(ProtocolError, match="prove"):
        connect(
            chap_url, timeout=120, algorithms=(5,), account=Account("user", MUTUAL.secret, "target", b"another secret")
        )
    with pytest.raises(InvalidName, match="the user 'me'"):
        connect(chap_url.replace("//", "//me@"), timeout=120, account=ONE_WAY)


@pytest.fixture
def secret_file(tmp_path: Path) -> Callable[[bytes], str]:
    def make(secret: bytes) -> str:
        path = tmp_path / secret.hex()[-8:]
        path.touch(0o600)
        path.write_bytes(secret + b"\n")
        return str(path)

    return make


def test_the_command_line(
    chap_url: str,
    secret_file: Callable[[bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert MUTUAL.target_secret is not None
    secret, target_secret = secret_file(MUTUAL.secret), secret_file(MUTUAL.target_secret)
    assert main(["inquiry", chap_url, *MD5, "--user", "user", "--secret-file", secret]) == 0
    assert main(["inquiry", chap_url.replace("//", "//user@"), *MD5, "--secret-file", secret]) == 0
    both = ["--user", "user", "--secret-file", secret, "--target-user", "target", "--target-secret-file"]
    assert main(["inquiry", chap_url, *MD5, *both, target_secret]) == 0
    assert "VIRTUAL-DISK" in capsys.readouterr().out
    assert main(["inquiry", chap_url, *MD5, *both, secret]) == 2
    assert "must differ" in capsys.readouterr().err
    monkeypatch.setenv("BLOCKYARD_SECRET", MUTUAL.secret.decode())
    monkeypatch.setenv("BLOCKYARD_TARGET_SECRET", MUTUAL.target_secret.decode())
    assert main(["inquiry", chap_url, *MD5, "--user", "user", "--target-user", "target"]) == 0
    monkeypatch.setenv("BLOCKYARD_SECRET", "short")
    assert main(["inquiry", chap_url, *MD5, "--user", "user"]) == 2
    assert "at least 12 bytes" in capsys.readouterr().err
    monkeypatch.setenv("BLOCKYARD_SECRET", "a secret of somebody")
    assert main(["inquiry", chap_url, *MD5, "--user", "user"]) == 1
    assert "secret is wrong" in capsys.readouterr().err
