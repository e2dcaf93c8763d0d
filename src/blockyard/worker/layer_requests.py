"""What control may ask of the layers of a volume: how they are, what can be done with them, and to do it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_origin, get_type_hints

from blockyard.block.actions import Action, unwatched
from blockyard.block.building import (
    Layer,
    build,
    creation,
    found,
    health,
    make,
    options_from,
    places,
    tree,
    understood,
    walk,
    written,
)
from blockyard.block.device import Device
from blockyard.block.moving import MovingDevice
from blockyard.block.records import RecordError
from blockyard.block.stack import Value, Word, listed
from blockyard.scsi.unit import LogicalUnit
from blockyard.worker.asking import number_in, text_in
from blockyard.worker.configuration import Volume
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.jobs import Cancelled, Job
from blockyard.worker.later import Answer, Later
from blockyard.worker.opening import current

log = logging.getLogger(__name__)


def show(inventory: Inventory, unit: LogicalUnit, request: Message) -> Answer:
    """The layers as a tree (block/building.py, tree)."""
    return Later(lambda: tree(unit.device), lambda shown: {"tree": shown})


def actions(inventory: Inventory, unit: LogicalUnit, request: Message) -> Answer:
    """What can be done with a layer: by name a text, and options with their types and defaults."""
    layer = found(unit.device, text_in(request, "path"))
    return {"layer": layer.label, "actions": {name: _described(each) for name, each in layer.actions().items()}}


def act(inventory: Inventory, unit: LogicalUnit, request: Message) -> Answer:
    """Carry out an action: at once, or as a job whose number is told."""
    name = text_in(request, "action")
    layer = layer_with(unit.device, text_in(request, "path"), name)
    action = layer.actions()[name]
    options = action_options(action, request.get("options") or {})
    if not action.long:
        return Later(lambda: action.run(options, unwatched), lambda said: {"said": said})

    def work(job: Job) -> str:
        job.unit = action.unit
        return action.run(options, job)

    return {"job": inventory.jobs.start(name, f"{text_in(request, 'volume')}: {layer.label}", work).number}


def layer_with(device: Device, path: str, action: str) -> Device:
    """The layer at `path`; without one, the only one that can do that. Raises LookupError."""
    if path:
        layer = found(device, path)
        if action in layer.actions():
            return layer
        can = ", ".join(layer.actions()) or "nothing"
        raise LookupError(f"{layer.label} cannot {action}: there is {can}")
    able = [each for each in walk(device) if action in each.actions()]
    if len(able) == 1:
        return able[0]
    if able:
        raise LookupError(f"{len(able)} layers can {action}: say which one, by its place or kind, as in VOLUME/0/1")
    there = sorted({name for each in walk(device) for name in each.actions()})
    raise LookupError(f"no layer can {action}: there is {', '.join(there) or 'nothing that can be done'}")


def action_options(action: Action, given: object) -> Any:
    """Raises ValueError."""
    if not isinstance(given, dict):
        raise ValueError("options are a table")
    lists = {name for name, hint in get_type_hints(action.options).items() if get_origin(hint) is tuple}
    try:
        return options_from(
            action.options, {str(name): _value(value, of_many=name in lists) for name, value in given.items()}
        )
    except RecordError as error:
        raise ValueError(str(error)) from None


def _value(value: object, *, of_many: bool) -> Value:
    if not of_many:
        return Word(_text(value))
    return tuple(Word(each, True) for each in (map(str, value) if isinstance(value, list) else listed(_text(value))))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def described_options(kind: type) -> dict[str, Any]:
    """The fields of a dataclass of options: types by their names, and defaults where there are any."""
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in fields(kind):
        found[field.name] = {"type": getattr(hints[field.name], "__name__", str(hints[field.name])).lower()}
        if field.default is not MISSING:
            found[field.name]["default"] = field.default
    return found


def _described(action: Action) -> dict[str, Any]:
    return {"text": action.text, "long": action.long, "options": described_options(action.options)}


def make_layer(inventory: Inventory, request: Message) -> Answer:
    """Make a layer that stands on volumes of pools (Kind.create): a job, which control waits for."""
    layer, opening = creation(text_in(request, "stack")), inventory.opening_for(Volume("what is to be made"))

    def work(job: Job) -> str:
        job.unit = layer.kind.unit
        return make(layer, opening, job)

    job = inventory.jobs.start("create", str(layer.written), work)
    job.claims = _claimed(layer)
    return {"job": job.number}


def one_job(inventory: Inventory, request: Message) -> Message:
    """One of the jobs of layers, if it is one of this process."""
    number = number_in(request, "job")
    return {"found": next((job.describe() for job in inventory.jobs if job.number == number), None)}


def move(inventory: Inventory, unit: LogicalUnit, request: Message) -> Answer:
    """Begin a job that makes another stack a copy of what a volume stands on, under all that is written."""
    volume, text = text_in(request, "volume"), text_in(request, "stack")
    if isinstance(current(unit), MovingDevice):
        raise ValueError(f"{volume} is being moved already")
    opening = inventory.opening(volume)

    def begin(new: Device) -> Message:
        begun, withdrawn = threading.Event(), threading.Event()
        made: list[MovingDevice] = []
        failures: list[Exception | None] = []

        def put(old: Device) -> Device:
            if isinstance(old, MovingDevice):
                raise ValueError(f"{volume} is being moved already")
            moving = MovingDevice(old, new)
            moving.label = "moving"
            made.append(moving)
            if withdrawn.is_set():
                moving.give_up()
            return moving

        def done(error: Exception | None) -> None:
            if error is not None:
                _close(new)
            failures.append(error)
            begun.set()

        def work(job: Job) -> str:
            job.unit = "bytes"
            try:
                while not begun.wait(1):
                    job(0, new.size)
            except Cancelled:
                withdrawn.set()  # before the look: who puts it there looks after having done so
                for moving in made:
                    moving.give_up()
                raise
            if failures[0] is not None:
                raise failures[0]
            return made[0].copy(job)

        try:
            job = inventory.jobs.start("move", volume, work)  # first: where another one is under way nothing changes
        except (ValueError, OSError):
            _close(new)
            raise
        job.claims = _claimed(wanted)
        inventory.opener.replace(unit, put, done)
        return {"job": job.number}

    wanted = understood(text, {})
    return Later(lambda: build(wanted, opening), begin)


def _close(device: Device) -> None:
    """Nothing was written to it."""
    try:
        device.close()
    except OSError as error:
        log.error("%s: closing it has failed: %s", device.label, error)


def _claimed(layer: Layer) -> frozenset[str]:
    return frozenset(claim.what for claim in layer.claims())


def moved(inventory: Inventory, unit: LogicalUnit, request: Message) -> Answer:
    """Where a volume has been moved to, as far as all that it has is there."""
    moving = current(unit)
    if not isinstance(moving, MovingDevice) or not moving.in_step:
        raise ValueError(
            f"{text_in(request, 'volume')} has not been moved, or not yet: `blockyard layer move` does that"
        )
    return {"stack": written(moving.new)}


def refresh(inventory: Inventory, request: Message) -> Answer:
    """Look at the sizes of stacks again: what they stand on may have grown. Tells which have, by name, before and after."""
    stacks = inventory.stacks
    before = {name: unit.device.size for name, unit in stacks.items()}

    def look() -> None:
        for unit in stacks.values():
            unit.device.refresh()

    def tell(result: object) -> Message:
        grown = {name: unit for name, unit in stacks.items() if unit.device.size != before[name]}
        for unit in grown.values():
            unit.capacity_changed()
        return {"sizes": {name: [before[name], unit.device.size] for name, unit in grown.items()}}

    return Later(look, tell)


def jobs(inventory: Inventory, request: Message) -> Message:
    """The jobs of layers; and of each stack how it is, and what its layers do by themselves."""
    stacks = {name: condition(unit.device) for name, unit in inventory.stacks.items()}
    return {"jobs": [job.describe() for job in inventory.jobs], "stacks": stacks}


def condition(device: Device) -> Message:
    """How a stack is, why it is not well, and the work that goes on in it until it is done."""
    troubles, work = [], []
    for place, each in places(device):
        report: dict[str, Any] = each.report()
        if report.get("health", "ok") != "ok" and report.get("text"):
            troubles.append(str(report["text"]))
        if "work" in report:
            done, total = report["progress"]
            work.append({"layer": each.label, "place": place, "done": done, "total": total, **report["work"]})
    return {"health": health(device), "text": "; ".join(dict.fromkeys(troubles)), "work": work}


def cancel(inventory: Inventory, request: Message) -> Message:
    """Have a job of a layer stop; whether there is one of that number here."""
    number = number_in(request, "job")
    for job in inventory.jobs:
        if job.number == number:
            job.cancel()
            return {"cancelled": True}
    return {"cancelled": False}


LAYER_REQUESTS: Mapping[str, Callable[[Inventory, LogicalUnit, Message], Answer]] = {
    "show": show,
    "actions": actions,
    "act": act,
    "move": move,
    "moved": moved,
}


def layer(inventory: Inventory, request: Message) -> Answer:
    """One of the table above, of the layers of a volume."""
    unit = inventory.units.get(text_in(request, "volume"))
    if unit is None:
        raise LookupError(f"the volume {request['volume']} is not open")
    if request["request"] not in LAYER_REQUESTS:
        raise LookupError(f"layers know no request {request['request']!r}")
    return LAYER_REQUESTS[request["request"]](inventory, unit, request)
