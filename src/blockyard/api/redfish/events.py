"""EventService: events are sent to who subscribes, by POST or along a stream (DSP0266 §12.1, §12.5).

A subscription by POST is a webhook of the configuration (docs/notifications.md), whose form is that of Redfish: it outlives
restarts, and what could not be delivered is tried again. A stream is one for as long as it is open.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from blockyard.api.configured import change
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.hub import Subscription
from blockyard.api.problems import Refused, not_found
from blockyard.api.redfish.errors import FIELDS
from blockyard.api.redfish.resources import (
    OK,
    Body,
    check_change,
    check_match,
    collection,
    link,
    new_routes,
    nothing,
    refuse_others,
    reply,
    resource,
    uri,
    wrong,
)
from blockyard.api.schemas import whole
from blockyard.api.security import Here, Who
from blockyard.control.catalogue import Severity
from blockyard.control.message_registry import PREFIX, SEVERITIES, kind_of, message_id, payload
from blockyard.control.roles import Role
from blockyard.worker.configuration import Configuration
from blockyard.worker.receivers import REDFISH, Webhook

routes = new_routes()

SERVICE = ("EventService",)
STREAM = uri(*SERVICE, "SSE")
_SUBSCRIPTIONS = (*SERVICE, "Subscriptions")
_SUBSCRIPTION = "/v1/EventService/Subscriptions/{subscription}"
_RETRIES = "RetryForeverWithBackoff"
_Health = Literal["OK", "Warning", "Critical"]


class NewSubscription(Body):
    Destination: str = Field(max_length=4096)
    Protocol: Literal["Redfish"]
    Context: str = Field("", max_length=256)
    SubscriptionType: Literal["RedfishEvent"] = "RedfishEvent"
    EventFormatType: Literal["Event"] = "Event"
    DeliveryRetryPolicy: Literal["RetryForeverWithBackoff", "RetryForever"] = "RetryForeverWithBackoff"
    RegistryPrefixes: list[str] = Field([], max_length=16)
    MessageIds: list[str] = Field([], max_length=256)
    Severities: list[_Health] = Field([], max_length=3)
    VerifyCertificate: Literal[True] = True


class SubscriptionChange(Body):
    Context: str | None = Field(None, max_length=256)


class TestEvent(Body):
    """What a client would like to be sent: only the message is heeded."""

    __test__ = False  # it is none of pytest's
    Message: str = Field("", max_length=1000)


@routes.get("/v1/EventService", Role.VIEWER, name="redfish_event_service")
async def event_service(request: Request) -> Response:
    """How one subscribes."""
    more = {
        "ServiceEnabled": True,
        "EventFormatTypes": ["Event"],
        "RegistryPrefixes": [PREFIX],
        "Severities": list(SEVERITIES.values()),
        "ServerSentEventUri": STREAM,
        "Subscriptions": link(uri(*_SUBSCRIPTIONS)),
        "Actions": {
            "#EventService.SubmitTestEvent": {"target": f"{uri(*SERVICE)}/Actions/EventService.SubmitTestEvent"}
        },
        "Status": OK,
    }
    return reply(request, resource("EventService", uri(*SERVICE), "EventService", "Events", **more))


@routes.post(
    "/v1/EventService/Actions/EventService.SubmitTestEvent", Role.OPERATOR, status_code=204, name="redfish_test_event"
)
async def submit_test_event(test: TestEvent, request: Request, here: Here, who: Who) -> Response:
    """Record an event that all who have subscribed get, whatever they have subscribed to."""
    text = f"{who.name} tries whether events arrive" + (f": {test.Message}" if test.Message else "")
    here.server.gate.events.record("test", text, who=who.name)
    return nothing(request)


@routes.get("/v1/EventService/Subscriptions", Role.VIEWER, name="redfish_subscriptions")
async def subscriptions(request: Request, here: Here) -> Response:
    """All of them, streams too."""
    names = [*_configured(here.server.configuration), *_streams(here)]
    members = [uri(*_SUBSCRIPTIONS, name) for name in names]
    return reply(request, collection("EventDestination", uri(*_SUBSCRIPTIONS), members))


@routes.get(_SUBSCRIPTION, Role.VIEWER, name="redfish_subscription")
async def subscription_(subscription: str, request: Request, here: Here) -> Response:
    """One of them."""
    return _tell(request, here, subscription)


@routes.post("/v1/EventService/Subscriptions", Role.ADMIN, status_code=201, name="redfish_subscribe")
async def subscribe(new: NewSubscription, request: Request, here: Here, who: Who) -> Response:
    """Have events sent somewhere: by HTTPS, or by HTTP within this machine."""
    refuse_others(new)
    if not set(new.RegistryPrefixes) <= {PREFIX}:
        raise wrong("RegistryPrefixes", f"events are of {PREFIX}")
    kinds = [kind_of(each) for each in new.MessageIds]
    if None in kinds:
        raise wrong("MessageIds", f"each is one of the registry {PREFIX}")
    try:
        receiver = Webhook(
            name=f"redfish-{secrets.token_hex(4)}",
            url=new.Destination,
            form=REDFISH,
            context=new.Context,
            kinds=tuple(kind for kind in kinds if kind),
            severity=_least(new.Severities),
        )
    except ValueError as error:
        raise wrong("Destination", str(error)) from None

    def edit(configuration: Configuration) -> Configuration:
        return _with(configuration, {**configuration.events.webhook, receiver.name: receiver})

    await change(here, who, edit)
    return _tell(request, here, receiver.name, HTTPStatus.CREATED)


@routes.patch(_SUBSCRIPTION, Role.ADMIN, name="redfish_change_subscription")
async def change_subscription(
    subscription: str, new: SubscriptionChange, request: Request, here: Here, who: Who, if_match: IfMatch = None
) -> Response:
    """Another context."""

    def edit(configuration: Configuration) -> Configuration:
        old = _configured(configuration).get(subscription)
        if old is None:
            raise not_found(f"subscription {subscription!r} that can be changed")
        check_match(if_match, whole(old))
        check_change(new)
        changed = replace(old, context=old.context if new.Context is None else new.Context)
        return _with(configuration, {**configuration.events.webhook, subscription: changed})

    await change(here, who, edit)
    return _tell(request, here, subscription, body=new)


@routes.delete(_SUBSCRIPTION, Role.ADMIN, status_code=204, name="redfish_unsubscribe")
async def unsubscribe(subscription: str, request: Request, here: Here, who: Who, if_match: IfMatch = None) -> Response:
    """Send nothing more. A stream ends."""
    stream = _streams(here).get(subscription)
    if stream is not None:
        stream.end()
        here.hub.leave(stream)
        return nothing(request)

    def edit(configuration: Configuration) -> Configuration:
        if subscription not in _configured(configuration):
            raise not_found(f"subscription {subscription!r}")
        check_match(if_match, whole(configuration.events.webhook[subscription]))
        rest = {name: each for name, each in configuration.events.webhook.items() if name != subscription}
        return _with(configuration, rest)

    await change(here, who, edit)
    return nothing(request)


@routes.get("/v1/EventService/SSE", Role.VIEWER, response_class=StreamingResponse, name="redfish_stream")
async def stream(request: Request, here: Here, who: Who) -> StreamingResponse:
    """Events as they come; whoever comes again says which one was the last, by Last-Event-ID."""
    after = request.headers.get("last-event-id", "")
    subscription = here.hub.subscribe(
        who, int(after) if after.isascii() and after.isdecimal() and len(after) < 18 else None, _message
    )
    if subscription is None:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many streams are open", {"retry-after": "10"})

    async def messages() -> AsyncIterator[bytes]:
        try:
            async for message in subscription:
                yield message
        finally:
            here.hub.leave(subscription)

    headers = {**FIELDS, "x-accel-buffering": "no"}
    return StreamingResponse(messages(), media_type="text/event-stream", headers=headers)


def _message(name: str, found: Any, number: int | None) -> bytes:
    """An event as a stream has it; of all else that the hub tells, nothing."""
    if name != "event":
        return b""
    return f"id: {number}\ndata: {json.dumps(payload(found), separators=(',', ':'))}\n\n".encode()


# ---- what is configured


def _configured(configuration: Configuration) -> dict[str, Webhook]:
    return {
        name: each for name, each in configuration.events.webhook.items() if each.form == REDFISH and "/" not in name
    }


def _with(configuration: Configuration, webhooks: dict[str, Webhook]) -> Configuration:
    return replace(configuration, events=replace(configuration.events, webhook=webhooks))


def _streams(here: Context) -> dict[str, Subscription]:
    return {f"sse-{each.id}": each for each in here.hub.watching(_message)}


def _least(severities: list[_Health]) -> str:
    """The least severity that is wanted: of what is worse, nothing is left out. Raises Refused."""
    for least in Severity:
        worse = {SEVERITIES[each] for each in Severity if each.rank >= least.rank}
        if set(severities) == worse or not severities:
            return least
    raise wrong("Severities", "whoever wants some events wants those that are worse, too")


def _tell(request: Request, here: Context, name: str, status: int = 200, body: Body | None = None) -> Response:
    where = uri(*_SUBSCRIPTIONS, name)
    common = {"Protocol": "Redfish", "EventFormatType": "Event", "Status": OK}
    if name in _streams(here):
        more: dict[str, Any] = {"Destination": None, "Context": "", "SubscriptionType": "SSE"}
        return reply(request, resource("EventDestination", where, name, "Stream", **common, **more))
    found = _configured(here.server.configuration).get(name)
    if found is None:
        raise not_found(f"subscription {name!r}")
    least = Severity(found.severity)
    more = {
        "Destination": found.url or None,
        "Context": found.context,
        "SubscriptionType": "RedfishEvent",
        "DeliveryRetryPolicy": _RETRIES,
        "RegistryPrefixes": [PREFIX],
        "MessageIds": [message_id(kind) for kind in found.kinds],
        "Severities": [SEVERITIES[each] for each in Severity if each.rank >= least.rank],
        "VerifyCertificate": True,
    }
    answer = resource("EventDestination", where, name, "Subscription", **common, **more)
    return reply(request, answer, whole(found), status, body, steady=True)
