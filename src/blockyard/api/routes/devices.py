"""The block devices of the machine that serves: what pools and layers can be made of."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from pydantic import BaseModel, Field

from blockyard.api.security import Here, Routes
from blockyard.control.allowed import is_allowed
from blockyard.control.devices import block_devices
from blockyard.control.roles import Role

routes = Routes("devices")


class Device(BaseModel):
    path: str = Field(description="that lasts, where there is one")
    name: str = Field(description="of the kernel: sda")
    size: int = Field(description="bytes")
    model: str
    rotational: bool
    read_only: bool
    used: str = Field(description="by what; empty: by nobody that is known of")


@routes.get("/devices", Role.ADMIN)
async def list_devices(here: Here) -> list[Device]:
    """The disks and partitions that may be used (api.paths), and what of them is in use."""
    configuration = here.server.configuration
    taken = {
        claim.what.removeprefix("file:"): name
        for name, volume in here.server.settled.volumes.items()
        for claim in volume.claims
    }
    found = [each for each in await asyncio.to_thread(block_devices) if is_allowed(configuration, each.path)]
    told = [Device(**asdict(each)) for each in found]
    for each in told:
        volume = taken.get(each.path) or taken.get(f"/dev/{each.name}")
        each.used = f"volume {volume}" if volume else each.used
    return told
