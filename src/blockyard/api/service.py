"""The API as a part of a server's life: where it listens, with which certificate, and how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.api.plain import Plain
from blockyard.control.administration import short_path
from blockyard.control.errors import ControlError, StateError
from blockyard.control.portals import check_free, listen
from blockyard.iscsi.directory import Portal, portal_from
from blockyard.worker.configuration import Api

if TYPE_CHECKING:
    from blockyard.api.context import Context
    from blockyard.api.http import Site
    from blockyard.control.server import Server

log = logging.getLogger(__name__)

_LOOK = 2.0  # seconds between two looks at the files of the certificate
SOCKET = "api.sock"  # in the state directory: for root and for whoever serves


@dataclass
class Place:
    """Where it is to listen: `sock` is new, None where the one that there is goes on, or where it is nowhere."""

    wanted: Api | None
    sock: socket.socket | None = None
    portal: Portal | None = None  # with the port that it really has
    tls: ssl.SSLContext | None = None
    plain: socket.socket | None = None  # likewise, for plain HTTP

    def close(self) -> None:
        for sock in (self.sock, self.plain):
            if sock is not None:
                sock.close()


class ApiService:
    """See blockyard.control.service.Service."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._place = Place(None)
        self._built: tuple[Site, Context] | None = None
        self._plain = Plain(server.options.state, server.inherited)
        self._watching: asyncio.Task[None] | None = None
        self._stamp: list[int] = []

    @property
    def url(self) -> str | None:
        """Of the console; None where it listens nowhere."""
        if self._place.portal is None:
            return None
        return f"{'http' if self._place.tls is None else 'https'}://{self._place.portal}/"

    @property
    def listening(self) -> dict[str, socket.socket]:
        found = self._plain.listening
        if self._place.wanted is not None and self._place.sock is not None:
            found[_name(portal_from(self._place.wanted.listen))] = self._place.sock
        return found

    def invitation(self) -> str:
        """What a person is told who has just begun to serve: where the console is, and how to begin there; "" where it is not."""
        if self.url is None or self._built is None:
            return ""
        context = self._built[1]
        lines = [f"Console: {self.url}"]
        if self._place.tls is not None:
            from blockyard.api import certificates  # noqa: PLC0415

            lines.append(f"  its certificate's key is {certificates.pin_of_file(self._files_now()[0])}")
        if not (self._place.portal is None or self._place.portal.loopback or context.accounts.all()):
            lines.append(f"  to make the first account from another machine: {context.setup_code}")
        return "\n".join(lines) + "\n\n"

    # ---- where it listens; certificates are loaded late, with cryptography.x509, which takes long and few need

    def prepare(self, wanted: Api | None) -> Place:
        """Raises PortalError, or StateError for a certificate that cannot be used."""
        if wanted is None:
            return Place(None)
        place = self._prepare(wanted)
        try:
            place.plain = self._plain.prepare(wanted.http)
        except BaseException:
            place.close()
            raise
        return place

    def _prepare(self, wanted: Api) -> Place:
        now = self._place
        if wanted == now.wanted:  # a certificate that cannot be read now is no reason to refuse some other change
            return Place(wanted, None, now.portal, now.tls)
        asked = portal_from(wanted.listen)
        tls = self._tls(wanted, asked)
        if now.wanted is not None and now.sock is not None and now.wanted.listen == wanted.listen:
            if (tls is None) == (now.tls is None):
                return Place(wanted, None, now.portal, now.tls)
            return Place(wanted, now.sock.dup(), now.portal, tls)  # plain or encrypted from now on: the same port
        if now.portal is not None:
            check_free(asked, [now.portal])
        sock, portal = self._server.inherited(_name(asked), asked) or listen(asked, "--console or api.listen")
        return Place(wanted, sock, portal, tls)

    def _tls(self, wanted: Api, portal: Portal) -> ssl.SSLContext | None:
        """What encrypts; None on loopback, unless there is a certificate for it. Raises StateError."""
        if portal.loopback and not wanted.certificate:
            return None
        from blockyard.api import certificates  # noqa: PLC0415

        return certificates.context(*self._files(wanted))

    def _files_now(self) -> tuple[Path, Path]:
        assert self._place.wanted is not None
        return self._files(self._place.wanted)

    def _files(self, wanted: Api) -> tuple[Path, Path]:
        if wanted.certificate:
            return Path(wanted.certificate), Path(wanted.key)
        from blockyard.api import certificates  # noqa: PLC0415

        return certificates.own(self._server.options.state, portal_from(wanted.listen).host, wanted.hosts)

    def commit(self, prepared: object) -> None:
        assert isinstance(prepared, Place)
        if prepared.sock is None and prepared.portal is not None:
            prepared.sock = self._place.sock
        elif prepared.portal is None:
            self._let_go()
        elif self._built is not None:
            self._built[0].cease()  # who is being answered, perhaps about this very change, gets the answer
            self._place.close()
        self._plain.commit("" if prepared.wanted is None else prepared.wanted.http, prepared.plain)
        prepared.plain = None  # it is the other's now
        self._place = prepared

    # ---- life

    async def start(self) -> None:
        place = self._place
        if place.sock is None or place.wanted is None or place.portal is None:
            return
        if self._built is None:
            self._built = await asyncio.to_thread(_build, self._server)
            await self._built[0].listen_locally(self._local_socket())
            with contextlib.suppress(
                OSError
            ):  # waking up for a request does not take the processor from a worker (sched(7))
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        site, context = self._built
        context.hosts = place.wanted.hosts
        if site.listens_on(place.sock):
            self._reload(place)
        else:
            await site.listen(place.sock, place.tls, loopback=place.portal.loopback)
        await self._plain.start(None if place.tls is None else place.portal.port)
        self._stamp = self._stamped()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Take a certificate that was renewed; one of our own making is made anew when it is time."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                stamp = self._stamped()
            except ControlError as error:
                log.error("the certificate of the API: %s", error)
                continue
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload(self._place)

    def _stamped(self) -> list[int]:
        """When the files of the certificate were changed; nothing where there are none. Raises StateError."""
        if self._place.tls is None:
            return []
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in self._files_now()]

    def _reload(self, place: Place) -> None:
        """Take the certificate as it is now: connections that come from now on get it."""
        assert place.wanted is not None
        if place.tls is not None:
            from blockyard.api import certificates  # noqa: PLC0415

            try:
                files = self._files(place.wanted)
                certificates.context(*files)  # a key that is another's would leave the one that serves without any
                place.tls.load_cert_chain(*files)
            except (OSError, ControlError) as error:
                log.error("the certificate of the API stays as it was: %s", error)

    def _local_socket(self) -> socket.socket:
        directory = self._server.options.state
        sock = socket.socket(socket.AF_UNIX)
        try:
            with short_path(directory, SOCKET) as path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # of a server that was killed
                before = os.umask(0o177)
                try:
                    sock.bind(path)
                finally:
                    os.umask(before)
        except OSError as error:
            sock.close()
            raise StateError(f"{directory / SOCKET}: {error.strerror}") from error
        sock.setblocking(False)
        return sock

    async def stop(self) -> None:
        if self._built is not None:
            site, context = self._built
            context.hub.close()
            await asyncio.gather(site.stop(), self._plain.stop())
        self.close()

    def close(self) -> None:
        self._let_go()
        self._place = Place(None)

    def _let_go(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        self._plain.close()
        if self._built is not None:
            site, context = self._built
            site.close()
            context.close()
            with contextlib.suppress(FileNotFoundError):
                (self._server.options.state / SOCKET).unlink()
        self._place.close()
        self._built = None


def _name(asked: Portal) -> str:
    """What the socket there is called for the next control; portals are called otherwise."""
    return f"api {asked.written}"


def _build(server: Server) -> tuple[Site, Context]:
    """In a thread: importing takes a while."""
    from blockyard.api.app import build  # noqa: PLC0415
    from blockyard.api.context import Context  # noqa: PLC0415
    from blockyard.api.http import Site  # noqa: PLC0415
    from blockyard.api.repeats import Repeats  # noqa: PLC0415

    context = Context(server)
    return Site(build(context), partial(Repeats, context)), context
