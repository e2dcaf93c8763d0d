"""OTLP: a receiver decodes what comes with OpenTelemetry's own messages, and finds what Prometheus would."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from blockyard.cli.main import main
from blockyard.control.configuration_file import load
from blockyard.control.errors import ConfigurationError
from blockyard.control.exposition import Family, Histogram, Kind, Measured
from blockyard.control.telemetry import Exports
from blockyard.initiator import connect
from blockyard.worker.telemetry import Telemetry
from tests.api.conftest import (
    ApiFactory,
    api,  # noqa: F401  (a fixture)
)
from tests.waiting import eventually


class Receiver:
    """Takes what is posted to /v1/metrics, where the token is right."""

    def __init__(self) -> None:
        self.taken: list[ExportMetricsServiceRequest] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                right = self.headers["authorization"] == "Bearer abc"
                if right:
                    assert self.path == "/v1/metrics"
                    receiver.taken.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(200 if right else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def points(self, name: str) -> Iterator[tuple[Any, Any, dict[str, str]]]:
        """Of the newest: metric, point, attributes."""
        for resource in self.taken[-1].resource_metrics if self.taken else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            yield metric, point, {each.key: each.value.string_value for each in point.attributes}


def test_what_prometheus_fetches_is_sent(api: ApiFactory, tmp_path: Path) -> None:  # noqa: F811
    served = api(managed=True)
    (tmp_path / "headers").write_text("Authorization: Bearer wrong\n")
    with Receiver() as receiver, served.local() as client:
        command = ["telemetry", "set", receiver.url, "--interval", "1", "--headers-file", str(tmp_path / "headers")]
        assert main([*command, "--state", str(served.state)]) == 0
        told = client.get("/settings/telemetry").json()
        assert (told["endpoint"], told["interval"]) == (receiver.url, 1)
        eventually(lambda: _kinds(client) == ["delivery-failed"])
        (tmp_path / "headers").write_text("Authorization: Bearer abc\n")
        target = client.get("/targets").json()[0]["name"]
        with connect(f"iscsi://{served.serving.portals[0]}/{target}/0") as lun:
            for _ in range(5):
                lun.write(0, bytes(4096))
            eventually(
                lambda: [point.count for _, point, _ in receiver.points("blockyard_command_duration_seconds")] == [5]
            )
        eventually(lambda: _kinds(client) == ["delivery-failed", "delivery-recovered"])
        ((metric, writes, labels),) = receiver.points("blockyard_volume_writes")
        assert (labels, writes.as_int, metric.sum.is_monotonic) == ({"volume": "demo.img"}, 5, True)
        assert metric.sum.aggregation_temporality == 2, "cumulative"
        ((metric, times, labels),) = receiver.points("blockyard_command_duration_seconds")
        assert (times.count, sum(times.bucket_counts), labels["operation"], metric.unit) == (5, 5, "write", "s")
        assert len(times.bucket_counts) == len(times.explicit_bounds) + 1
        ((metric, up, _),) = [each for each in receiver.points("blockyard_worker_up") if each[2] == {"worker": "0"}]
        assert (up.as_int, metric.WhichOneof("data")) == (1, "gauge")
        resource = {
            each.key: each.value.string_value for each in receiver.taken[-1].resource_metrics[0].resource.attributes
        }
        assert resource["service.name"] == "blockyard"
        assert main(["telemetry", "off", "--state", str(served.state)]) == 0
        assert client.get("/settings/telemetry").status_code == 404


def _kinds(client: Any) -> list[str]:
    return [each["what"] for each in client.get("/events").json() if each["what"].startswith("delivery-")]


def test_a_receiver_that_hangs_holds_nothing_up() -> None:
    measured = Measured()
    measured.set(Family("things", Kind.GAUGE, "Things.", ("name",)), 1, "\udcff")
    measured.observe(Family("times", Kind.HISTOGRAM, "Times."), Histogram((1.0,), (1, 2), 3.5))

    async def measure() -> Measured:
        return measured

    async def live(url: str, connected: socket.socket) -> None:
        exports = Exports(measure, lambda what, text: None)
        exports.configure(Telemetry(url, interval=1))
        peer, _ = await asyncio.get_running_loop().sock_accept(connected)
        with peer:  # which gets no answer
            exports.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        asyncio.run(live(f"http://127.0.0.1:{listening.getsockname()[1]}", listening))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('endpoint = "http://192.0.2.1:4318"', "https"),
        ('endpoint = "https://x/?token=hidden"', "headers_file"),
        ('endpoint = "https://x"\ninterval = 0', "interval"),
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "c.toml").write_text(f"[telemetry]\n{text}\n")
    with pytest.raises(ConfigurationError, match=why) as refusal:
        load(tmp_path / "c.toml", portals=())
    assert "hidden" not in str(refusal.value)


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.control.consistency.find_spec", lambda name: None)
    (tmp_path / "c.toml").write_text('[telemetry]\nendpoint = "https://x"\n')
    with pytest.raises(ConfigurationError, match=r"blockyard\[otel\]"):
        load(tmp_path / "c.toml", portals=())
