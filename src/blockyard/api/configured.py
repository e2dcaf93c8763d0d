"""Changes of what is configured: each object is a record in a table of the Configuration, and is changed like any other.

PUT makes it or puts it in the place of the old one, PATCH merges into it (RFC 7396), DELETE takes it out. Each is one change of
the configuration, which is served when the answer comes, or was refused as a whole. The ETag is looked at in the midst of that,
so that of two who change the same thing at a time one is told.
"""

# No postponed annotations: FastAPI has to see those of functions that are made here.

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from operator import attrgetter
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Path, Request, Response

from blockyard.api import etags, schemas
from blockyard.api.context import Context
from blockyard.api.etags import Conditional, IfMatch
from blockyard.api.problems import Fault, Refused, not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.block import records
from blockyard.block.records import RecordError
from blockyard.control.roles import Identity, Role
from blockyard.worker.configuration import Configuration

_MERGE = "application/merge-patch+json"


def _as_it_is(name: str) -> str:
    return name


@dataclass(frozen=True)
class Table:
    """Where objects of a kind are in the configuration, and at which path: `{parameter}` in it is the key."""

    name: str  # the field of Configuration, or one of a field of it, as events.webhook
    kind: type
    noun: str
    path: str
    parameter: str
    normal: Callable[[str], Any] = _as_it_is  # the key in its normal form; raises ValueError
    paths: tuple[str, ...] = ()  # fields that are paths: from where a relative one would begin nobody could say

    def records(self, configuration: Configuration) -> dict[Any, Any]:
        """All that are in it, by their keys."""
        found: dict[Any, Any] = attrgetter(self.name)(configuration)
        return found

    def key(self, text: str) -> Any:
        """Raises Refused for what cannot be one."""
        try:
            return self.normal(text)
        except ValueError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"{self.parameter}: {error}") from None

    def read(self, key: Any, data: Any) -> Any:
        """The record that plain data makes. Raises Refused."""
        if not isinstance(data, dict):
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"a {self.noun} is a JSON object")
        named = isinstance(key, str) and "name" in self.kind.__annotations__
        try:
            if "name" in data:
                raise RecordError("name", "that stands in the path")
            for field in self.paths:
                if isinstance(data.get(field), str) and data[field] and not data[field].startswith("/"):
                    raise RecordError(field, "a path is absolute here, from / on")
            return records.read(self.kind, {"name": key, **data} if named else data)
        except RecordError as error:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                str(error),
                errors=[Fault(at=f"body.{error.at}".rstrip("."), problem=error.problem)],
            ) from None


async def change(here: Context, who: Identity, edit: Callable[[Configuration], Configuration]) -> int:
    """Have another configuration served; the number of its revision. Raises ControlError, or whatever `edit` does."""
    if here.server.managed is None:
        raise Refused(HTTPStatus.CONFLICT, here.server.elsewhere())
    return await here.server.change(edit, expected=None, who=who.name)


def current(here: Context, table: Table, key: Any) -> Any:
    """The record; None where there is none."""
    return table.records(here.server.configuration).get(key)


def described(here: Context, table: Table, key: Any, response: Response | None = None) -> dict[str, Any] | None:
    """What is configured of an object, for an answer, which carries its ETag then; None where it is not configured."""
    record = current(here, table, key)
    if record is None:
        return None
    if response is not None:
        etags.mark(response, schemas.whole(record))
    found: dict[str, Any] = schemas.whole(record)
    return found


class Told(Protocol):
    """An object as an answer tells it: with what is configured of it, if it is configured by itself."""

    @property
    def name(self) -> str: ...
    @property
    def configuration(self) -> dict[str, Any] | None: ...


T = TypeVar("T", bound=Told)


def find(all_of_them: Iterable[T], table: Table, name: str, response: Response) -> T:
    """The one of that name, for an answer, which carries the ETag of what is configured of it. Raises Refused."""
    for each in all_of_them:
        if each.name == name:
            if each.configuration is not None:
                etags.mark(response, each.configuration)
            return each
    raise not_found(f"{table.noun} {name!r}")


def add_routes(routes: Routes, table: Table, role: Role = Role.ADMIN) -> None:
    """PUT, PATCH and DELETE for the objects of a table."""
    Key = Annotated[str, Path(alias=table.parameter, max_length=256)]  # noqa: N806
    answer = {"content": {"application/json": {"schema": schemas.of(table.kind)}}}
    told = {200: {"description": "as it is now", **answer}, 201: {"description": "made", **answer}}

    @routes.put(
        table.path, role, name=f"put_{table.noun.replace(' ', '_')}", body=schemas.of(table.kind),
        responses=told,
        text=f"Make a {table.noun}, or put another in the place of the one that there is.",
    )  # fmt: skip
    async def put(
        name: Key,
        request: Request,
        response: Response,
        here: Here,
        who: Who,
        wanted: Conditional,
    ) -> dict[str, Any]:
        key = table.key(name)
        new = table.read(key, await body(request))
        made = False

        def edit(configuration: Configuration) -> Configuration:
            nonlocal made
            old = table.records(configuration).get(key)
            wanted.check(None if old is None else schemas.whole(old))
            made = old is None
            return _with(configuration, table, key, new)

        await change(here, who, edit)
        response.status_code = 201 if made else 200
        return described(here, table, key, response) or {}

    @routes.patch(
        table.path, role, name=f"change_{table.noun.replace(' ', '_')}", body=_optional(schemas.of(table.kind)), media=_MERGE,
        responses={200: told[200]},
        text=f"Change what is said of a {table.noun}: a merge patch (RFC 7396), null for what is to have its default.",
    )  # fmt: skip
    async def patch(
        name: Key, request: Request, response: Response, here: Here, who: Who, if_match: IfMatch = None
    ) -> dict[str, Any]:
        key = table.key(name)
        changes = await body(request)

        def edit(configuration: Configuration) -> Configuration:
            old = table.records(configuration).get(key)
            if old is None:
                raise not_found(f"{table.noun} {name!r} in the configuration")
            etags.check(if_match, schemas.whole(old))
            return _with(configuration, table, key, table.read(key, merged(schemas.whole(old), changes)))

        await change(here, who, edit)
        return described(here, table, key, response) or {}

    @routes.delete(
        table.path, role, name=f"delete_{table.noun.replace(' ', '_')}", status_code=204,
        text=f"Take a {table.noun} out of the configuration.",
    )  # fmt: skip
    async def delete(name: Key, here: Here, who: Who, if_match: IfMatch = None) -> None:
        key = table.key(name)

        def edit(configuration: Configuration) -> Configuration:
            old = table.records(configuration).get(key)
            if old is None:
                raise not_found(f"{table.noun} {name!r} in the configuration")
            etags.check(if_match, schemas.whole(old))
            rest = {each: value for each, value in table.records(configuration).items() if each != key}
            return replaced(configuration, table.name, rest)

        await change(here, who, edit)


def _with(configuration: Configuration, table: Table, key: Any, record: Any) -> Configuration:
    return replaced(configuration, table.name, {**table.records(configuration), key: record})


def replaced(configuration: Configuration, name: str, value: Any) -> Configuration:
    """The configuration with another value for one of its fields, or for one of a field of it (see Table)."""
    whole, _, inner = name.partition(".")
    if inner:
        value = replace(getattr(configuration, whole), **{inner: value})
    fields: dict[str, Any] = {whole: value}
    return replace(configuration, **fields)


def _optional(schema: dict[str, Any]) -> dict[str, Any]:
    """Of a merge patch."""
    properties = {name: {"anyOf": [inner, {"type": "null"}]} for name, inner in schema["properties"].items()}
    return {**schema, "title": f"{schema['title']}Patch", "properties": properties, "required": []}


def merged(old: Any, changes: Any) -> Any:
    """RFC 7396."""
    if not isinstance(changes, Mapping):
        return changes
    base = dict(old) if isinstance(old, Mapping) else {}
    for name, value in changes.items():
        if value is None:
            base.pop(name, None)
        else:
            base[name] = merged(base.get(name), value)
    return base


async def body(request: Request) -> Any:
    """The JSON of a request. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", _MERGE):
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "what comes is JSON: say so by Content-Type: application/json")
    try:
        found = json.loads(await request.body(), parse_constant=_no_constant)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, f"this is not JSON: {error}") from None
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")
