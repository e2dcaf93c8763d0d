"""GET on a short road: what a route declares is enough to answer, without all that FastAPI can do besides.

Consoles and programs that watch a server read the same few things all day, and each read takes processor time that the data
path has not. Functions of routes, their rules and models are the same here and there, and so are the answers. Whatever is out
of the ordinary goes to FastAPI, and with it what there is to say of it: a route that takes something else than `_KINDS`, its
path and its query have, and a parameter that does not fit, that there is not, or that comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.params import Query
from pydantic import TypeAdapter, ValidationError
from starlette.routing import compile_path

from blockyard.api import problems
from blockyard.api.security import Here, Route, Rule, Who, check

_JSON = (b"content-type", b"application/json")
_KINDS = ((Here, "context"), (Who, "identity"), (Request, "request"), (Response, "response"))


@dataclass(frozen=True)
class _Read:
    """A route that can be answered here: what its function takes, by the names of its parameters, and what it returns."""

    rule: Rule
    function: Callable[..., Any]
    taken: Mapping[str, str]  # context, identity, request or response
    path: Mapping[str, TypeAdapter[Any]]  # by the names in the path
    query: Mapping[str, TypeAdapter[Any]]  # by the names in the query
    returned: TypeAdapter[Any]
    of: tuple[str, ...] | None  # see Route

    def arguments(self, found: Mapping[str, str], query: bytes) -> dict[str, Any] | None:
        """Those that the client has sent; None where they are FastAPI's affair."""
        arguments: dict[str, Any] = {}
        sent = [(name, value, self.path) for name, value in found.items()]
        if query:
            sent += [(*pair, self.query) for pair in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
        for name, value, known in sent:
            if name not in known or name in arguments:
                return None
            try:
                arguments[name] = known[name].validate_python(value)
            except ValidationError:
                return None
        return arguments


class Reads:
    """The routes of an application, asked before it is."""

    def __init__(self, routes: Iterable[Route], prefix: str) -> None:
        self._prefix = prefix
        self._plain: dict[str, _Read | None] = {}
        self._others: dict[str, list[tuple[re.Pattern[str], _Read | None]]] = {}
        for route in routes:
            if route.method == "GET":
                self._add(route.path, _read(route))

    def _add(self, path: str, read: _Read | None) -> None:
        regex, _, convertors = compile_path(path)
        others = self._others.setdefault(_first(path), [])
        if convertors:
            others.append((regex, read))
        elif not any(earlier.match(path) for earlier, _ in others):  # of several that fit the first counts
            self._plain.setdefault(path, read)

    def knows(self, path: str) -> bool:
        """Whether a GET of it is answered here."""
        return self._find(path)[0] is not None

    def _find(self, path: str) -> tuple[_Read | None, dict[str, str]]:
        if not path.startswith(self._prefix):
            return None, {}
        path = path[len(self._prefix) :]
        read = self._plain.get(path)
        if read is not None:
            return read, {}
        for regex, read in self._others.get(_first(path), ()):
            match = regex.match(path)
            if match:
                return read, match.groupdict()
        return None, {}

    async def answered(self, scope: dict[str, Any], receive: Any, send: Any) -> bool:
        """Answer a request; False where that is left to FastAPI."""
        if scope["method"] != "GET":
            return False
        read, found = self._find(scope["path"])
        arguments = None if read is None else read.arguments(found, scope["query_string"])
        if read is None or arguments is None:
            return False
        scope["path_params"] = found
        request, response = Request(scope, receive), None
        try:
            state = scope["state"]
            changes = state["context"].changes()
            check(read.rule, state["identity"], request)
            for name, what in read.taken.items():
                if what == "request":
                    arguments[name] = request
                elif what == "response":
                    arguments[name] = response = Response()
                else:
                    arguments[name] = state[what]
            content = read.returned.dump_json(await read.function(**arguments), by_alias=True)
        except Exception as error:
            await (await problems.answer_to(request, error))(scope, receive, send)
            return True
        if read.of is not None and "repeat" in scope:
            scope["repeat"].allow(state["identity"], changes, state["context"].good_until(read.of))
        headers = [(b"content-length", b"%d" % len(content)), _JSON]
        if response is not None:
            headers += [pair for pair in response.raw_headers if pair[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return True


def _first(path: str) -> str:
    """What all paths of a kind of object have in common: volumes, of /volumes/a."""
    return path.split("/", 2)[1] if path.startswith("/") else ""


def _read(route: Route) -> _Read | None:
    """None for a route that does more than to return what is told as JSON."""
    if not route.plain:
        return None
    hints = get_type_hints(route.function, include_extras=True)
    returned, in_path = hints.pop("return"), compile_path(route.path)[2]
    kinds = {name: _kind(hints[name], in_path=name in in_path) for name in signature(route.function).parameters}
    if None in kinds.values():
        return None
    taken = {name: kind for name, kind in kinds.items() if kind not in ("path", "query", None)}
    path, query = (
        {name: TypeAdapter(hints[name]) for name, kind in kinds.items() if kind == where} for where in ("path", "query")
    )
    return _Read(route.rule, route.function, taken, path, query, TypeAdapter(returned), route.of)


def _kind(hint: Any, *, in_path: bool) -> str | None:
    """Of a parameter; None where this module knows none like it."""
    for known, kind in _KINDS:
        if hint == known:
            return kind
    if in_path:
        return "path"
    told = [each for each in get_args(hint) if isinstance(each, Query)] if get_origin(hint) is Annotated else []
    return "query" if told and told[0].alias is None else None
