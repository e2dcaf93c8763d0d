"""What control may ask of a worker that serves: one function for each request, and their table.

A request gets what the worker serves and its arguments, on the loop's thread, and returns the reply, or what is to be done in
another thread before there is one. It raises ValueError, LookupError or OSError for what cannot be done.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from blockyard.iscsi.pdu import AsyncEvent
from blockyard.scsi.alua import STATES
from blockyard.scsi.traffic import together
from blockyard.scsi.unit import LogicalUnit
from blockyard.scsi.virtual import VirtualUnit
from blockyard.worker import measuring, media_jobs, tape_requests
from blockyard.worker.cdp_requests import CDP_REQUESTS
from blockyard.worker.check_requests import CHECK_REQUESTS
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.later import Answer, Later
from blockyard.worker.layer_requests import cancel, jobs, layer, make_layer, one_job, refresh
from blockyard.worker.media_jobs import CARTRIDGE_JOBS, DISC_JOBS
from blockyard.worker.member_requests import MEMBER_REQUESTS
from blockyard.worker.optical_requests import OPTICAL_REQUESTS
from blockyard.worker.pool_requests import POOL_REQUESTS
from blockyard.worker.schedules import SCHEDULE_REQUESTS
from blockyard.worker.space_requests import SPACE_REQUESTS


def statistics(inventory: Inventory, request: Message) -> Message:
    """Counters of the logical units by the names of their volumes and drives, and the sessions."""
    return {
        "volumes": {name: unit.counters.as_dict() for name, unit in inventory.units.items()},
        "sizes": {name: unit.device.size for name, unit in inventory.units.items()},
        "drives": {name: unit.counters.as_dict() for name, unit in inventory.drives.units().items()},
        "sessions": [
            {
                "target": node.name,
                "initiator": session.initiator,
                "tsih": session.tsih,
                "portal_group": session.portal_group,
                "user": session.permit.user,
                "right": str(session.permit.rule.right),
                "connections": [_connection(cid, connection) for cid, connection in session.connections.items()],
            }
            for node in inventory.targets.nodes.values()
            for session in node.sessions.values()
        ],
    }


def _connection(cid: int, connection: Any) -> dict[str, Any]:
    return {"cid": cid, "peer": connection.peer, "portal": connection.portal}


def measurements(inventory: Inventory, request: Message) -> Answer:
    """The statistics, and what there is to tell of pools, tape libraries and stacks of layers."""
    counted = statistics(inventory, request) | {
        "traffic": {name: unit.traffic.as_dict() for name, unit in inventory.units.items()},
        "depths": {name: len(unit.tasks) for name, unit in inventory.units.items() if unit.tasks is not None},
    }
    pools, libraries = list(inventory.pools.values()), inventory.libraries.named()
    stacks = {name: unit.device for name, unit in inventory.units.items() if unit.device.children}
    if not pools and not libraries and not stacks:
        return counted
    return Later(partial(measuring.look, pools, libraries, stacks), lambda found: {**counted, **found})


def drop_sessions(inventory: Inventory, request: Message) -> Message:
    """End the sessions of an initiator, with one target or with any, one of them or all (RFC 7143 §11.9.1, event 3)."""
    dropped = 0
    for node in list(inventory.targets.nodes.values()):
        for session in list(node.sessions.values()):
            if (
                session.initiator == request["initiator"]
                and request["target"] in (None, node.name)
                and request["tsih"] in (None, session.tsih)
            ):
                session.announce(AsyncEvent.SESSION_DROPPED)
                session.close(politely=True)
                dropped += 1
    return {"dropped": dropped}


def port_groups(inventory: Inventory, request: Message) -> Message:
    """The target port groups of each target: state, whether preferred, and the sessions that come by them."""
    return {
        "targets": {
            node.name: {
                str(tag): {
                    "state": group.state.text,
                    "preferred": group.preferred,
                    "sessions": sum(session.portal_group == tag for session in node.sessions.values()),
                }
                for tag, group in node.scsi.ports.groups.items()
            }
            for node in inventory.targets.nodes.values()
        }
    }


def set_port_group(inventory: Inventory, request: Message) -> Message:
    """Change the state of a target port group, and whether it is preferred, where that is not None."""
    state = request["state"]
    if state is not None and state not in STATES:
        raise ValueError(f"a state is one of {', '.join(STATES)}, not {state}")
    ports = inventory.targets.nodes[request["target"]].scsi.ports
    ports.set(request["group"], None if state is None else STATES[state], preferred=request["preferred"])
    return {}


def alive(inventory: Inventory, request: Message) -> Message:
    """Nothing: that there is a reply tells all."""
    return {}


_OF_POOLS = {
    **POOL_REQUESTS,
    **CHECK_REQUESTS,
    **MEMBER_REQUESTS,
    **CDP_REQUESTS,
    **SCHEDULE_REQUESTS,
    **SPACE_REQUESTS,
}


def pool(inventory: Inventory, request: Message) -> Answer:
    """One of the tables above: what is asked of a pool."""
    open_pool = inventory.pools.get(request["pool"])
    if open_pool is None:
        raise LookupError(f"the pool {request['pool']} is not open: `blockyard events` says why")
    if request["request"] not in _OF_POOLS:
        raise LookupError(f"a pool knows no request {request['request']!r}")
    return _OF_POOLS[request["request"]](inventory, open_pool, request)


def tape(inventory: Inventory, request: Message) -> Answer:
    """One of worker/tape_requests.py."""
    library = inventory.libraries.get(request["library"])
    if library is None:
        raise LookupError(f"the tape library {request['library']} is not open")
    if request["request"] in CARTRIDGE_JOBS:
        jobs = media_jobs.of(inventory, f"library:{request['library']}")
        return {"job": CARTRIDGE_JOBS[request["request"]](library, jobs, request).number}
    return tape_requests.carry_out(library, request)


def optical(inventory: Inventory, request: Message) -> Answer:
    """One of worker/optical_requests.py."""
    drive = inventory.drives.get(request["drive"])
    if drive is None:
        raise LookupError(f"the drive {request['drive']} is not open")
    if request["request"] in DISC_JOBS:
        return DISC_JOBS[request["request"]](drive, media_jobs.of(inventory, f"drive:{request['drive']}"), request)
    if request["request"] not in OPTICAL_REQUESTS:
        raise LookupError(f"a drive knows no request {request['request']!r}")
    return OPTICAL_REQUESTS[request["request"]](drive, request)


def activity(inventory: Inventory, request: Message) -> Message:
    """What initiators have done, and how long it took: of logical units, by the names of their volumes, and of sessions."""
    names = {unit: name for name, unit in inventory.units.items()}
    done = {name: list(unit.traffic.by_initiator().values()) for name, unit in inventory.units.items()}
    return {
        "volumes": {name: together(pairs).as_dict() for name, pairs in done.items() if pairs},
        "depths": {name: depth for name, unit in inventory.units.items() if (depth := len(unit.tasks or ()))},
        "sessions": [
            {
                "target": node.name,
                "tsih": session.tsih,
                "depth": len(session.commands),
                "volumes": {
                    names.get(unit.base if isinstance(unit, VirtualUnit) else unit, ""): nexus.traffic.as_dict()
                    for nexus in session.nexuses
                    if nexus.traffic.any and isinstance(unit := nexus.unit, LogicalUnit)
                },
            }
            for node in inventory.targets.nodes.values()
            for session in node.sessions.values()
        ],
    }


REQUESTS: dict[str, Callable[[Inventory, Message], Answer]] = {
    "activity": activity,
    "alive": alive,
    "layer": layer,
    "layer jobs": jobs,
    "make layer": make_layer,
    "layer job": one_job,
    "cancel layer job": cancel,
    "media jobs": media_jobs.jobs,
    "cancel media job": media_jobs.cancel,
    "optical": optical,
    "pool": pool,
    "tape": tape,
    "statistics": statistics,
    "measurements": measurements,
    "refresh": refresh,
    "drop sessions": drop_sessions,
    "port groups": port_groups,
    "set port group": set_port_group,
}


def carry_out(inventory: Inventory, request: Message) -> Answer:
    """Do what is asked for."""
    if request["name"] not in REQUESTS:
        raise LookupError(f"a worker knows no request {request['name']!r}")
    return REQUESTS[request["name"]](inventory, request)
