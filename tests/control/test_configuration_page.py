"""docs/configuration.md says what the configuration is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from blockyard.control.configuration_file import load
from blockyard.pool.schedule import Retention
from blockyard.worker.configuration import (
    Api,
    Authentication,
    Configuration,
    Drive,
    Host,
    Isns,
    Library,
    Metrics,
    Pool,
    PortalGroup,
    Redirect,
    Schedule,
    Target,
    Volume,
)
from blockyard.worker.telemetry import Telemetry

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def test_the_example_makes_sense(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "example.toml").write_text(example)
    configuration = load(tmp_path / "example.toml")
    for field in dataclasses.fields(Configuration):
        assert getattr(configuration, field.name) != field.default, f"the example has no {field.name}"


@pytest.mark.parametrize(
    "kind",
    [
        PortalGroup,
        Pool,
        Schedule,
        Retention,
        Library,
        Volume,
        Drive,
        Target,
        Redirect,
        Authentication,
        Isns,
        Metrics,
        Telemetry,
        Api,
        Host,
    ],
)
def test_every_key_is_explained(kind: type) -> None:
    for field in dataclasses.fields(kind):
        if field.name != "name":
            assert re.search(rf"[`{{. ,]{field.name}[`}} =,]", PAGE), f"{kind.__name__}.{field.name} is not on the page"
