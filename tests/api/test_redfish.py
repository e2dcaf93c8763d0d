"""Redfish, as DMTF's own client library reads it: it logs in, and everything that leads somewhere leads to a resource."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import redfish
from starlette.routing import Route

from blockyard.api.app import application as own
from blockyard.api.redfish.app import application
from blockyard.control.roles import Role
from tests.api.serving import PASSWORD, Api

_OPEN = {"/redfish", "/redfish/v1", "/redfish/v1/odata", "/redfish/v1/$metadata"}
_STORAGE, _FABRIC = "/redfish/v1/Storage/blockyard", "/redfish/v1/Fabrics/iSCSI"
_EVENTS, _ACCOUNTS = "/redfish/v1/EventService", "/redfish/v1/AccountService/Accounts"
_ENDS: Any = {"Links": {"InitiatorEndpoints": [], "TargetEndpoints": []}}
_LINK = {"@odata.id": "/redfish/v1/nothing"}

# Every change, the operation of our own API that it is the same as, and what is sent.
CHANGES: list[tuple[str, str, str, Any]] = [
    ("POST", f"{_STORAGE}/Volumes", "create_pool_volume", {"CapacityBytes": 1 << 20}),
    ("POST", f"{_STORAGE}/StoragePools/{{pool}}/AllocatedVolumes", "create_pool_volume", {"CapacityBytes": 1 << 20}),
    ("PATCH", f"{_STORAGE}/Volumes/{{volume}}", "change_pool_volume", {"CapacityBytes": 1 << 20}),
    ("DELETE", f"{_STORAGE}/Volumes/{{volume}}", "delete_pool_volume", None),
    ("POST", f"{_STORAGE}/Volumes/{{volume}}/Actions/Volume.CreateReplicaTarget", "take_snapshot", {"ReplicaType": "Snapshot"}),
    ("POST", f"{_STORAGE}/Volumes/{{volume}}/Actions/Volume.CheckConsistency", "scrub_pool", {}),
    ("POST", f"{_FABRIC}/Endpoints", "put_host", {}),
    ("DELETE", f"{_FABRIC}/Endpoints/{{endpoint}}", "delete_host", None),
    ("POST", f"{_FABRIC}/Connections", "change_target", _ENDS),
    ("DELETE", f"{_FABRIC}/Connections/{{connection}}", "change_target", None),
    ("POST", f"{_FABRIC}/Connections/{{connection}}/Actions/Connection.AddVolumeInfo", "put_lun", {"Volume": _LINK}),
    ("POST", f"{_FABRIC}/Connections/{{connection}}/Actions/Connection.RemoveVolumeInfo", "delete_lun", {"Volume": _LINK}),
    ("DELETE", "/redfish/v1/TaskService/Tasks/{task}", "cancel_job", None),
    ("DELETE", "/redfish/v1/TaskService/TaskMonitors/{task}", "cancel_job", None),
    ("POST", "/redfish/v1/SessionService/Sessions", "log_in", {}),
    ("DELETE", "/redfish/v1/SessionService/Sessions/{session}", "log_out", None),
    ("POST", _ACCOUNTS, "create_account", {"UserName": "u", "Password": "p", "RoleId": "none"}),
    ("PATCH", f"{_ACCOUNTS}/{{account}}", "change_account", {"Enabled": True}),
    ("DELETE", f"{_ACCOUNTS}/{{account}}", "delete_account", None),
    ("POST", f"{_EVENTS}/Actions/EventService.SubmitTestEvent", "scrub_pool", {}),  # which is for operators, as the command
    ("POST", f"{_EVENTS}/Subscriptions", "apply_configuration", {"Destination": "", "Protocol": "Redfish"}),
    ("PATCH", f"{_EVENTS}/Subscriptions/{{subscription}}", "apply_configuration", {"Context": "c"}),
    ("DELETE", f"{_EVENTS}/Subscriptions/{{subscription}}", "apply_configuration", None),
]  # fmt: skip


def _routes() -> list[tuple[str, str]]:
    return [
        (method, route.path)
        for route in application().routes
        if isinstance(route, Route)
        for method in route.methods or ()
    ]


def test_a_client_walks_the_tree(shared: Api, tmp_path: Path) -> None:
    with shared.local() as local:
        pool = {"name": "fast", "directory": str(tmp_path / "pool"), "size": 256 << 20}
        assert local.post("/pools", json=pool).status_code == 201
        assert local.post("/pools/fast/volumes", json={"name": "mail", "size": 64 << 20}).status_code == 201
    shared.account("walker", Role.VIEWER)
    client = redfish.redfish_client(
        base_url=f"http://{shared.address}", username="walker", password=PASSWORD, default_prefix="/redfish/v1"
    )
    client.login(auth="session")
    seen: dict[str, Any] = {}
    rest = ["/redfish/v1/"]
    while rest:
        path = rest.pop()
        answer = client.get(path)
        assert answer.status == 200, path
        assert answer.dict["@odata.id"] == path
        assert answer.dict["@odata.type"].startswith("#")
        seen[path] = answer.dict
        rest += [each for each in _links(answer.dict) if each not in seen and each not in rest]
    assert seen["/redfish/v1/Storage/blockyard/Volumes/fast:mail"]["CapacityBytes"] == 64 << 20
    assert len(seen) > 50
    _queries(client)
    client.logout()
    assert client.get("/redfish/v1/Storage").status == 401


def _links(found: Any) -> list[str]:
    if isinstance(found, dict):
        own = [found["@odata.id"]] if "@odata.id" in found else []
        return own + [each for value in found.values() for each in _links(value)]
    return [each for value in found for each in _links(value)] if isinstance(found, list) else []


def _queries(client: Any) -> None:
    """What of an answer is wanted."""
    schemas, storage = "/redfish/v1/JsonSchemas", "/redfish/v1/Storage"
    whole = client.get(schemas).dict["Members"]
    page = client.get(f"{schemas}?$skip=1&$top=2").dict
    assert (page["Members"], page["Members@odata.count"]) == (whole[1:3], len(whole))
    assert client.get(page["Members@odata.nextLink"]).dict["Members"] == whole[3:5]
    assert client.get(f"{schemas}?$top={len(whole)}").dict.keys() == client.get(schemas).dict.keys()
    some = client.get("/redfish/v1/?$select=Name,Links/Sessions").dict
    assert {name for name in some if "@odata" not in name} == {"Name", "Links"}
    assert some["Links"].keys() == {"Sessions"}
    assert client.get(f"{storage}?only").dict["Id"] == "blockyard"
    two = client.get(f"{storage}?$expand=.($levels=2)&$select=Name,Volumes,Members").dict
    assert [each["Name"] for each in two["Members"]] == ["Blockyard"]
    assert two["Members"][0]["Volumes"]["Members"][0]["@odata.id"].endswith("/fast:mail")
    beneath = client.get(f"{storage}/blockyard?$expand=.").dict
    assert beneath["Volumes"]["Members@odata.count"]
    assert beneath["Links"]["HostingStorageSystems"][0].keys() == {"@odata.id"}
    linked = client.get(f"{storage}/blockyard?$expand=~").dict
    assert linked["Volumes"].keys() == {"@odata.id"}
    assert linked["Links"]["HostingStorageSystems"][0]["Id"] == "blockyard"
    for query, status in (
        ("$filter=Id", 501), ("$nothing", 501), ("unknown=1", 200), ("$top=x", 400), ("$top=-1", 400), ("only=1", 400),
        ("$expand=x", 400), ("$expand=.($levels=9)", 400), ("$expand=.(", 400), ("only&$expand=.", 400), ("$select=", 400),
    ):  # fmt: skip
        assert client.get(f"{storage}?{query}").status == status, query
    assert client.get("/redfish/v1/?$top=1").status == 400, "no collection"


def test_each_change_is_for_those_whose_change_it_is_in_the_api(shared: Api) -> None:
    assert {change[:2] for change in CHANGES} == {each for each in _routes() if each[0] not in ("GET", "HEAD")}
    needed = {
        operation["operationId"]: operation["x-role"]
        for path in own().openapi()["paths"].values()
        for operation in path.values()
    }
    for role in Role:
        token = shared.token(role, *(["iqn.2026-11.test:theirs"] if role is Role.OWNER else []))
        with shared.client(token) as client:
            for method, path, same, body in CHANGES:
                found = _status(client, f"http://{shared.address}", method, path, body)
                if needed[same] == "anybody":
                    assert found == 400, (role, method, path)
                    continue
                may = role.rank >= Role(needed[same]).rank or same == "log_out"
                assert (found not in (401, 403)) == may, (role, method, path, found)
                assert found < 500, (role, method, path, found)


def _status(client: httpx.Client, base: str, method: str, path: str, body: Any) -> int:
    url = base + path.replace("{volume}", "no:thing").replace("{", "").replace("}", "")
    return client.request(method, url, json=body).status_code


def test_nobody_reads_more_than_the_standard_lets(shared: Api) -> None:
    shared.account("reader", Role.VIEWER)
    shared.account("owner", Role.OWNER, "iqn.2026-11.test:theirs")
    base = f"http://{shared.address}"
    with shared.client() as client:
        for method, route in _routes():
            path = route.replace("{", "").replace("}", "")
            answer = client.request(method, base + path)
            may = path in _OPEN or (method == "POST" and path.endswith("/Sessions"))
            assert (answer.status_code == 401) != may, path
            if not may:
                assert answer.json()["error"]["@Message.ExtendedInfo"]
                assert answer.headers["www-authenticate"].startswith("Basic")
        storage = f"{base}/redfish/v1/Storage"
        assert client.get(storage, auth=("reader", PASSWORD)).status_code == 200
        assert client.get(storage, auth=("owner", PASSWORD)).status_code == 403
        assert client.get(storage, auth=("reader", "wrong")).status_code == 401
        assert client.get(f"{base}/redfish/v1/").status_code == 200, "a slash at the end"
        accounts = f"{base}{_ACCOUNTS}"
        mine = ("reader", PASSWORD)
        assert client.get(accounts, auth=mine).json()["Members@odata.count"] == 1, "one's own"
        assert client.get(f"{accounts}/owner", auth=mine).status_code == 404
        assert client.patch(f"{accounts}/owner", json={"Password": PASSWORD + "!"}, auth=mine).status_code == 403
        assert client.patch(f"{accounts}/reader", json={"RoleId": "Administrator"}, auth=mine).status_code == 403
        assert client.patch(f"{accounts}/reader", json={"Password": PASSWORD + "!"}, auth=mine).status_code == 200
        assert client.get(storage, auth=mine).status_code == 401
