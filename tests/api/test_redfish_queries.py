"""What a query may cost."""

from __future__ import annotations

from blockyard.api.redfish.queries import _selected, parse


class _Counted(str):
    """A text that knows how often all of its kind were taken apart."""

    __slots__ = ()
    times = 0

    def partition(self, separator: str, /) -> tuple[str, str, str]:
        _Counted.times += 1
        return super().partition(separator)


def test_many_names_are_looked_at_once_each() -> None:
    """Anybody may ask the service root for what stands in 16 KiB, and the answer is made in control's loop."""
    names = parse("$select=" + ",".join(f"{number:x}" for number in range(4000)) + ",Links/Sessions,Links/x,Id").select
    found = {"@odata.id": "/", "Id": 1, "Name": "a", "Links": {"Sessions": 2, "Other": 3}}
    assert _selected(found, tuple(map(_Counted, names))) == {"@odata.id": "/", "Id": 1, "Links": {"Sessions": 2}}
    assert _Counted.times < 2 * len(names)
