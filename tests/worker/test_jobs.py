"""What takes its time: jobs, replies that come later, and what is done in the background."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blockyard.worker.chores import Chores
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message
from blockyard.worker.job_numbers import Numbers
from blockyard.worker.jobs import REMEMBERED, Job, Jobs
from blockyard.worker.later import Answer, Later, answer
from tests.waiting import LIMIT, eventually


def test_a_job_tells_how_far_it_is_and_how_it_ended() -> None:
    jobs = Jobs()
    halfway, go_on = threading.Event(), threading.Event()

    def work(job: Job) -> str:
        job.unit = "chunks"
        job(5, 10)
        halfway.set()
        assert go_on.wait(LIMIT)
        job(10, 10)
        return "all is well"

    job = jobs.start("check", "fast", work)
    assert halfway.wait(LIMIT)
    told = job.describe()
    assert (told["state"], told["done"], told["total"], told["unit"]) == ("running", 5, 10, "chunks")
    with pytest.raises(ValueError, match=f"check of fast is under way already: it is job {job.number}$"):
        jobs.start("check", "fast", work)
    go_on.set()
    job.wait()
    assert (job.state, job.result, job.done) == ("done", "all is well", 10)
    assert jobs.start("check", "fast", lambda job: "").number == job.number + 1, "a process counts all of its jobs"


def test_jobs_fail_and_are_stopped() -> None:
    jobs = Jobs()

    def fail(job: Job) -> str:
        raise OSError(5, "Input/output error")

    failed = jobs.start("scrub", "fast/a", fail)
    failed.wait()
    assert (failed.state, "Input/output error" in failed.result) == ("failed", True)
    running, cancelled = threading.Event(), threading.Event()

    def until_cancelled(job: Job) -> str:
        running.set()
        assert cancelled.wait(LIMIT)
        job(1, 2)
        return "never"

    stopped = jobs.start("scrub", "fast/b", until_cancelled)
    assert running.wait(LIMIT)
    stopped.cancel()
    cancelled.set()
    stopped.wait()
    assert (stopped.state, stopped.result) == ("cancelled", "")
    with pytest.raises(LookupError, match="there is no job 0"):
        jobs.find(0)
    for number in range(REMEMBERED + 5):
        jobs.start("scrub", str(number), lambda job: "").wait()
    assert len(list(jobs)) == REMEMBERED
    jobs.close()


def test_a_job_whose_thread_cannot_be_started_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs = Jobs()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            jobs.start("check", "fast", lambda job: "")
    job = jobs.start("check", "fast", lambda job: "well")
    jobs.close()
    assert job.result == "well"


def test_numbers_are_given_once(tmp_path: Path) -> None:
    """By several at a time, and by those that come later; a damaged file is no reason to begin at 1 again."""
    kept, taken = tmp_path / "units", list[int]()

    def take() -> None:
        numbers = Numbers()
        numbers.keep_in(kept)
        taken.extend(numbers.take() for _ in range(25))

    for _ in range(2):
        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(taken), len(set(taken)), min(taken)) == (200, 200, 1)
    assert max(taken) < 300, "few are left out"
    (kept / "jobs.numbers.json").write_text("{}")
    take()
    assert len(set(taken)) == 225
    (kept / "jobs.numbers.json").unlink()
    (kept / "jobs.numbers.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        take()


def test_who_may_read_the_state_directory_cannot_hold_up_numbers(tmp_path: Path) -> None:
    """A lock of a directory is anybody's who can open it (flock(2)); that of numbers is in a file that is ours alone."""
    taken: list[int] = []
    numbers = Numbers()
    numbers.keep_in(tmp_path / "units")
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Thread(target=lambda: taken.append(numbers.take()), daemon=True).start()
        eventually(lambda: taken, "a number is given")
    finally:
        os.close(held)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()] == [0o600]


def replies(first: Callable[[], Answer]) -> Message:
    """The reply to a request, with the executor's completions run here."""
    executor = ThreadExecutor()
    told: list[Message] = []
    answer(executor, first, told.append)
    while not told:
        executor.complete()
    executor.close()
    return told[0]


def test_a_reply_may_take_several_steps_in_turn_here_and_in_threads() -> None:
    here = threading.get_ident()
    places: list[bool] = []

    def note(result: Any) -> Any:
        places.append(threading.get_ident() == here)
        return result

    def second(result: Any) -> Answer:
        return Later(lambda: note(result + 1), lambda last: note({"result": last}))

    assert replies(lambda: Later(lambda: note(1), lambda result: second(note(result)))) == {"result": 2}
    assert places == [False, True, False, True]


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (ValueError("it makes no sense"), {"error": "it makes no sense", "refused": True}),
        (LookupError("it is not there"), {"error": "it is not there", "refused": True}),
        (FileExistsError(17, "It is there", "a"), {"error": "a: It is there", "refused": True}),
        (OSError(5, "Input/output error"), {"error": "Input/output error", "refused": False}),
        (KeyError("x"), {"error": "internal error: KeyError('x')"}),
        (AssertionError(), {"error": "internal error: AssertionError()"}),
    ],
)
def test_what_goes_wrong_is_the_reply(error: Exception, reply: Message) -> None:
    def fail(*_: object) -> Any:
        raise error

    assert replies(fail) == reply
    assert replies(lambda: Later(fail, lambda result: {})) == reply
    assert replies(lambda: Later(lambda: 1, fail)) == reply


def test_chores_are_done_when_there_are_any_and_go_on_after_a_failure() -> None:
    done = threading.Semaphore(0)
    todo: list[bool | OSError] = [True, True, False, OSError(28, "full"), False]

    def piece() -> bool:
        what = todo.pop(0) if todo else False
        done.release()
        if isinstance(what, OSError):
            raise what
        return what

    chores = Chores("fast", piece)
    chores.start()
    for _ in range(3):
        assert done.acquire(timeout=LIMIT)
    for _ in range(2):
        chores.wake()
        assert done.acquire(timeout=LIMIT)
    chores.close()
    assert not todo


def test_who_sees_that_a_job_is_over_sees_all_of_it() -> None:
    """Whenever its thread is interrupted."""
    seen: list[dict[str, Any]] = []

    class Watched(Job):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if "_thread" in vars(self):
                seen.append(self.describe())

    job = Watched(1, "check", "fast", lambda job: "all is well")
    job.start()
    job.wait()
    for told in seen:
        assert (told["ended"] is None, told["result"]) == (
            (True, "") if told["state"] == "running" else (False, "all is well")
        )
    assert {told["state"] for told in seen} == {"running", "done"}
