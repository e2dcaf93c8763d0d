"""A tape drive beside a plain list and a number: whatever hosts do, both have the same tape and stand at the same place."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from blockyard.scsi.sense import END_OF_MEDIUM, FILEMARK, INCORRECT_LENGTH, SenseKey
from blockyard.scsi.task import Status
from tests.media.drives import ERASE, LOAD, REWIND, UNLOAD, filemarks, loaded, locate_16, read, space, told
from tests.media.scratch import scratch

_COUNTS = st.integers(-6, 6)


class Tape(RuleBasedStateMachine):
    """`model` has blocks, and None for filemarks; `at` is the number of what comes next."""

    @initialize()
    def begin(self) -> None:
        self.tape = loaded(scratch())
        self.model: list[bytes | None] = []
        self.at = 0

    def teardown(self) -> None:
        if hasattr(self, "tape"):
            self.tape.drive.close()

    @rule(data=st.binary(min_size=1, max_size=300))
    def write(self, data: bytes) -> None:
        self.tape.put(data)
        self.model[self.at :] = [data]
        self.at += 1

    @rule(count=st.integers(0, 3), immed=st.booleans())
    def write_filemarks(self, count: int, immed: bool) -> None:
        self.tape.good(filemarks(count, immed=immed))
        if count:
            self.model[self.at :] = [None] * count
        self.at += count

    @rule()
    def erase(self) -> None:
        self.tape.good(ERASE)
        del self.model[self.at :]

    @rule(length=st.integers(1, 300), sili=st.booleans())
    def read(self, length: int, sili: bool) -> None:
        result = self.tape.send(read(length, sili=sili))
        if self.at == len(self.model):
            assert told(result)[::2] == (SenseKey.BLANK_CHECK, 0)
            return
        block = self.model[self.at]
        self.at += 1
        if block is None:
            assert told(result)[2:] == (FILEMARK, length)
            return
        assert bytes(result.data) == block[:length]
        if len(block) == length or sili:
            assert result.status == Status.GOOD
        else:
            assert told(result)[2:] == (INCORRECT_LENGTH, length - len(block))

    @rule(count=_COUNTS)
    def space_over_blocks(self, count: int) -> None:
        """One by one, as the standard describes it."""
        step, left, stream, key = (1 if count > 0 else -1), abs(count), 0, None
        while left and key is None:
            if (self.at == len(self.model)) if step > 0 else (not self.at):
                key, stream = (SenseKey.BLANK_CHECK, 0) if step > 0 else (SenseKey.NO_SENSE, END_OF_MEDIUM)
                break
            passed = self.model[self.at if step > 0 else self.at - 1]
            self.at += step
            if passed is None:
                key, stream = SenseKey.NO_SENSE, FILEMARK
            else:
                left -= 1
        self._spaced(0, count, key, stream, left)

    @rule(count=_COUNTS)
    def space_over_filemarks(self, count: int) -> None:
        step, left, stream, key = (1 if count > 0 else -1), abs(count), 0, None
        while left and key is None:
            if (self.at == len(self.model)) if step > 0 else (not self.at):
                key, stream = (SenseKey.BLANK_CHECK, 0) if step > 0 else (SenseKey.NO_SENSE, END_OF_MEDIUM)
                break
            left -= self.model[self.at if step > 0 else self.at - 1] is None
            self.at += step
        self._spaced(1, count, key, stream, left)

    def _spaced(self, code: int, count: int, key: SenseKey | None, stream: int, left: int) -> None:
        result = self.tape.send(space(code, count))
        if key is None:
            assert result.status == Status.GOOD
        else:
            found = told(result)
            assert (found.key, found.stream, found.information) == (key, stream, left)

    @rule(data=st.data())
    def locate(self, data: st.DataObject) -> None:
        self.at = data.draw(st.integers(0, len(self.model)))
        self.tape.good(locate_16(self.at))

    @rule(data=st.data())
    def locate_a_file(self, data: st.DataObject) -> None:
        marks = [number for number, content in enumerate(self.model) if content is None]
        file = data.draw(st.integers(0, len(marks)))
        self.at = marks[file - 1] + 1 if file else 0
        self.tape.good(locate_16(file, kind=1))

    @rule()
    def rewind(self) -> None:
        self.tape.good(REWIND)
        self.at = 0

    @rule()
    def space_to_the_end(self) -> None:
        self.tape.good(space(3))
        self.at = len(self.model)

    @rule()
    def unload_and_load(self) -> None:
        self.tape.good(UNLOAD)
        self.tape.good(LOAD)
        self.at = 0

    @invariant()
    def stands_where_it_should(self) -> None:
        if hasattr(self, "tape"):
            assert self.tape.position() == (0, self.at, self.model[: self.at].count(None))


TestTape = Tape.TestCase
TestTape.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
