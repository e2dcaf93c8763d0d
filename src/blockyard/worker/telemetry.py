"""Where metrics are sent to: the table [telemetry] of the configuration. Control sends them (control/telemetry.py)."""

from __future__ import annotations

from dataclasses import dataclass

from blockyard.worker.receivers import split_url


@dataclass(frozen=True)
class Telemetry:
    """A receiver of OpenTelemetry's protocol, OTLP over HTTP."""

    endpoint: str  # its URL; /v1/metrics is added to it
    interval: int = 60  # seconds between two times
    headers_file: str = ""  # a file with lines NAME: VALUE, such as a token; "": nothing more is said
    authority: str = ""  # PEM file: who signs the receiver's certificate; "": those that the system trusts

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if split_url(self.endpoint).query:
            raise ValueError("the URL has no query: what is secret goes into headers_file")
        if not 1 <= self.interval <= 3600:
            raise ValueError(f"interval is from 1 to 3600 seconds, not {self.interval}")

    @property
    def url(self) -> str:
        """Of metrics (OpenTelemetry Protocol Exporter, endpoint URLs for OTLP/HTTP)."""
        return f"{self.endpoint.rstrip('/')}/v1/metrics"
