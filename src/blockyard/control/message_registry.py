"""The catalogue of events as a message registry of Redfish, and events as Redfish sends them (DSP0266 §11.3, §12.1).

A kind of event is a message whose only argument is the event's text. Kinds are only ever added: their number is the minor
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockyard.control.catalogue import CATALOGUE, Kind, Severity

PREFIX = "Blockyard"
VERSION = f"1.{len(CATALOGUE)}.0"
SEVERITIES = {Severity.INFO: "OK", Severity.WARNING: "Warning", Severity.ERROR: "Critical"}


def message_id(what: str) -> str:
    """Of a kind of event."""
    return f"{PREFIX}.{VERSION.rpartition('.')[0]}.{_key(what)}"


def kind_of(message: str) -> str | None:
    """The kind of event that a MessageId is of, whichever version of the registry it names; None for another one."""
    prefix, _, key = message.rpartition(".")
    if prefix.partition(".")[0] not in ("", PREFIX):
        return None
    return next((what for what in CATALOGUE if _key(what) == key), None)


def registry() -> dict[str, object]:
    """The registry, as a resource of the type MessageRegistry."""
    return {
        "@odata.type": "#MessageRegistry.v1_6_0.MessageRegistry",
        "Id": f"{PREFIX}.{VERSION}",
        "Name": "Blockyard Message Registry",
        "Language": "en",
        "Description": "The events of Blockyard.",
        "RegistryPrefix": PREFIX,
        "RegistryVersion": VERSION,
        "OwningEntity": "Blockyard",
        "Messages": {_key(kind.what): _message(kind) for kind in CATALOGUE.values()},
    }


def payload(event: Mapping[str, Any], context: str = "") -> dict[str, object]:
    """What is sent of an event, as Event.as_dict has it: a resource of the type Event with one record."""
    record: dict[str, object] = {
        "MemberId": "0",
        "EventId": str(event["id"]),
        "EventTimestamp": event["time"],
        "MessageId": message_id(event["what"]),
        "Message": event["text"],
        "MessageArgs": [event["text"]],
        "MessageSeverity": SEVERITIES[event["severity"]],
    }
    if event["what"] in CATALOGUE:
        record["Resolution"] = CATALOGUE[event["what"]].action
    head = {"@odata.type": "#Event.v1_9_0.Event", "Id": str(event["id"]), "Name": "Blockyard event"}
    return {**head, "Context": context, "Events": [record]}


def _key(what: str) -> str:
    return "".join(word.capitalize() for word in what.split("-"))


def _message(kind: Kind) -> dict[str, object]:
    return {
        "Description": kind.meaning,
        "Message": "%1",
        "MessageSeverity": SEVERITIES[kind.severity],
        "NumberOfArgs": 1,
        "ParamTypes": ["string"],
        "ArgDescriptions": ["What has happened, in words."],
        "Resolution": kind.action,
    }
