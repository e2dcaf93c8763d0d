"""How stacks are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.stack import DEPTH, LENGTH, Call, StackError, Word, Written, parse, written

_BARE = st.text(st.characters(codec="utf-8", exclude_characters='()[],"', exclude_categories=("Z", "C")), min_size=1)
_WORDS = st.builds(Word, _BARE.filter(lambda text: parse_or_none(text) == Word(text))) | st.builds(
    Word, st.text(), st.just(True)
)
_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
_VALUES = _WORDS | st.lists(_WORDS, max_size=3).map(tuple)
_OPTIONS = st.dictionaries(_NAMES, _VALUES, max_size=3).map(lambda options: tuple(options.items()))
STACKS: st.SearchStrategy[Written] = st.recursive(
    _WORDS,
    lambda inner: st.builds(Call, _NAMES, st.lists(inner, max_size=3).map(tuple), _OPTIONS),
    max_leaves=12,
)


def parse_or_none(text: str) -> Written | None:
    try:
        return parse(f"x({text})").arguments[0]  # type: ignore[union-attr]
    except (StackError, IndexError):
        return None


@given(STACKS)
def test_what_is_written_reads_as_the_same(stack: Written) -> None:
    assert parse(written(stack)) == stack


@given(st.text(st.sampled_from('ab=(),[]" \\/"é\n'), max_size=30))
def test_any_text_is_a_stack_or_refused(text: str) -> None:
    try:
        stack = parse(text)
    except StackError:
        return
    assert parse(written(stack)) == stack


def test_example() -> None:
    stack = parse(' cache( ram = 1G, raid5(/dev/sda,sdb, "/srv/with space.img",) , modes=[a, "b c"]) ')
    assert stack == Call(
        "cache",
        (Call("raid5", (Word("/dev/sda"), Word("sdb"), Word("/srv/with space.img", True))),),
        (("ram", Word("1G")), ("modes", (Word("a"), Word("b c", True)))),
    )
    assert str(stack) == 'cache(ram=1G, modes=[a, "b c"], raid5(/dev/sda, sdb, "/srv/with space.img"))'


def test_names_and_paths() -> None:
    assert parse("sda") == Word("sda")
    assert Word("sda").is_name
    assert not Word("./sda").is_name
    assert not Word("sda", True).is_name
    assert parse("nbd(nbd+unix:///disk?socket=/run/x)") == Call("nbd", (Word("nbd+unix:///disk?socket=/run/x"),))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a path, a name or a layer, at the end"),
        ("raid5(a, b", "a comma or \\), at the end"),
        ("raid5(a b)", "a comma or \\), before 'b\\)'"),
        ("a, b", "has ended before this"),
        ("raid5(a))", "has ended before this"),
        ("cache(ram=, a)", "a path, a name"),
        ("cache(ram=1G, ram=2G, a)", "ram of cache is given twice"),
        ('file("\\x")', "no string of JSON"),
        ('file("a)', "a path, a name"),
        ("x(" * (DEPTH + 1) + "a" + ")" * (DEPTH + 1), f"more than {DEPTH} layers"),
        ("a" * (LENGTH + 1), "characters"),
    ],
)
def test_what_is_no_stack(text: str, problem: str) -> None:
    with pytest.raises(StackError, match=problem):
        parse(text)
