"""CHAP: the hashes, the encodings, the exchange, and everything that has to be refused."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.iscsi import chap
from blockyard.iscsi.chap import Account, Challenge, Challenges, Policy, Response, TargetChap, WeakSecret, respond
from blockyard.iscsi.negotiation import NegotiationError, Pairs, decode_text, encode_text, format_binary, parse_binary
from blockyard.iscsi.pdu import LoginStatus

SECRET, TARGET_SECRET = b"secret of the user", b"secret of the target"
ALICE = Account("alice", SECRET, "disks", TARGET_SECRET)
BOB = Account("bob", b"another secret")


def target(
    *, policy: Policy | None = None, entropy: Callable[[int], bytes] = os.urandom, **accounts: Account
) -> TargetChap:
    known = {account.name: account for account in (ALICE, BOB, *accounts.values())}
    return TargetChap(known.get, Challenges(entropy), policy)


def begin(side: TargetChap, algorithms: str = "5") -> tuple[int, Challenge]:
    answer = side.step("CHAP", [("CHAP_A", algorithms)])
    challenge = Challenge.of(answer)
    assert challenge is not None
    return int(dict(answer)["CHAP_A"]), challenge


def proof(name: str, secret: bytes, algorithm: int, challenge: Challenge) -> Pairs:
    return Response(name, respond(algorithm, challenge.identifier, secret, challenge.value)).pairs()


def refusal(side: TargetChap, pairs: Pairs) -> tuple[LoginStatus, str]:
    with pytest.raises(NegotiationError) as raised:
        side.step("CHAP", pairs)
    assert not side.done
    return raised.value.status, str(raised.value)


# ---- hashes and encodings


@pytest.mark.parametrize(
    ("algorithm", "text", "expected"),
    [  # the test vectors of RFC 1321 A.5, RFC 3174 and FIPS 180-4 ("abc"), FIPS 202 ("abc"), cut in three
        (5, b"abc", "900150983cd24fb0d6963f7d28e17f72"),
        (5, b"message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        (6, b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (7, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (8, b"abc", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
    ],
)
def test_a_response_is_the_hash_of_identifier_secret_and_challenge(algorithm: int, text: bytes, expected: str) -> None:
    response = respond(algorithm, text[0], text[1:2], text[2:])
    assert response.hex() == expected
    assert len(response) == chap.ALGORITHMS[algorithm].length


@settings(deadline=None)
@given(st.integers(0, 255), st.binary(min_size=1, max_size=1024), st.sampled_from(["hex", "HEX", "base64", "BASE64"]))
def test_challenges_are_read_in_every_form(identifier: int, value: bytes, form: str) -> None:
    text = f"0x{value.hex()}" if "hex" in form.lower() else "0b" + base64.b64encode(value).decode()
    text = text[:2].upper() + text[2:] if form.isupper() else text
    number = f"0x{identifier:x}" if form.isupper() else str(identifier)
    text_on_the_wire = decode_text(encode_text([("CHAP_I", number), ("CHAP_C", text)]))
    assert Challenge.of(text_on_the_wire) == Challenge(identifier, value)
    assert Challenge.of(Challenge(identifier, value).pairs()) == Challenge(identifier, value)


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\0"), min_size=1, max_size=60)


@settings(deadline=None)
@given(
    st.one_of(NAMES, st.builds("0x{}".format, NAMES), st.builds("0b{}".format, NAMES)),
    st.binary(min_size=1, max_size=64),
)
def test_a_name_is_text_whatever_it_begins_with(name: str, value: bytes) -> None:
    pairs = decode_text(encode_text(Response(name, value).pairs()))
    assert Response.of(pairs) == Response(name, value)


@pytest.mark.parametrize(
    "name", ["0x616c696365", "0b YWxpY2U=", "0bYWxpY2U=", "0X", "0b", "a=b", "Ünï", "iqn.2024-01.com.example:host"]
)
def test_users_with_odd_names(name: str) -> None:
    """0x616c696365 and 0bYWxpY2U= would be `alice` if they were constants."""
    side = target(odd=Account(name, b"the odd one's secret"))
    algorithm, challenge = begin(side)
    assert side.step("CHAP", proof(name, b"the odd one's secret", algorithm, challenge)) == []
    assert (side.done, side.name) == (True, name)


# ---- the exchange


@pytest.mark.parametrize("algorithm", sorted(chap.ALGORITHMS))
@pytest.mark.parametrize("form", ["hex", "base64"])
def test_both_sides_prove_themselves(algorithm: int, form: str) -> None:
    side = target()
    chosen, challenge = begin(side, str(algorithm))
    assert chosen == algorithm
    assert len(challenge.value) == chap.ALGORITHMS[algorithm].length
    ours = Challenge(7, b"the initiator's challenge")
    pairs = proof("alice", SECRET, algorithm, challenge) + ours.pairs()
    if form == "base64":
        pairs = [
            (key, "0b" + base64.b64encode(parse_binary(value)).decode() if key in ("CHAP_R", "CHAP_C") else value)
            for key, value in pairs
        ]
    answer = Response.of(side.step("CHAP", pairs))
    assert answer == Response("disks", respond(algorithm, 7, TARGET_SECRET, ours.value))
    assert (side.done, side.mutual, side.name) == (True, True, "alice")


@pytest.mark.parametrize(
    ("policy", "offered", "chosen"),
    [
        (Policy(), "5,7", 5),
        (Policy(), "7,5", 7),
        (Policy(), "99,0x8,5", 8),
        (Policy((8, 7)), "5,6,7", 7),
        (Policy((8, 7, 5), ours_first=True), "5,6,7,8", 8),
        (Policy((7, 5), ours_first=True), "5,7", 7),
    ],
)
def test_the_initiators_order_counts_unless_policy_says_otherwise(policy: Policy, offered: str, chosen: int) -> None:
    assert begin(target(policy=policy), offered)[0] == chosen


def test_an_algorithm_that_is_not_allowed_is_not_used() -> None:
    status, why = refusal(target(policy=Policy((8, 7))), [("CHAP_A", "5,6")])
    assert status == LoginStatus.AUTHENTICATION_FAILURE
    assert "5, 6" in why


def test_a_hash_that_the_host_does_not_permit_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in FIPS mode has no MD5: hashlib.new raises ValueError."""
    new = hashlib.new

    def without_md5(name: str) -> object:
        if name == "md5":
            raise ValueError("disabled for FIPS")
        return new(name)

    monkeypatch.setattr(hashlib, "new", without_md5)
    assert chap.available() == (8, 7, 6)
    assert Policy().choose((5, 6)) == 6
    assert Policy((5,)).choose((5,)) is None


def test_challenges_do_not_repeat() -> None:
    challenges = Challenges(os.urandom)
    assert len({challenges.new(5).value for _ in range(1000)}) == 1000


# ---- what is refused


def test_wrong_proofs_and_unknown_names_get_one_answer() -> None:
    refusals = set()
    for name, secret in (("alice", b"not the secret at all"), ("mallory", SECRET), ("ALICE", SECRET), ("bob", SECRET)):
        side = target()
        algorithm, challenge = begin(side)
        refusals.add(refusal(side, proof(name, secret, algorithm, challenge)))
        assert side.name == name  # for the log and the limits
    assert len(refusals) == 1
    assert refusals.pop()[0] == LoginStatus.AUTHENTICATION_FAILURE


def test_an_unknown_name_does_not_learn_that_mutual_chap_is_not_set_up() -> None:
    said = set()
    for name in ("bob", "mallory"):
        side = target()
        algorithm, challenge = begin(side)
        said.add(refusal(side, proof(name, b"a wrong secret", algorithm, challenge) + Challenge(1, b"c" * 16).pairs()))
    assert len(said) == 1


def test_a_response_to_another_challenge_is_worth_nothing() -> None:
    side = target()
    algorithm, challenge = begin(side)
    for wrong in (
        Challenge(challenge.identifier ^ 1, challenge.value),
        Challenge(challenge.identifier, challenge.value[1:]),
    ):
        assert refusal(side, proof("alice", SECRET, algorithm, wrong))[0] == LoginStatus.AUTHENTICATION_FAILURE


def test_a_target_without_a_secret_for_this_user_cannot_prove_itself() -> None:
    side = target()
    algorithm, challenge = begin(side)
    status, _ = refusal(side, proof("bob", BOB.secret, algorithm, challenge) + Challenge(1, b"c" * 16).pairs())
    assert status == LoginStatus.AUTHENTICATION_FAILURE


def test_a_challenge_of_ours_is_not_answered_in_any_session() -> None:
    challenges = Challenges(os.urandom)
    one, other = (TargetChap({"alice": ALICE}.get, challenges) for _ in range(2))
    _, to_be_reflected = begin(one)
    algorithm, challenge = begin(other)
    for reflected in (challenge, to_be_reflected, Challenge(challenge.identifier ^ 1, to_be_reflected.value)):
        status, why = refusal(other, proof("alice", SECRET, algorithm, challenge) + reflected.pairs())
        assert status == LoginStatus.AUTHENTICATION_FAILURE
        assert "reflection" in why


def test_memory_for_challenges_is_bounded() -> None:
    numbers = itertools.count()
    challenges = Challenges(lambda length: next(numbers).to_bytes(length, "big"))
    made = [challenges.new(5) for _ in range(5000)]
    assert challenges.made(made[-1])
    assert not challenges.made(made[0])


GOOD = Challenge(1, b"c" * 16).pairs()


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("CHAP_N", "alice")],
        [("CHAP_A", "MD5")],
        [("CHAP_A", "")],
        [("CHAP_A", "5"), ("CHAP_A", "5")],
        [("CHAP_A", "5"), ("CHAP_N", "alice")],
    ],
)
def test_first_steps_that_make_no_sense(pairs: Pairs) -> None:
    assert refusal(target(), pairs)[0] == LoginStatus.INITIATOR_ERROR


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: pairs[:1],
        lambda pairs: pairs[1:],
        lambda pairs: [pairs[0], ("CHAP_R", "secret")],
        lambda pairs: [pairs[0], ("CHAP_R", "0x")],
        lambda pairs: [pairs[0], ("CHAP_R", "0xzz")],
        lambda pairs: [pairs[0], ("CHAP_R", "0b====")],
        lambda pairs: [pairs[0], ("CHAP_R", format_binary(bytes(1025)))],
        lambda pairs: pairs + pairs[:1],
        lambda pairs: [*pairs, ("CHAP_A", "5")],
        lambda pairs: pairs + GOOD[:1],
        lambda pairs: pairs + GOOD[1:],
        lambda pairs: [*pairs, ("CHAP_I", "256"), GOOD[1]],
        lambda pairs: [*pairs, ("CHAP_I", "-1"), GOOD[1]],
        lambda pairs: [*pairs, GOOD[0], ("CHAP_C", "text")],
    ],
)
def test_second_steps_that_make_no_sense(change: Callable[[Pairs], Pairs]) -> None:
    side = target()
    algorithm, challenge = begin(side)
    assert refusal(side, change(proof("alice", SECRET, algorithm, challenge)))[0] == LoginStatus.INITIATOR_ERROR


def test_there_is_nothing_after_the_end() -> None:
    side = target()
    algorithm, challenge = begin(side)
    side.step("CHAP", proof("alice", SECRET, algorithm, challenge))
    with pytest.raises(NegotiationError):
        side.step("CHAP", [("CHAP_A", "5")])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("alice", b"elevenbytes"), "at least 12 bytes"),
        (("alice", SECRET, "disks", b"elevenbytes"), "at least 12 bytes"),
        (("alice", bytes(256)), "at most 255"),
        (("alice", SECRET, "disks", SECRET), "must differ"),
    ],
)
def test_secrets_that_cannot_serve(arguments: tuple[str, bytes], why: str) -> None:
    with pytest.raises(WeakSecret, match=why) as raised:
        Account(*arguments)
    assert "secret of" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments", [("", SECRET), ("a\nb", SECRET), ("x" * 256, SECRET), ("alice", SECRET, "", TARGET_SECRET)]
)
def test_names_that_cannot_serve(arguments: tuple[str, bytes]) -> None:
    with pytest.raises(ValueError, match="name"):
        Account(*arguments)


def test_nothing_that_is_printed_has_a_secret_in_it() -> None:
    printed = f"{ALICE!r} {ALICE}"
    assert "secret of" not in printed
    assert "alice" in printed
