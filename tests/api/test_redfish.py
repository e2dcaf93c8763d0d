"""Redfish, as DMTF's own client library reads it: it logs in, and everything that leads somewhere leads to a resource."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redfish  # type: ignore[import-untyped]
from starlette.routing import Route

from blockyard.api.redfish.app import application
from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import PASSWORD

_OPEN = {"/redfish", "/redfish/v1", "/redfish/v1/odata", "/redfish/v1/$metadata"}


def test_a_client_walks_the_tree(api: ApiFactory, tmp_path: Path) -> None:
    served = api(managed=True)
    with served.local() as local:
        pool = {"name": "fast", "directory": str(tmp_path / "pool"), "size": 256 << 20}
        assert local.post("/pools", json=pool).status_code == 201
        assert local.post("/pools/fast/volumes", json={"name": "mail", "size": 64 << 20}).status_code == 201
    served.account("reader", Role.VIEWER)
    client = redfish.redfish_client(
        base_url=f"http://{served.address}", username="reader", password=PASSWORD, default_prefix="/redfish/v1"
    )
    client.login(auth="session")
    seen: dict[str, Any] = {}
    rest = ["/redfish/v1"]
    while rest:
        path = rest.pop()
        answer = client.get(path)
        assert answer.status == 200, path
        assert answer.dict["@odata.id"] == path
        assert answer.dict["@odata.type"].startswith("#")
        seen[path] = answer.dict
        rest += [each for each in _links(answer.dict) if each not in seen and each not in rest]
    assert seen["/redfish/v1/Storage/blockyard/Volumes/fast:mail"]["CapacityBytes"] == 64 << 20
    client.logout()
    assert client.get("/redfish/v1/Storage").status == 401


def _links(found: Any) -> list[str]:
    if isinstance(found, dict):
        own = [found["@odata.id"]] if "@odata.id" in found else []
        return own + [each for value in found.values() for each in _links(value)]
    return [each for value in found for each in _links(value)] if isinstance(found, list) else []


def test_nobody_reads_more_than_the_standard_lets(api: ApiFactory) -> None:
    served = api(managed=True)
    served.account("reader", Role.VIEWER)
    served.account("owner", Role.OWNER, "iqn.2026-11.test:theirs")
    with served.client() as client:
        for route in application().routes:
            if isinstance(route, Route) and "GET" in (route.methods or ()):
                path = route.path.replace("{", "").replace("}", "")
                url = f"http://{served.address}{path}"
                answer = client.get(url)
                assert answer.status_code == (200 if path in _OPEN else 401), path
                if path not in _OPEN:
                    assert answer.json()["error"]["@Message.ExtendedInfo"]
                    assert answer.headers["www-authenticate"].startswith("Basic")
        storage = f"http://{served.address}/redfish/v1/Storage"
        assert client.get(storage, auth=("reader", PASSWORD)).status_code == 200
        assert client.get(storage, auth=("owner", PASSWORD)).status_code == 403
        assert client.get(storage, auth=("reader", "wrong")).status_code == 401
        assert client.get(f"http://{served.address}/redfish/v1/").status_code == 200, "a slash at the end"
