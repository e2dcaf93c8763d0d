"""The block devices of the machine that serves: what pools and layers can be made of."""

from __future__ import annotations

from pydantic import BaseModel, Field

from blockyard.api.aside import aside
from blockyard.api.security import Here, Routes
from blockyard.control.allowed import is_allowed
from blockyard.control.devices import block_devices
from blockyard.control.roles import Role
from blockyard.control.uses import Uses
from blockyard.worker.configuration import Configuration, Settled

routes = Routes("devices")


class Device(BaseModel):
    path: str = Field(description="that lasts, where there is one")
    name: str = Field(description="of the kernel: sda")
    size: int = Field(description="bytes")
    model: str
    rotational: bool
    read_only: bool
    used: str = Field(description="by what; empty: by nobody that is known of")
    holds: str = Field(
        description="what somebody has left on it, such as partitions or a file system; empty: nothing that is known"
    )


@routes.get("/devices", Role.ADMIN)
async def list_devices(here: Here) -> list[Device]:
    """The disks and partitions that may be used (api.paths), and what of them is in use."""
    server = here.server
    return await aside(lambda: _devices(server.configuration, server.settled))


def _devices(configuration: Configuration, settled: Settled) -> list[Device]:
    uses = Uses(settled)
    return [
        Device(
            path=each.path,
            name=each.name,
            size=each.size,
            model=each.model,
            rotational=each.rotational,
            read_only=each.read_only,
            used=uses.of_device(each.path) or each.used,
            holds=each.holds,
        )
        for each in block_devices()
        if is_allowed(configuration, each.path)
    ]
