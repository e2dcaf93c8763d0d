"""What a configuration says of authentication and discovery."""

from __future__ import annotations

import pytest

from blockyard.iscsi.access import Right, Rule
from blockyard.iscsi.chap import Policy
from blockyard.worker.configuration import Authentication, Discovery


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        (Authentication(), Policy((8, 7, 6, 5))),
        (Authentication(("sha256", "SHA3-256", "md5")), Policy((7, 8, 5))),
        (Authentication(("SHA-1",), "target"), Policy((6,), ours_first=True)),
    ],
)
def test_policy_of_chap(given: Authentication, policy: Policy) -> None:
    assert given.policy == policy


def test_policies_that_make_no_sense() -> None:
    for arguments, why in (
        ((("MD4",),), "SHA3-256, SHA-256, SHA-1, MD5"),
        (((),), "empty"),
        ((("MD5",), "ours"), "preference"),
    ):
        with pytest.raises(ValueError, match=why):
            Authentication(*arguments)


@pytest.mark.parametrize("rule", [Rule(Right.READ_ONLY), Rule(Right.VIRTUAL_WRITE), Rule(luns={0: "disk"})])
def test_in_discovery_there_is_nothing_to_read_or_write(rule: Rule) -> None:
    with pytest.raises(ValueError, match="full or refuse"):
        Discovery((rule,))
    assert Discovery((Rule(users=("scout",)), Rule(Right.REFUSE))).access
