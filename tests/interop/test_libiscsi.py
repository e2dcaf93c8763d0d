"""libiscsi: its tools, and its conformance suite (see conformance.py)."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import TargetFactory, need, run
from tests.interop.conformance import SUITES, Outcome, document, parse
from tests.serving import IQN, Serving, free_port

_PACKAGE = "libiscsi-bin"


def test_iscsi_ls_lists_targets_and_luns(target: TargetFactory) -> None:
    serving = target("a.img", "b.img")
    output = run([need("iscsi-ls", _PACKAGE), "-s", f"iscsi://{serving.portals[0]}"]).stdout
    assert f"Target:{IQN} Portal:{serving.portals[0]},1" in output
    # It multiplies the last LBA, not the number of blocks, by the block size.
    assert re.findall(r"Lun:(\d+) +Type:DIRECT_ACCESS \(Size:(\S+)\)", output) == [("0", "63M"), ("1", "63M")]


def test_iscsi_inq_reads_standard_data_and_every_page(target: TargetFactory) -> None:
    url = target().url()
    inq = need("iscsi-inq", _PACKAGE)
    standard = run([inq, url]).stdout
    assert "Peripheral Device Type:DIRECT_ACCESS" in standard
    assert "CmdQue:1" in standard
    pages = re.findall(r"Page:0x([0-9a-f]+)", run([inq, "-e", "1", "-c", "0", url]).stdout)
    assert {"00", "80", "83", "86", "b0", "b1", "b2"} <= set(pages)
    for page in ("80", "83", "b0", "b1", "b2"):  # those that the tool can decode
        assert run([inq, "-e", "1", "-c", str(int(page, 16)), url]).stdout.strip()


def test_iscsi_readcapacity16_tells_size_and_provisioning(target: TargetFactory) -> None:
    tool = need("iscsi-readcapacity16", _PACKAGE)
    small = run([tool, target("a.img").url()]).stdout
    assert re.search(r"RETURNED LOGICAL BLOCK ADDRESS:131071\b", small)
    assert re.search(r"LOGICAL BLOCK LENGTH IN BYTES:512\b", small)
    assert re.search(r"LBPME:1", small)
    large = run([tool, target("b.img", options=["--block-size", "4096"]).url()]).stdout
    assert re.search(r"LOGICAL BLOCK LENGTH IN BYTES:4096\b", large)


@pytest.fixture(scope="module")
def hasten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that cuts long sleeps short (hasten.c)."""
    library = tmp_path_factory.mktemp("hasten") / "hasten.so"
    run([need("gcc", "gcc"), "-shared", "-fPIC", "-O", "-o", library, Path(__file__).with_name("hasten.c")])
    return library


@pytest.mark.parametrize("name", SUITES)
def test_conformance(name: str, target: TargetFactory, hasten: Path, tmp_path: Path) -> None:
    outcomes: dict[str, Outcome] = {}
    for kind in SUITES[name].kinds:
        for outcome in _run_suite(name, kind, target, hasten, tmp_path):
            best = outcomes.get(outcome.name)
            if best is None or best.verdict == "skipped":  # it has to pass on one kind only
                outcomes[outcome.name] = outcome
    for outcome in outcomes.values():
        if outcome.verdict == "skipped":
            pytest.fail(f"{outcome.name} was skipped: {'; '.join(outcome.skips)}\n{outcome.log[-5000:]}", pytrace=False)


def _run_suite(name: str, kind: Sequence[str], target: TargetFactory, hasten: Path, tmp_path: Path) -> list[Outcome]:
    """What a suite makes of one kind of disk. No test of it may fail."""
    suite = SUITES[name]
    if "--read-only" in kind:  # which does not create a disk
        with (tmp_path / "disk.img").open("wb") as file:
            file.truncate(64 << 20)
    portals = [f"127.0.0.1:{free_port()}" for _ in range(suite.portals)]
    serving = target(options=kind, portals=portals)
    tests = [name]
    if suite.lasting:
        tests = [f"{name}.{test}" for test in _tests()[name] if test != suite.lasting]
    outcomes = [outcome for test in tests for outcome in _run_tests(test, serving, hasten)]
    serving.stop()  # the next kind has the same file
    if suite.lasting:
        outcomes += _run_lasting(f"{name}.{suite.lasting}", target, hasten, tmp_path)
    assert len(outcomes) == suite.tests, outcomes
    return outcomes


def _run_tests(which: str, serving: Serving, hasten: Path, **environment: str) -> list[Outcome]:
    command = [need("iscsi-test-cu", _PACKAGE), "--dataloss", "--allow-sanitize", "-V", "-t", f"ALL.{which}"]
    # Its exit status says nothing: neither of failures nor of skips.
    urls = [serving.url(portal=number) for number in range(len(serving.portals))]
    log = run(
        [*command, *urls], seconds=600, check=False, environment={"LD_PRELOAD": str(hasten), **environment}
    ).stdout
    outcomes = list(parse(log))
    assert outcomes, log[-5000:]
    for outcome in outcomes:
        if outcome.verdict == "failed":
            pytest.fail(f"{outcome.name} failed:\n{outcome.log[-5000:]}\n{_failures(log)}", pytrace=False)
    assert serving.process.poll() is None
    assert serving.workers, "the worker died"
    return outcomes


def _run_lasting(which: str, target: TargetFactory, hasten: Path, tmp_path: Path) -> list[Outcome]:
    """One test, with a disk whose SANITIZE is held back until it has seen that it goes on."""

    def configuration(rate: str) -> str:
        volume = f"[volumes.disk]\npath = 'lasting.img'\nsize = '64M'\nbackground_rate = '{rate}'\n"
        return f"{volume}[targets.'{IQN}']\nluns = {{0 = 'disk'}}\n"

    serving = target(config=configuration("64K"))
    (tmp_path / "fast.toml").write_text(configuration("1G"))
    change = f"cp {tmp_path}/fast.toml {tmp_path}/serve-1.toml"
    reload = f"{sys.executable} -m blockyard reload --state {tmp_path}/state-1"
    return _run_tests(which, serving, hasten, BEFORE_A_MINUTE=f"{change} && {reload}")


def _tests() -> dict[str, list[str]]:
    """The tests of each suite that the program has."""
    found: dict[str, list[str]] = {}
    listing = run([need("iscsi-test-cu", _PACKAGE), "-l"], check=False).stdout
    for suite, test in re.findall(r"^ALL\.(\w+)\.(\S+)$", listing, re.MULTILINE):
        found.setdefault(suite, []).append(test)
    return found


def _failures(log: str) -> str:
    return "\n".join(re.findall(r"^ *\d+\. \S+\.c:\d+ .*", log, re.MULTILINE))


def test_the_suites_are_those_of_the_installed_version() -> None:
    assert {name: len(tests) for name, tests in _tests().items()} == {
        name: suite.tests for name, suite in SUITES.items()
    }


def test_the_page_on_conformance_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "conformance.md"
    assert page.read_text(encoding="utf-8") == document(), (
        "run: python -m tests.interop.conformance > docs/conformance.md"
    )


def test_parsing_tells_skipped_failed_and_unfinished_from_passed() -> None:
    log = """
Suite: Read10
  Test: Simple ...
    [OK] READ10 returned SUCCESS
passed
  Test: DpoFua ...
    [SKIPPED] DPO is not supported
passed    Send PRIN/READ_KEYS
    [SKIPPED] PERSISTENT RESERVE IN is not implemented.
  Test: Protect ...
    [FAILED] whatever
FAILED
    1. test_read10.c:12  - CU_FAIL
  Test: BeyondEol ...passed
  Test: Async ...
    [OK] so far
"""
    verdicts = {outcome.name: outcome.verdict for outcome in parse(log)}
    assert verdicts == {
        "Read10.Simple": "passed",
        "Read10.DpoFua": "skipped",
        "Read10.Protect": "failed",
        "Read10.BeyondEol": "passed",
        "Read10.Async": "failed",
    }
