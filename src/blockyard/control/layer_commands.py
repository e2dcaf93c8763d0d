"""What can be asked of a server about the layers of its volumes: passed on to the worker that has the volume."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blockyard.block.building import understood
from blockyard.block.stack import StackError
from blockyard.control.allowed import check_layer
from blockyard.control.command import Command
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.making import CONTROL, check_devices, create
from blockyard.control.roles import Role
from blockyard.control.stacks import check_claims, identity_key, on_stack
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

Job = dict[str, Any]
_ROLES = {"show": Role.VIEWER, "actions": Role.VIEWER}  # an action may open files


async def layer(server: Server, request: Request) -> dict[str, Any]:
    """One of worker/layer_requests.py for "layer", which is VOLUME or VOLUME/PATH."""
    volume, path = _named(server, request)
    arguments = {key: request.get(key) for key in ("request", "action", "options")}
    if isinstance(arguments["options"], dict):
        check_devices(server, arguments["options"])
    return _begun(server, volume, await server.supervisor.ask_volume(volume, {**arguments, "path": path}))


def _begun(server: Server, volume: str, reply: dict[str, Any]) -> dict[str, Any]:
    """What a worker replies, with the name of the job that it has begun, if it has."""
    found = _plain(reply)
    if "job" in found:
        worker = next(each.number for each in server.supervisor.workers if volume in each.configuration.volumes)
        found["name"] = f"{worker}.{found['job']}"
    return found


def _named(server: Server, request: Request) -> tuple[str, str]:
    """The volume and the path of a layer in it: names of volumes may have a slash, too, so that the longest one counts."""
    name = request.get("layer")
    if not isinstance(name, str):
        raise UsageError("the request has no layer")
    there = [volume for volume in server.settled.volumes if name == volume or name.startswith(f"{volume}/")]
    if not there:
        raise UsageError(f"there is no volume {name.partition('/')[0]!r}: `blockyard status` lists them")
    volume = max(there, key=len)
    return volume, name[len(volume) + 1 :]


def _plain(reply: dict[str, Any]) -> dict[str, Any]:
    """What a worker replies, without what belongs to the message."""
    return {key: value for key, value in reply.items() if key not in ("type", "number")}


async def jobs(server: Server, request: Request) -> dict[str, Any]:
    """The jobs of all layers, and what they do by themselves; how each stack is that is open."""
    told = await looked(server)
    return {
        "jobs": jobs_of(server, told),
        "stacks": {name: stack for found in told.values() for name, stack in found["stacks"].items()},
    }


async def looked(server: Server) -> dict[int, dict[str, Any]]:
    """What each worker tells of its layers."""
    workers = server.supervisor.workers  # those that are asked: a change may bring others meanwhile
    told = await server.supervisor.ask_all({"name": "layer jobs"})
    return {worker.number: reply for worker, reply in zip(workers, told, strict=True) if reply is not None}


def jobs_of(server: Server, told: dict[int, dict[str, Any]]) -> list[Job]:
    """All jobs of layers, each with its volume and with a name that says who does it; then what goes on by itself, which has
    no number. What a worker makes is told of by the job of this process that waits for it."""
    found = [{**job.describe(), "volume": None, "name": f"{CONTROL}.{job.number}"} for job in server.making]
    for worker, each in told.items():
        found += [
            {**job, "volume": job["subject"].partition(": ")[0], "name": f"{worker}.{job['number']}"}
            for job in each["jobs"]
            if job["number"] not in server.making.lent
        ]
        found += _by_themselves(worker, each["stacks"])
    return found


def _by_themselves(worker: int, stacks: dict[str, Any]) -> Iterator[Job]:
    for volume, stack in stacks.items():
        for work in stack["work"]:
            number = zlib.crc32(f"{volume}: {work['place']} {work['layer']}".encode())
            yield {
                "number": None, "kind": work["kind"], "subject": f"{volume}: {work['layer']}", "volume": volume,
                "name": f"{worker}.{work['kind']}-{number:08x}", "place": work["place"],
                "unit": work["unit"], "done": work["done"], "total": work["total"],
                "state": "paused" if work.get("paused") else "running",
                "result": "paused: it goes on when somebody says so" if work.get("paused") else "",
                "details": None, "began": None, "ended": None,
            }  # fmt: skip


async def _job(server: Server, request: Request) -> Job:
    """One of them, by its name; by its number where only one has that. Raises UsageError."""
    given, worker = request.get("job"), request.get("worker")
    if not isinstance(given, (str, int)):
        raise UsageError("the request does not say which job")
    asked = str(given)
    name = asked if worker is None or "." in asked else f"{worker}.{asked}"
    there = jobs_of(server, await looked(server))
    having = [job for job in there if job["name"] == name or (worker is None and str(job["number"]) == asked)]
    if not having:
        raise UsageError(f"there is no job {asked}: `blockyard layer jobs` lists them")
    if len(having) > 1:
        raise UsageError(f"there are several jobs {asked}: say which, of {', '.join(job['name'] for job in having)}")
    return having[0]


async def cancel(server: Server, request: Request) -> None:
    """Have a job of a layer stop. What an array does by itself it still has to do: that is paused, and can be resumed."""
    job = await _job(server, request)
    if job["kind"] == "reshape":
        raise ControlError(
            "a reshape cannot be undone or left halfway: it can be paused (`blockyard layer pause`), and goes on later"
        )
    if job["number"] is None:
        await _rest(server, job, "pause")
        return
    home = job["name"].partition(".")[0]
    if home == CONTROL:
        server.making.find(job["number"]).cancel()
    for worker in server.supervisor.workers:
        if str(worker.number) == home:
            await worker.ask({"name": "cancel layer job", "job": job["number"]})


async def pause(server: Server, request: Request) -> dict[str, str]:
    """Have what an array does by itself rest until it is resumed."""
    return await _rest(server, await _job(server, request), "pause")


async def resume(server: Server, request: Request) -> dict[str, str]:
    """Go on with what was paused."""
    return await _rest(server, await _job(server, request), "resume")


async def _rest(server: Server, job: Job, action: str) -> dict[str, str]:
    if job["number"] is not None:
        raise ControlError(
            f"{job['kind']} of {job['subject']} cannot be paused, only stopped: rebuilds, reshapes and resyncs can"
        )
    asked = {"request": "act", "action": action, "options": {}, "path": job["place"]}
    return _plain(await server.supervisor.ask_volume(job["volume"], asked))


async def move(server: Server, request: Request) -> dict[str, Any]:
    """Begin to move a volume to another stack, while it is in use."""
    volume, text = _volume(server, request), request.get("stack")
    if not isinstance(text, str):
        raise UsageError("the request has no stack")
    try:
        wanted = understood(text, server.configuration.declared)
    except StackError as error:
        raise UsageError(str(error)) from None
    check_layer(server, wanted)
    stack = str(wanted.written)
    settled = server.settled.volumes
    moved = on_stack(settled[volume], stack)
    await asyncio.to_thread(check_claims, [*settled.values(), moved, *server.making.beneath()])
    return _begun(server, volume, await server.supervisor.ask_volume(volume, {"request": "move", "stack": stack}))


async def finish(server: Server, request: Request) -> dict[str, str]:
    """A volume has been moved: let go of the old stack, where the configuration is the server's own; else what is to be done."""
    volume = _volume(server, request)
    stack = (await server.supervisor.ask_volume(volume, {"request": "moved"}))["stack"]
    there = on_stack(server.settled.volumes[volume], stack)
    with contextlib.closing(State(server.options.state)) as state:
        state.keep_volume_uuids({identity_key(there): there.uuid})
    if server.managed is None:
        hint = f"{volume} is on both: let its configuration say stack = '{stack}', and reload; until then both are written to"
        return {"said": hint}

    def edit(configuration: Configuration) -> Configuration:
        wanted = on_stack(configuration.volumes[volume], stack)
        return replace(configuration, volumes={**configuration.volumes, volume: wanted})

    await server.change(edit, expected=None, who=str(request.get("who", "layer finish")))
    return {"said": f"{volume} is on {stack} now"}


def _volume(server: Server, request: Request) -> str:
    volume = request.get("volume")
    if not isinstance(volume, str) or volume not in server.configuration.volumes:
        raise UsageError(f"there is no volume {volume!r} in the configuration: `blockyard status` lists them")
    return volume


LAYER_COMMANDS = {
    "layer create": Command(create, Role.ADMIN),
    "layer move": Command(move, Role.ADMIN),
    "layer finish": Command(finish, Role.ADMIN),
    "layer": Command(layer, lambda request: _ROLES.get(str(request.get("request")), Role.ADMIN)),
    "layer jobs": Command(jobs, Role.VIEWER),
    "layer cancel": Command(cancel, Role.OPERATOR),
    "layer pause": Command(pause, Role.OPERATOR),
    "layer resume": Command(resume, Role.OPERATOR),
}
