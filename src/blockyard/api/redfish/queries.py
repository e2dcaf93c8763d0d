"""What a query asks of an answer (DSP0266 §7.3): less of it, a part of a collection, or what it refers to within it.

It is done to the answers of the routes, whatever they are: what is expanded is asked for like anything else, by who asks.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from blockyard.api.redfish.errors import FIELDS, Told, answer

MAX_LEVELS = 2
FEATURES = {  # what the service root says of this
    "ExpandQuery": {"ExpandAll": True, "Levels": True, "Links": True, "MaxLevels": MAX_LEVELS, "NoLinks": True},
    "SelectQuery": True,
    "OnlyMemberQuery": True,
    "TopSkipQuery": True,
    "FilterQuery": False,
    "ExcerptQuery": False,
}
_MOST = 1000  # resources that one request may expand
_KNOWN = frozenset({"$select", "$expand", "$top", "$skip", "only"})
_LINKED = {"*": (True, True), ".": (True, False), "~": (False, True)}  # what is expanded: all but in Links, in Links
_JSON = ("application/json", "application/merge-patch+json")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Query:
    """What is wanted."""

    select: tuple[str, ...] = ()
    expand: str = ""
    levels: int = 1
    top: int | None = None
    skip: int = 0
    only: bool = False


def parse(text: str) -> Query:
    """Raises Told for what is not supported, and for what makes no sense."""
    found = dict(parse_qsl(text, keep_blank_values=True))
    for name in found:
        if name.startswith("$") and name not in _KNOWN:
            raise Told(HTTPStatus.NOT_IMPLEMENTED, "QueryNotSupported", f"{name} is not supported")
    if found.get("only"):
        raise _senseless("only", "it has no value")
    if "only" in found and "$expand" in found:
        raise Told(HTTPStatus.BAD_REQUEST, "QueryCombinationInvalid", "only and $expand do not go together")
    expand, levels = _expand(found["$expand"]) if "$expand" in found else ("", 1)
    select = tuple(each.strip() for each in found.get("$select", "").split(",") if each.strip())
    if "$select" in found and not select:
        raise _senseless("$select", "name properties")
    top = _number("$top", found["$top"]) if "$top" in found else None
    return Query(select, expand, levels, top, _number("$skip", found.get("$skip", "0")), "only" in found)


def _expand(text: str) -> tuple[str, int]:
    kind, bracket, rest = text.partition("(")
    if kind not in _LINKED:
        raise _senseless("$expand", "it is *, . or ~, with ($levels=N) where it is to be more than one")
    if not bracket:
        return kind, 1
    if not (rest.startswith("$levels=") and rest.endswith(")")):
        raise _senseless("$expand", "what stands in brackets is $levels=N")
    levels = _number("$expand", rest.removeprefix("$levels=").removesuffix(")"))
    if not 1 <= levels <= MAX_LEVELS:
        raise _senseless("$expand", f"$levels is 1 to {MAX_LEVELS}")
    return kind, levels


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise _senseless(name, f"{text!r} is not a number from 0 on")
    return int(text)


def _senseless(name: str, why: str) -> Told:
    return Told(HTTPStatus.BAD_REQUEST, "QueryParameterValueFormatError", f"{name}: {why}", "", name)


class Queries:
    """Before an application (ASGI)."""

    def __init__(self, app: Any, streams: frozenset[str]) -> None:
        self._app = app
        self._streams = streams  # paths whose answers do not end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except Told as refusal:
            told = answer(refusal.status_code, refusal.detail, None, refusal.key, refusal.arguments)
            await told(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Told."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        _check_fields(scope["method"], headers)
        if scope["method"] == "POST" and scope["path"].endswith("/Members"):  # the same as of the collection (§7.9)
            scope = {**scope, "path": scope["path"].removesuffix("/Members")}
        wanted = parse(scope["query_string"].decode("latin-1")) if scope["method"] in ("GET", "HEAD") else Query()
        plain = wanted == Query() and scope["method"] != "HEAD"
        if plain or scope["path"] in self._streams:
            await self._app(scope, receive, send)
            return
        status, fields, body = await self._get(scope, scope["path"])
        if status == HTTPStatus.OK and wanted != Query() and isinstance(found := _json(body), dict):
            body = json.dumps(await self._wanted(scope, found, wanted)).encode()
        fields = [(name, value) for name, value in fields if name != b"content-length"]
        await send({"type": "http.response.start", "status": status,
                    "headers": [*fields, (b"content-length", str(len(body)).encode())]})  # fmt: skip
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _get(self, scope: Scope, path: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """What the application answers."""
        status, fields, parts = 0, [], []

        async def nothing() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def take(message: Message) -> None:
            nonlocal status, fields
            if message["type"] == "http.response.start":
                status, fields = message["status"], list(message["headers"])
            else:
                parts.append(message.get("body", b""))

        inner = {**scope, "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
        await self._app({**inner, "state": dict(scope["state"])}, nothing, take)
        return status, fields, b"".join(parts)

    async def _wanted(self, scope: Scope, found: dict[str, Any], query: Query) -> dict[str, Any]:
        """Raises Told."""
        members = found.get("Members")
        if not isinstance(members, list):
            if query.only or query.top is not None or query.skip:
                raise Told(HTTPStatus.BAD_REQUEST, "QueryNotSupportedOnResource", "this is not a collection")
        else:
            if query.only and len(members) == 1:
                found = _json((await self._get(scope, members[0]["@odata.id"]))[2]) or found
            found = _part(found, members, query)
        if not query.expand:
            return _selected(found, query.select)
        budget = [_MOST]
        return {
            name: await self._expanded(scope, name, value, query, query.levels, budget, in_links=False)
            for name, value in found.items()
        }

    async def _expanded(
        self, scope: Scope, name: str, value: Any, query: Query, levels: int, budget: list[int], *, in_links: bool
    ) -> Any:
        """A property with what it refers to. Raises Told."""
        in_links = in_links or name == "Links"
        if isinstance(value, list):
            return [await self._expanded(scope, name, each, query, levels, budget, in_links=in_links) for each in value]
        if not isinstance(value, dict):
            return value
        if value.keys() != {"@odata.id"}:
            return {
                key: await self._expanded(scope, key, each, query, levels, budget, in_links=in_links)
                for key, each in value.items()
            }
        if not _LINKED[query.expand][in_links] or value["@odata.id"] in self._streams:
            return value
        budget[0] -= 1
        if budget[0] < 0:
            raise Told(HTTPStatus.BAD_REQUEST, "QueryCombinationInvalid", f"more than {_MOST} resources: add $top")
        status, _, body = await self._get(scope, value["@odata.id"])
        found = _json(body)
        if status != HTTPStatus.OK or not isinstance(found, dict):
            return value  # it has gone meanwhile, or is not for who asks
        found = _selected(found, query.select)
        if levels == 1:
            return found
        return {
            key: await self._expanded(scope, key, each, query, levels - 1, budget, in_links=False)
            for key, each in found.items()
        }


def _check_fields(method: str, headers: dict[str, str]) -> None:
    """That it is what can be understood, and answered so (§8.1). Raises Told."""
    if headers.get("odata-version", FIELDS["odata-version"]) != FIELDS["odata-version"]:
        raise Told(HTTPStatus.PRECONDITION_FAILED, "HeaderInvalid", "this is OData 4.0", "OData-Version")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method in ("POST", "PATCH") and kind and kind not in _JSON:
        raise Told(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "HeaderInvalid", "what comes is JSON", "Content-Type")


def _part(found: dict[str, Any], members: list[Any], query: Query) -> dict[str, Any]:
    """A page of a collection; the number of all members stays as it is (§7.3.2)."""
    if query.top is None and not query.skip:
        return found
    end = len(members) if query.top is None else query.skip + query.top
    page = {**found, "Members": members[query.skip : end]}
    if query.top and end < len(members):
        rest = urlencode({"$skip": end, "$top": query.top}, safe="$")
        page["Members@odata.nextLink"] = f"{found['@odata.id']}?{rest}"
    return page


def _selected(found: dict[str, Any], select: tuple[str, ...]) -> dict[str, Any]:
    """The properties that are named, as Name or Outer/Inner, and those that say what it is."""
    if not select:
        return found
    kept = {name: value for name, value in found.items() if name.startswith("@odata.")}
    wanted: dict[str, list[str]] = {}  # by the properties that there are, what of them
    for path in select:
        name, _, inner = path.partition("/")
        if name in found:
            wanted.setdefault(name, []).append(inner)
    for name, paths in wanted.items():
        value = found[name]
        kept[name] = value if "" in paths or not isinstance(value, dict) else _selected(value, tuple(paths))
    return kept


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
