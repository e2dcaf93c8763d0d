"""What Prometheus fetches: its own parsers read it, and it is what our initiator has done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Callable, Coroutine
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.samples import Sample

from blockyard import __version__
from blockyard.block.size import Size
from blockyard.cli.main import main
from blockyard.control import measurements, metrics
from blockyard.control.configuration_file import load
from blockyard.control.errors import ConfigurationError, PortalError
from blockyard.control.exposition import Family, Histogram, Kind, Measured
from blockyard.control.metrics import Endpoint
from blockyard.control.server import Options, Server
from blockyard.initiator import LoginError, connect
from blockyard.scsi.traffic import BOUNDS, Traffic
from blockyard.worker.configuration import Configuration, Metrics, Volume
from tests.conftest import TargetFactory
from tests.serving import IQN, Serving, free_port
from tests.waiting import LIMIT, eventually

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
STRANGER = "iqn.2026-11.test:stranger"
HOST = "iqn.2026-11.test:host"
FAMILIES = [
    family
    for value in vars(measurements).values()
    for family in (value.values() if isinstance(value, dict) else [value])
    if isinstance(family, Family)
]


class Page:
    """One scrape: its samples, by name and labels; each stands there once."""

    def __init__(self, address: str, accept: str = "") -> None:
        host, _, port = address.rpartition(":")
        connection = HTTPConnection(host, int(port), timeout=LIMIT)
        connection.request("GET", "/metrics", headers={"Accept": accept} if accept else {})
        response = connection.getresponse()
        self.text = response.read().decode()
        self.kind = response.headers["Content-Type"]
        connection.close()
        assert response.status == 200, self.text
        parse = openmetrics if "openmetrics" in self.kind else prometheus
        self.families = list(parse.text_string_to_metric_families(self.text))
        samples: list[Sample] = [sample for family in self.families for sample in family.samples]
        self.values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
        assert len(self.values) == len(samples), "a series stands there twice"

    def get(self, name: str, **labels: str) -> float | None:
        return self.values.get((f"blockyard_{name}", frozenset(labels.items())))


# ---- the two formats


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4, unique=True))
def test_any_label_value_is_read_as_it_was(values: list[str]) -> None:
    measured = Measured()
    family = Family("test_things", Kind.COUNTER, "Things.", ("name", "other"))
    for number, value in enumerate(values):
        measured.set(family, number, value, "x")
    expected = {(value, "x"): float(number) for number, value in enumerate(values)}
    for parser, om in ((prometheus, False), (openmetrics, True)):
        families = list(parser.text_string_to_metric_families(measured.text(openmetrics=om).decode()))
        samples = [sample for found in families for sample in found.samples]
        assert {(s.labels["name"], s.labels["other"]): s.value for s in samples} == expected
        assert {sample.name for sample in samples} <= {"test_things_total"}


def test_names_that_are_no_utf_8_differ_still() -> None:
    measured = Measured()
    family = Family("test_size", Kind.GAUGE, "Size.", ("name",))
    for number, name in enumerate((b"disk\xfe", b"disk\xff")):
        measured.set(family, number, os.fsdecode(name))
    (found,) = prometheus.text_string_to_metric_families(measured.text(openmetrics=False).decode())
    assert [sample.labels["name"] for sample in found.samples] == ["disk\\udcfe", "disk\\udcff"]


def test_families_are_named_as_prometheus_asks() -> None:
    """https://prometheus.io/docs/practices/naming/, and what `promtool check metrics` looks at."""
    names = [family.sample for family in FAMILIES]
    assert len(names) == len(set(names)) > 40
    for family in FAMILIES:
        assert re.fullmatch(r"blockyard(_[a-z]+)+", family.name)
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in family.labels)
        assert not re.search(r"_(total|count|sum|bucket|info|counter|gauge)$", family.name)
        assert not re.search(r"(kilo|mega|milli|micro|nano|minutes|hours|percent|_kb|_mb|_ms)", family.name)
        assert family.help.endswith(".")
        assert "\\" not in family.help
        assert "\n" not in family.help


def test_all_families_are_in_the_manual() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    written = set(re.findall(r"`(blockyard_\w+)", page))
    assert written >= {family.sample for family in FAMILIES}
    for asked in re.findall(r"blockyard_\w+", page):
        assert asked.removesuffix("_bucket") in written


def test_dashboard_and_alerts_ask_for_what_there_is() -> None:
    """And a histogram by its parts."""
    known = {family.sample for family in FAMILIES}
    histograms = {family.name for family in FAMILIES if family.kind is Kind.HISTOGRAM}
    known = (known - histograms) | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    folder = Path(__file__).parents[2] / "packaging" / "monitoring"
    dashboard = json.loads((folder / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (.*)", (folder / "alerts.yml").read_text())
    assert len(asked) > 25
    for expression in asked:
        names = re.findall(r"blockyard_\w+", expression.replace('job="blockyard"', ""))
        assert set(names) <= known, expression
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(identifiers) == len(set(identifiers))


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 9)), min_size=1, max_size=20))
def test_histograms_are_read_as_they_were(batches: list[tuple[float, int]]) -> None:
    traffic = Traffic()
    for seconds, commands in batches:
        traffic.add(seconds, commands, 512)
    measured = Measured()
    family = Family("test_duration_seconds", Kind.HISTOGRAM, "Times.", ("name",))
    for _ in range(2):  # two workers
        measured.observe(family, Histogram(BOUNDS, tuple(traffic.buckets), traffic.seconds), "x")
    for parser, om in ((prometheus, False), (openmetrics, True)):
        (found,) = parser.text_string_to_metric_families(measured.text(openmetrics=om).decode())
        assert found.type == "histogram"
        values = {(sample.name, sample.labels.get("le")): sample.value for sample in found.samples}
        assert values["test_duration_seconds_count", None] == 2 * sum(count for _, count in batches)
        assert values["test_duration_seconds_bucket", "+Inf"] == 2 * sum(count for _, count in batches)
        assert values["test_duration_seconds_sum", None] == pytest.approx(2 * sum(s * n for s, n in batches))


# ---- a server


class Site:
    """A server with everything there is to measure. `do` runs a command."""

    def __init__(self, folder: Path, target: TargetFactory) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.state = folder / "state-0"
        self.config = folder / "serve-0.toml"
        self._run("pool", "create", str(folder / "fast"), "--size", "256M")
        self.serving = target(
            config=f"""
            [metrics]
            listen = "{self.address}"
            [pools.fast]
            directory = "fast"
            export = true
            target = "{IQN}"
            [libraries.vault]
            directory = "vault"
            slots = 4
            drives = 2
            [drives.dvd]
            [volumes."a \\"quoted\\\\ name"]
            path = "disk.img"
            size = "64M"
            [volumes.layered]
            stack = "throttle(iops=1000000, memory(1M))"
            [targets."{IQN}"]
            luns = {{0 = "a \\"quoted\\\\ name", 1 = "dvd", 2 = "layered"}}
            access = [{{right = "refuse", initiators = ["{STRANGER}"]}}, {{right = "full"}}]
            [targets."{IQN}:tapes"]
            library = "vault"
            """
        )

    def _run(self, *words: str) -> None:
        assert main([*words, "--state", str(self.state)]) == 0, words

    def run(self, *words: str) -> None:
        """A command that has to end well."""
        self._run(*words)

    def page(self, accept: str = "") -> Page:
        return Page(self.address, accept)


def test_what_the_initiator_did_and_that_a_worker_died(tmp_path: Path, target: TargetFactory) -> None:
    site = Site(tmp_path, target)
    _check_what_the_initiator_did(site)
    _check_that_a_worker_died(site)


def _whole(site: Site, accept: str = "") -> Page:
    """With what the worker tells, where it has done so within its time."""
    pages: list[Page] = []

    def answered() -> bool:
        pages.append(site.page(accept))
        return pages[-1].get("worker_up", worker="0") == 1

    eventually(answered)
    return pages[-1]


def _check_what_the_initiator_did(site: Site) -> None:
    name = 'a "quoted\\ name'
    site.run("volume", "create", "fast/vm", "64M")
    site.run("snapshot", "create", "fast/vm@monday")
    site.run("cdp", "on", "fast/vm")
    site.run("pool", "set", "fast", "--soft", "80%")
    with connect(site.serving.url(), initiator_name=HOST) as lun:
        lun.read(0, 8)
        before = _whole(site)
        for _ in range(5):
            lun.read(8, 16)
        lun.write(0, bytes(3 * 512))
        with pytest.raises(LoginError):
            connect(site.serving.url(), initiator_name=STRANGER)
        with connect(site.serving.url(target=f"{IQN}:vm"), initiator_name=HOST) as vm:
            vm.write(0, b"x" * 65536)
        eventually(lambda: site.page().get("login_failures_total", target=IQN) == 1)
        pages = [_whole(site), _whole(site, OPENMETRICS)]
    assert pages[0].kind.startswith("text/plain; version=0.0.4")
    assert pages[1].kind.startswith("application/openmetrics-text; version=1.0.0")
    assert pages[1].text.endswith("# EOF\n")
    for page in pages:

        def grown(counter: str, page: Page = page) -> float:
            values = [each.get(f"volume_{counter}_total", volume=name) for each in (before, page)]
            assert None not in values
            return (values[1] or 0) - (values[0] or 0)

        assert (grown("reads"), grown("read_bytes")) == (5, 5 * 16 * 512)
        assert (grown("writes"), grown("written_bytes"), grown("errors")) == (1, 3 * 512, 0)
        assert page.get("build_info", version=__version__) == 1
        assert page.get("volume_size_bytes", volume=name) == 64 << 20
        assert page.get("sessions", target=IQN, initiator=HOST) == 1
        assert page.get("connections", target=IQN, initiator=HOST) == 1
        assert page.get("login_failures_total", target="discovery") == 0
        assert page.get("events_total", severity="warning") == 1
        assert page.get("events_total", severity="error") == 0
        assert page.get("volume_written_bytes_total", volume="fast/vm") == 65536
        ours = {"volume": name, "initiator": HOST}
        assert page.get("command_duration_seconds_count", **ours, operation="write") == 1
        assert page.get("initiator_bytes_total", **ours, operation="write") == 3 * 512
        assert page.get("command_duration_seconds_count", **ours, operation="read") == 6
        assert page.get("command_duration_seconds_bucket", **ours, operation="read", le="+Inf") == 6
        assert page.get("pool_size_bytes", pool="fast") == pytest.approx(256 << 20, rel=0.1)
        assert page.get("pool_provisioned_bytes", pool="fast") == 64 << 20
        assert (page.get("pool_used_bytes", pool="fast") or 0) >= 65536
        assert page.get("pool_level", pool="fast") == 0
        assert page.get("pool_threshold_free_bytes", pool="fast", threshold="soft") == pytest.approx(51 << 20, rel=0.1)
        assert page.get("pool_threshold_free_bytes", pool="fast", threshold="hard") is None
        assert page.get("pool_volume_snapshots", pool="fast", volume="vm") == 1
        assert page.get("pool_volume_used_bytes", pool="fast", volume="vm") == 65536
        assert 0 < (page.get("cdp_reach_seconds", pool="fast", volume="vm") or 0) < 86400
        assert page.get("cdp_writes", pool="fast", volume="vm") == 4
        assert page.get("tape_library_cartridges", library="vault") == 0
        assert page.get("layer_healthy", volume="layered", layer="0/0", kind="memory") == 1
        assert page.get("layer_events_total", volume="layered", layer="0", kind="throttle", counter="delayed") == 0
        assert page.get("layer_state", volume="layered", layer="0", kind="throttle", gauge="waiting") == 0
        assert page.get("volume_size_bytes", volume="layered") == 1 << 20
        assert page.get("tape_drive_reads_total", library="vault", drive="1") == 0
        assert page.get("tape_drive_loaded", library="vault", drive="0") == 0
        assert page.get("optical_drive_reads_total", drive="dvd") == 0
        for number, process in enumerate(["control", "worker 0"]):
            pid = [site.serving.pid, *site.serving.workers][number]
            status = Path(f"/proc/{pid}/status").read_text()
            resident = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) << 10
            assert page.get("process_resident_memory_bytes", process=process) == pytest.approx(resident, rel=0.3)
            assert (page.get("process_cpu_seconds_total", process=process) or 0) > 0
        assert {family.name for family in FAMILIES} == {
            family.name.removesuffix("_info") if family.type in ("gauge", "info") else family.name
            for family in page.families
        }
        for family in page.families:
            assert family.documentation
            assert (family.type == "counter") == all(one.name.endswith("_total") for one in family.samples)
    site.run("snapshot", "delete", "fast/vm@monday", "--yes")
    assert site.page().get("pool_volume_snapshots", pool="fast", volume="vm") == 0


def _check_that_a_worker_died(site: Site) -> None:
    """It is killed until it is seen while it is away, the longer the more often it was killed."""
    down: list[Page] = []

    def killed() -> bool:
        for pid in site.serving.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        page = site.page()
        down.extend([page] if page.get("worker_up", worker="0") == 0 else [])
        return bool(down)

    up = [label for label, value in site.page().values.items() if label[0] == "blockyard_worker_up" and value == 1]
    eventually(killed)
    assert down[0].get("volume_reads_total", volume='a "quoted\\ name') is None
    assert down[0].get("volume_size_bytes", volume='a "quoted\\ name') == 64 << 20
    assert down[0].get("process_cpu_seconds_total", process="control") is not None
    eventually(lambda: all(site.page().values[label] == 1 for label in up))
    page = site.page()
    assert (page.get("worker_restarts_total", worker="0") or 0) >= 1
    assert page.get("volume_reads_total", volume='a "quoted\\ name') is not None


def test_a_hundred_slow_clients(target: TargetFactory) -> None:
    """Some say nothing, some begin, some ask and take no answer: neither Prometheus nor initiators notice."""
    port = free_port()
    serving = target("disk.img", options=["--metrics", f"127.0.0.1:{port}"])
    with contextlib.ExitStack() as stack, connect(serving.url()) as lun:
        clients = []
        for number in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT))
            client.sendall((b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")[number % 3])
            clients.append(client)
        assert lun.read(0, 1) == bytes(512)
        page = Page(f"127.0.0.1:{port}")
        assert (page.get("volume_reads_total", volume="disk.img") or 0) >= 1
        for client in clients[: 100 - metrics.MAX_CLIENTS]:
            with contextlib.suppress(ConnectionResetError):
                while client.recv(65536):
                    pass
        assert serving.workers


def _reload(serving: Serving, config: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    folder = serving.log.parent
    (folder / "serve-0.toml").write_text(config)
    capsys.readouterr()
    status = main(["reload", "--state", str(folder / "state-0")])
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_a_reload(target: TargetFactory, capsys: pytest.CaptureFixture[str]) -> None:
    rest = f'[volumes.disk]\npath = "disk.img"\nsize = "64M"\n[targets."{IQN}"]\nluns = {{0 = "disk"}}\n'
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    serving = target(config=rest)
    before = serving.workers
    with connect(serving.url()) as lun:
        assert _reload(serving, f'{rest}[metrics]\nlisten = "{first}"\n', capsys)[0] == 0
        Page(first)
        assert _reload(serving, f'{rest}[metrics]\nlisten = "{second}"\n', capsys)[0] == 0
        Page(second)
        with pytest.raises(ConnectionRefusedError):
            Page(first)
        with socket.create_server(("127.0.0.1", int(first.rpartition(":")[2]))):
            status, printed = _reload(serving, f'{rest}[metrics]\nlisten = "{first}"\n', capsys)
            assert status == 3
            assert f"{first} is taken by" in printed
        Page(second)
        wildcard = f"0.0.0.0:{second.rpartition(':')[2]}"
        status, printed = _reload(serving, f'{rest}[metrics]\nlisten = "{wildcard}"\n', capsys)
        assert status == 3
        assert "take that out first" in printed
        status, printed = _reload(serving, f'{rest}[metrics]\nlisten = "{serving.portals[0]}"\n', capsys)
        assert "a portal of the group 1" in printed
        Page(second)
        assert _reload(serving, rest, capsys)[0] == 0
        with pytest.raises(ConnectionRefusedError):
            Page(second)
        lun.read(0, 1)
    assert serving.workers == before


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:0", "has no port"), ("localhost:9464", "no IP address"), ("127.0.0.1:http", "127.0.0.1:http")],
)
def test_addresses_that_make_no_sense(tmp_path: Path, address: str, why: str) -> None:
    (tmp_path / "c.toml").write_text(f'[metrics]\nlisten = "{address}"\n')
    with pytest.raises(ConfigurationError, match=f"metrics.listen.*{why}"):
        load(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text('[metrics]\nlisten = "127.0.0.1"\n')
    found = load(tmp_path / "c.toml").metrics
    assert found is not None
    assert found.listen == "127.0.0.1:9464"


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    """It is found out before files are made."""
    volume = Volume("disk", path=str(tmp_path / "disk.img"), size=Size(1 << 20))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server(Options(tmp_path / "state"))
        with pytest.raises(PortalError, match="choose another with --metrics"):
            server.prepare(Configuration(volumes={"disk": volume}, metrics=Metrics(address)))
        server.close()
    assert not (tmp_path / "disk.img").exists()


# ---- HTTP


async def _one_thing() -> Measured:
    found = Measured()
    found.set(Family("test_thing", Kind.GAUGE, "A thing."), 1)
    return found


def _with_endpoint(
    work: Callable[[tuple[str, int]], Coroutine[Any, Any, None]],
    measure: Callable[[], Coroutine[Any, Any, Measured]] = _one_thing,
) -> None:
    """Run `work` beside an endpoint."""

    async def run() -> None:
        endpoint = Endpoint(measure, lambda name, asked: None)
        port = free_port()
        address = f"127.0.0.1:{port}"
        endpoint.commit(address, endpoint.prepare(address))
        await endpoint.start()
        try:
            await work(("127.0.0.1", port))
        finally:
            endpoint.close()

    asyncio.run(run())


async def _exchange(address: tuple[str, int], request: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    if end:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), LIMIT)
    writer.close()
    return answer


def test_requests_and_their_answers() -> None:
    good = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
    answers = {
        good + b"\r\n": 200,
        b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n": 200,
        b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n": 200,
        b"GET /metrics HTTP/1.0\r\n\r\n": 200,
        b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n": 200,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": 404,
        b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n": 404,
        b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n": 404,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n": 405,
        b"PUT /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100000): 405,
        b"GET /metrics HTTP/1.1\r\n\r\n": 400,
        good + b"Host: y\r\n\r\n": 400,
        good + b"No field\r\n\r\n": 400,
        good + b"Spaced : x\r\n\r\n": 400,
        good + b" folded\r\n\r\n": 400,
        good + b"Content-Length: 3\r\n\r\nabc": 400,
        good + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
        b"GET /metrics\r\n\r\n": 400,
        b"\x16\x03\x01\x02\r\n\r\n": 400,
        b"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n": 505,
        good + b"X: " + b"a" * 20000: 431,
        b"a" * 200000: 431,
    }

    async def work(address: tuple[str, int]) -> None:
        for request, status in answers.items():
            answer = await _exchange(address, request)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status), (request[:80], answer[:200])
            assert b"\r\nConnection: close" in head
            assert (b"\r\nAllow: GET, HEAD" in head) == (status == 405)
            length = int(re.findall(rb"Content-Length: (\d+)", head)[0])
            assert len(body) == (0 if request.startswith(b"HEAD") else length)
            assert length
        assert await _exchange(address, b"") == b""
        assert await _exchange(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n") == b""

    _with_endpoint(work)


@pytest.mark.parametrize(
    ("accept", "better"),
    [
        (OPENMETRICS, True),
        ("application/openmetrics-text; version=1.0.0, text/plain; q=0.5", True),
        ("application/openmetrics-text", True),
        ("*/*", False),
        ("text/plain, application/openmetrics-text; q=0.9", False),
        ("application/openmetrics-text; q=0", False),
        ("application/openmetrics-text; version=2.0.0; q=1, text/plain; q=0.1", False),
        ("application/openmetrics-text; q=nonsense", True),
        (";;=,,;q", False),
    ],
)
def test_the_format_that_is_liked_better(accept: str, better: bool) -> None:
    async def work(address: tuple[str, int]) -> None:
        answer = await _exchange(address, f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
        assert answer.endswith(b"# EOF\n") == better

    _with_endpoint(work)


def test_who_does_not_ask_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)

    async def work(address: tuple[str, int]) -> None:
        answer = await _exchange(address, b"GET /metr", end=False)
        assert answer.startswith(b"HTTP/1.1 408 ")

    _with_endpoint(work)


def test_requests_that_come_together_are_one_collection() -> None:
    asked = 0
    go = asyncio.Event()

    async def measure() -> Measured:
        nonlocal asked
        asked += 1
        await go.wait()
        return Measured()

    async def run() -> None:
        endpoint = Endpoint(measure, lambda name, asked: None)
        waiting = [asyncio.create_task(endpoint.measured()) for _ in range(10)]
        while not asked:
            await asyncio.sleep(0)
        waiting.pop(0).cancel()
        go.set()
        assert len(set(map(id, await asyncio.gather(*waiting)))) == 1
        assert asked == 1
        await endpoint.measured()
        assert asked == 2

    asyncio.run(run())


def test_a_fault_is_told_and_does_not_last() -> None:
    faults = [RuntimeError("a fault of ours")]

    async def measure() -> Measured:
        if faults:
            raise faults.pop()
        return Measured()

    async def work(address: tuple[str, int]) -> None:
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await _exchange(address, request)).startswith(b"HTTP/1.1 500 ")
        assert (await _exchange(address, request)).startswith(b"HTTP/1.1 200 ")

    _with_endpoint(work, measure)
