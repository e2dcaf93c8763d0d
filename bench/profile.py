"""Flame graphs of the worker under load, drawn with py-spy: `make profile`, or `python -m bench.profile --help`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.beside import MEMORY, directories
from bench.clients import WORKS, ClientFailed, drive
from bench.run import backing_file
from bench.targets import Blockyard, BlockyardPolling, MissingTool

_RESULTS = Path(__file__).with_name("results")


def main(arguments: Sequence[str] | None = None) -> int:
    """One flame graph for each work. Returns 0, or 1 when one could not be made."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--only", metavar="WORK,…", default=",".join(WORKS), help=f"of {', '.join(WORKS)}")
    parser.add_argument("--seconds", type=int, default=5, help="of load for each (default: 5)")
    parser.add_argument("--rate", type=int, default=500, help="samples a second (default: 500)")
    parser.add_argument("--native", action="store_true", help="C functions too (slower; stops the worker for longer)")
    parser.add_argument("--digests", action="store_true", help="header and data digests")
    parser.add_argument("--poll", action="store_true", help="serve with --poll")
    options = parser.parse_args(arguments)
    when = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    graphs = _RESULTS / f"profile-{when}"
    graphs.mkdir(parents=True)
    kind = BlockyardPolling if options.poll else Blockyard
    with (
        directories(MEMORY) as (backing, directory),
        kind(backing_file(backing / "disk.img"), directory) as target,
    ):
        try:
            for work in options.only.split(","):
                print(_profile(target, work, options, graphs / f"{work}.svg"))
        except (ClientFailed, MissingTool, subprocess.SubprocessError) as error:
            print(f"profile: {error}", file=sys.stderr)
            return 1
    return 0


def _profile(target: Blockyard, name: str, options: argparse.Namespace, graph: Path) -> str:
    """Record the worker while it is under load; return a line that says where the graph is."""
    (worker,) = target.data_pids
    command = [
        _py_spy(), "record", "--pid", str(worker), "--output", str(graph), "--rate", str(options.rate),
        "--duration", "3600", "--threads", "--nonblocking", *(["--native"] if options.native else []),
    ]  # fmt: skip
    if options.native:
        command.remove("--nonblocking")  # a native stack can only be read of a process that stands still
    with (graph.parent / f"{name}.log").open("wb") as log:
        recorder = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            time.sleep(1)  # it reads the symbols of the process first
            client = "load" if options.digests else WORKS[name].client
            outcome = drive(
                target, WORKS[name], seconds=options.seconds, sessions=1,
                directory=target.directory, client=client, digests=options.digests,
            )  # fmt: skip
            recorder.send_signal(signal.SIGINT)  # it writes the graph, then ends
            if recorder.wait(60):
                said = (graph.parent / f"{name}.log").read_text(errors="replace")
                raise ClientFailed(f"py-spy ended with status {recorder.returncode}: {said[-2000:]}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                recorder.kill()
            recorder.wait()
    return f"{WORKS[name].title}: {outcome.operations / outcome.seconds:,.0f} IOPS under the profiler: {graph}"


def _py_spy() -> str:
    beside = Path(sys.executable).with_name("py-spy")  # in the virtual environment, which need not be on PATH
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise MissingTool("py-spy is not installed: pip install -e '.[dev]'")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
