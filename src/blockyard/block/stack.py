"""How a stack is written: `cache(ram=1G, raid5(/dev/sda, /dev/sdb, "/srv/with space.img"))`.

    stack = word | name "(" [entry {"," entry}] ")"
    entry = option "=" value | stack
    value = word | "[" [word {"," word}] "]"

A word is anything without white space, commas, parentheses, brackets and quotation marks, or a string of JSON. One that is not in
quotation marks and has no slash is a name, of a layer that is declared elsewhere. What kinds there are, and what they take,
is none of this module's business: `parse` and `written` are inverse to each other for whatever fits the form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

DEPTH = 32  # layers that stand on each other
LENGTH = 1 << 16  # characters

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_OPTION = re.compile(r"([a-z][a-z0-9_]*)\s*=")
_BARE = re.compile(r'[^\s,()\[\]"]+')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class StackError(ValueError):
    """A stack is not written as it should be, or could not be what it says."""


@dataclass(frozen=True)
class Word:
    """A path, a name, or the value of an option."""

    text: str
    quoted: bool = False

    @property
    def is_name(self) -> bool:
        """Whether it stands for a layer that is declared elsewhere."""
        return not self.quoted and "/" not in self.text

    def __str__(self) -> str:
        bare = _BARE.fullmatch(self.text) and not _OPTION.match(self.text)
        return self.text if bare and not self.quoted else json.dumps(self.text, ensure_ascii=False)


Value = Word | tuple[Word, ...]


@dataclass(frozen=True)
class Call:
    """A kind of layer with what it is given."""

    name: str
    arguments: tuple[Written, ...] = ()  # what it stands on, or the argument of a leaf
    options: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        given = [f"{name}={_value(value)}" for name, value in self.options]
        return f"{self.name}({', '.join([*given, *map(str, self.arguments)])})"


Written = Word | Call


def _value(value: Value) -> str:
    return str(value) if isinstance(value, Word) else f"[{', '.join(map(str, value))}]"


def written(stack: Written) -> str:
    """A stack as text, options first: what `parse` takes for the same."""
    return str(stack)


def parse(text: str) -> Written:
    """A stack of its text. Raises StackError, with the place."""
    if len(text) > LENGTH:
        raise StackError(f"the stack has {len(text)} characters: {LENGTH} are the most there can be")
    reader = _Reader(text)
    stack = reader.stack(1)
    reader.end()
    return stack


def listed(text: str) -> tuple[str, ...]:
    """The words of a list, as options have it: [a, b]; of anything else, that alone. Raises StackError."""
    if not text.startswith("["):
        return (text,)
    call = parse(f"list(of={text})")
    assert isinstance(call, Call)
    ((_, words),) = call.options
    return tuple(word.text for word in words) if isinstance(words, tuple) else (words.text,)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def stack(self, depth: int) -> Written:
        if depth > DEPTH:
            raise self._error(f"more than {DEPTH} layers stand on each other")
        start = self._skip()
        name = _NAME.match(self._text, start)
        if name:
            self._at = name.end()
            if self._takes("("):
                return self._call(name.group(), depth)
            self._at = start
        return self._word()

    def _call(self, name: str, depth: int) -> Call:
        arguments: list[Written] = []
        options: dict[str, Value] = {}
        for _ in self._listed(")"):
            option = _OPTION.match(self._text, self._at)
            if option is None:
                arguments.append(self.stack(depth + 1))
                continue
            if option.group(1) in options:
                raise self._error(f"{option.group(1)} of {name} is given twice")
            self._at = option.end()
            options[option.group(1)] = self._option_value()
        return Call(name, tuple(arguments), tuple(options.items()))

    def _option_value(self) -> Value:
        if self._takes("["):
            return tuple(self._word() for _ in self._listed("]"))
        return self._word()

    def _listed(self, closing: str) -> Iterator[None]:
        """Once for each of the things between here and `closing`, which whoever asks for them reads; a comma may end them."""
        while not self._takes(closing):
            yield
            if self._takes(closing):
                return
            if not self._takes(","):
                raise self._error(f"here should be a comma or {closing}")

    def _word(self) -> Word:
        start = self._skip()
        quoted = _QUOTED.match(self._text, start)
        if quoted:
            self._at = quoted.end()
            try:
                return Word(json.loads(quoted.group(), strict=False), True)
            except ValueError as error:
                self._at = start
                raise self._error(f"that is no string of JSON ({error})") from None
        bare = _BARE.match(self._text, start)
        if bare is None:
            raise self._error("here should be a path, a name or a layer")
        if _OPTION.match(self._text, start):
            raise self._error("what looks like an option has to be in quotation marks to be a word")
        self._at = bare.end()
        return Word(bare.group())

    def end(self) -> None:
        """Raises StackError unless all has been read."""
        if self._skip() < len(self._text):
            raise self._error("the stack has ended before this: layers stand in each other's parentheses")

    def _skip(self) -> int:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._at

    def _takes(self, character: str) -> bool:
        found = self._text.startswith(character, self._skip())
        self._at += found
        return found

    def _error(self, problem: str) -> StackError:
        rest = self._text[self._at : self._at + 20]
        where = f"before {rest!r}" if rest else "at the end"
        return StackError(f"{problem}, {where}")
