"""What a managed server serves when it starts: what the state database has, and at the first start the demo disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from blockyard.control.errors import UsageError
from blockyard.worker.configuration import Configuration


def managed_configuration(
    first: Configuration, given: Mapping[str, object], stored: Configuration | None, before: Mapping[str, object]
) -> Configuration:
    """What is to be served: `first` at the first start, then what is `stored`.

    Options that were `given` at the start `before` too, as in the unit of a service, say nothing new: what was configured
    since then is not undone. Others are a wish. Raises UsageError for one that only the first start can have.
    """
    if stored is None:
        return first
    new = {name for name, value in given.items() if before.get(name) != value}
    for name in sorted(new - {"portal", "isns", "metrics", "console"}):
        raise UsageError(
            f"--{name.replace('_', '-')}: that was for the first start, and the disks have been configured since then: "
            "see `blockyard volume --help` and `blockyard target --help`, or serve with another --state"
        )
    if "portal" in new:
        stored = replace(stored, portal_groups={**stored.portal_groups, **first.portal_groups})
    if "isns" in new:
        stored = replace(stored, isns=first.isns)
    if "metrics" in new:
        stored = replace(stored, metrics=first.metrics)
    if "console" in new:
        stored = replace(stored, api=first.api)
    return stored
