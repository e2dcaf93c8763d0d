"""Metrics are sent to a receiver of OpenTelemetry's (OTLP over HTTP): those that Prometheus fetches, under the same names.

They are encoded and sent by OpenTelemetry's own packages, which the extra blockyard[otel] brings, in a thread that nothing
waits for: a receiver that hangs or is gone costs what it was to get, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockyard import __version__
from blockyard.control.exposition import Family, Histogram, Kind, Measured
from blockyard.worker.telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import MetricsData

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds that a receiver has
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~](?:[ -~]*[!-~])?)[ \t]*")
_UNITS = {"bytes": "By", "seconds": "s"}  # by the ends of names (UCUM, as OpenTelemetry wants it)

Tell = Callable[[str, str], None]  # kind of event, text; from any thread


class Exports:
    """At most one receiver, which may change. `measure` is asked in the loop that `configure` is called in."""

    def __init__(self, measure: Callable[[], Awaitable[Measured]], tell: Tell) -> None:
        self._measure = measure
        self._tell = tell
        self._sender: _Sender | None = None

    def configure(self, wanted: Telemetry | None) -> None:
        """This is the receiver from now on."""
        if self._sender is not None and self._sender.wanted != wanted:
            self.close()
        if wanted is not None and self._sender is None:
            self._sender = _Sender(wanted, self._measure, self._tell, asyncio.get_running_loop())

    def close(self) -> None:
        if self._sender is not None:
            self._sender.end()
            self._sender = None


class _Sender:
    def __init__(
        self,
        wanted: Telemetry,
        measure: Callable[[], Awaitable[Measured]],
        tell: Tell,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.wanted = wanted
        self._measure = measure
        self._tell = tell
        self._loop = loop
        self._over = threading.Event()
        self._exporter: OTLPMetricExporter | None = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="metrics to a receiver", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Without waiting for the receiver."""
        self._over.set()
        if self._exporter is not None:
            self._exporter.shutdown()

    def _run(self) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what has failed is told once, here
        while not self._over.wait(self.wanted.interval):
            try:
                asked = asyncio.run_coroutine_threadsafe(_awaited(self._measure), self._loop)
                data = told(asked.result(PATIENCE))
                why = self._send(data)
            except (OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            except Exception:
                log.exception("metrics could not be sent")
                why = "see the log"
            if not self._over.is_set():
                self._note(why)

    def _send(self, data: MetricsData) -> str:
        """Why it has failed; "" where it has not. Raises OSError."""
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import MetricExportResult  # noqa: PLC0415

        headers = _headers(self.wanted.headers_file)
        exporter = OTLPMetricExporter(
            self.wanted.url, certificate_file=self.wanted.authority or None, headers=headers, timeout=PATIENCE
        )
        self._exporter = exporter
        try:
            if exporter.export(data) is MetricExportResult.SUCCESS:
                return ""
        finally:
            with contextlib.suppress(Exception):
                exporter.shutdown()
        return "it does not answer, or refuses them"

    def _note(self, why: str) -> None:
        if bool(why) != self._failed:
            self._failed = bool(why)
            if why:
                self._tell("delivery-failed", f"metrics cannot be delivered to {self.wanted.endpoint}: {why}")
            else:
                self._tell("delivery-recovered", f"metrics are delivered to {self.wanted.endpoint} again")


async def _awaited(measure: Callable[[], Awaitable[Measured]]) -> Measured:
    return await measure()


def _headers(path: str) -> dict[str, str]:
    """What stands in a file of headers. Raises OSError, without what stands there."""
    found: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text(errors="replace").splitlines() if path else (), 1):
        match = _HEADER.fullmatch(line)
        if match is None and line.strip():
            raise OSError(f"{path}: line {number} is not NAME: VALUE")
        if match is not None:
            found[match[1]] = match[2]
    return found


# ---- as OpenTelemetry has it (https://opentelemetry.io/docs/specs/otel/metrics/data-model/)


def told(measured: Measured) -> MetricsData:
    """The measurements as the SDK's exporter takes them. When counters began is not told: workers begin at times of their own."""
    from opentelemetry.sdk.metrics import export as otel  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

    resource = Resource(
        {"service.name": "blockyard", "service.version": __version__, "host.name": socket.gethostname()}
    )
    metrics = [_metric(otel, family, values, int(measured.time * 1e9)) for family, values in measured.families()]
    scope = otel.ScopeMetrics(InstrumentationScope("blockyard", __version__), metrics, "")
    return otel.MetricsData([otel.ResourceMetrics(resource, [scope], "")])


def _metric(otel: Any, family: Family, values: Mapping[tuple[str, ...], float | Histogram], now: int) -> Any:
    cumulative = otel.AggregationTemporality.CUMULATIVE
    points = [_point(otel, family, labels, value, now) for labels, value in values.items()]
    if family.kind is Kind.HISTOGRAM:
        data = otel.Histogram(points, cumulative)
    elif family.kind is Kind.COUNTER:
        data = otel.Sum(points, cumulative, is_monotonic=True)
    else:
        data = otel.Gauge(points)
    return otel.Metric(family.name, family.help, _UNITS.get(family.name.rpartition("_")[2], ""), data)


def _point(otel: Any, family: Family, labels: tuple[str, ...], value: float | Histogram, now: int) -> Any:
    attributes = {name: _readable(text) for name, text in zip(family.labels, labels, strict=True)}
    if isinstance(value, Histogram):
        return otel.HistogramDataPoint(
            attributes, 0, now, sum(value.counts), value.sum, value.counts, value.bounds, None, None
        )
    return otel.NumberDataPoint(attributes, 0, now, value)


def _readable(text: str) -> str:
    """What is no UTF-8, such as a file's name, keeps its bytes as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
