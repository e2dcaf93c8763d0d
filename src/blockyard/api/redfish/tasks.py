"""Long work: jobs as tasks (DSP0266 §12.2). Whoever begins one gets 202, and where to ask how far it is."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Request, Response

from blockyard.api.context import Context
from blockyard.api.redfish.errors import Told, message
from blockyard.api.redfish.resources import OK, collection, link, new_routes, nothing, reply, resource, uri
from blockyard.api.routes.jobs import Job, cancel_job, get_job, list_jobs
from blockyard.api.security import Here, Who
from blockyard.control.events import stamp
from blockyard.control.roles import Role

routes = new_routes()

SERVICE = ("TaskService",)
_TASKS, _MONITORS = (*SERVICE, "Tasks"), (*SERVICE, "TaskMonitors")
_TASK, _MONITOR = "/v1/TaskService/Tasks/{task}", "/v1/TaskService/TaskMonitors/{task}"
_STATES = {
    "running": "Running",
    "paused": "Suspended",
    "done": "Completed",
    "failed": "Exception",
    "cancelled": "Cancelled",
}


@routes.get("/v1/TaskService", Role.VIEWER, name="redfish_task_service")
async def task_service(request: Request) -> Response:
    """Where long work is."""
    more = {"ServiceEnabled": True, "CompletedTaskOverWritePolicy": "Oldest", "Tasks": link(uri(*_TASKS)), "Status": OK}
    return reply(request, resource("TaskService", uri(*SERVICE), "TaskService", "Tasks", **more))


@routes.get("/v1/TaskService/Tasks", Role.VIEWER, name="redfish_tasks")
async def tasks(request: Request, here: Here) -> Response:
    """What goes on, and what is over since not long ago."""
    members = [uri(*_TASKS, job.id) for job in await list_jobs(here) if "/" not in job.id]
    return reply(request, collection("Task", uri(*_TASKS), members))


@routes.get(_TASK, Role.VIEWER, name="redfish_task")
async def task_(task: str, request: Request, here: Here) -> Response:
    """One of them."""
    return reply(request, _task(await get_job(task, here)))


@routes.delete(_TASK, Role.OPERATOR, status_code=204, name="redfish_cancel_task")
async def cancel_task(task: str, request: Request, here: Here, who: Who) -> Response:
    """Have it stop."""
    await cancel_job(task, here, who)
    return nothing(request)


@routes.get(_MONITOR, Role.VIEWER, name="redfish_task_monitor")
async def task_monitor(task: str, request: Request, here: Here) -> Response:
    """202 as long as it goes on, then how it has ended."""
    job = await get_job(task, here)
    if job.state in ("running", "paused"):
        return _go_on(request, job)
    if job.state != "done":
        raise Told(HTTPStatus.CONFLICT, "GeneralError", f"{job.kind} of {job.subject} {job.state}: {job.result}")
    return reply(request, _task(job))


@routes.delete(_MONITOR, Role.OPERATOR, status_code=204, name="redfish_cancel_task_monitor")
async def cancel_by_monitor(task: str, request: Request, here: Here, who: Who) -> Response:
    """Have it stop."""
    return await cancel_task(task, request, here, who)


async def accepted(request: Request, here: Context, job: str) -> Response:
    """The answer to what has begun a job."""
    return _go_on(request, await get_job(job, here))


def _go_on(request: Request, job: Job) -> Response:
    where = uri(*_MONITORS, job.id)
    return reply(request, _task(job), status=HTTPStatus.ACCEPTED, fields={"location": where, "retry-after": "1"})


def _task(job: Job) -> dict[str, Any]:
    bad = job.state == "failed"
    more: dict[str, Any] = {
        "TaskState": _STATES.get(job.state, "Running"),
        "TaskStatus": "Critical" if bad else "OK",
        "TaskMonitor": uri(*_MONITORS, job.id),
        "Messages": [],
    }
    if job.began is not None:
        more["StartTime"] = stamp(job.began)
    if job.total:
        more["PercentComplete"] = min(100 * job.done // job.total, 100)
    if job.ended is not None:
        more["EndTime"] = stamp(job.ended)
        text = job.result or f"{job.kind} of {job.subject} {job.state}"
        key = "Success" if job.state == "done" else "GeneralError"
        more["Messages"] = [message(key, text, "Critical" if bad else "OK")]
    return resource("Task", uri(*_TASKS, job.id), job.id, f"{job.kind} of {job.subject}", **more)
