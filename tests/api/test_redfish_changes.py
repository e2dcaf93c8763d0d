"""Changes by Redfish: from a volume to a host that uses it and back, with foreign programs, and all of it in the audit log."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest

from blockyard.control.roles import Role
from tests.api.serving import PASSWORD, Api
from tests.conftest import need, run
from tests.waiting import LIMIT, eventually

TARGET, HOST, OTHER = "iqn.2026-11.test:disk", "iqn.2026-11.test:web", "iqn.2026-11.test:other"
VOLUMES, FABRIC = "/Storage/blockyard/Volumes", "/Fabrics/iSCSI"
MIB = 1 << 20


@pytest.fixture(scope="module")
def served(shared: Api, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """With a pool."""
    with shared.local() as client:
        pool = {"name": "fast", "directory": str(tmp_path_factory.mktemp("pool") / "pool"), "size": 256 * MIB}
        assert client.post("/pools", json=pool).status_code == 201
    return shared


@pytest.fixture(scope="module")
def admin(served: Api) -> Iterator[httpx.Client]:
    with served.client(served.token(Role.ADMIN, name="boss")) as client:
        client.base_url = f"http://{served.address}/redfish/v1"
        yield client


def made(client: httpx.Client, path: str, body: Any) -> str:
    """Where what is made is, from /redfish/v1 on."""
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    where = answer.headers["location"].removeprefix("/redfish/v1")
    assert client.get(where).json() == answer.json()
    return where


def link(where: str) -> dict[str, str]:
    return {"@odata.id": f"/redfish/v1{where}"}


def connects(served: Api, initiator: str) -> bool:
    """Whether libiscsi gets at LUN 0 under a name."""
    program = need("iscsi-inq", "libiscsi-bin")
    url = served.serving.url(0, target=TARGET)
    return run([program, "-i", initiator, url], check=False).returncode == 0


def test_from_a_volume_to_a_host_and_back(served: Api, admin: httpx.Client) -> None:
    mail = made(admin, VOLUMES, {"Name": "mail", "CapacityBytes": 8 * MIB})
    pool = link("/Storage/blockyard/StoragePools/fast")
    web = made(
        admin, f"{VOLUMES}/Members", {"Name": "web", "CapacityBytes": 8 * MIB, "Links": {"ProvidingStoragePool": pool}}
    )
    snapshot = made(admin, f"{mail}/Actions/Volume.CreateReplicaTarget", {
        "ReplicaType": "Snapshot", "ReplicaUpdateMode": "Adaptive", "VolumeName": "first",
        "TargetStoragePool": pool["@odata.id"],
    })  # fmt: skip
    clone = made(
        admin, f"{snapshot}/Actions/Volume.CreateReplicaTarget", {"ReplicaType": "Clone", "VolumeName": "copy"}
    )
    assert admin.get(mail).json()["ReplicaTargets"] == [link(snapshot)]
    assert admin.get(clone).json()["ReplicaInfo"]["SourceReplica"] == link(snapshot)
    assert admin.get(VOLUMES).json()["Members@odata.count"] >= 4

    host = made(admin, f"{FABRIC}/Endpoints", {"Name": "web", "Identifiers": [{"DurableName": HOST}]})
    entity = {"EntityRole": "Target", "Identifiers": [{"DurableName": TARGET, "DurableNameFormat": "iQN"}]}
    target = made(admin, f"{FABRIC}/Endpoints", {"ConnectedEntities": [entity]})
    assert not connects(served, HOST), "a new target is nobody's"
    ends = {"InitiatorEndpoints": [link(host)], "TargetEndpoints": [link(target)]}
    connection = made(admin, f"{FABRIC}/Connections", {"VolumeInfo": [{"Volume": link(mail)}], "Links": ends})
    assert connects(served, HOST)
    assert not connects(served, OTHER)
    again = admin.post(f"{FABRIC}/Connections", json={"Links": ends})
    assert again.status_code == 409

    more = {"Volume": link(web), "LUN": 7}
    assert admin.post(f"{connection}/Actions/Connection.AddVolumeInfo", json=more).status_code == 204
    shown = {each["LUN"]: each["Volume"] for each in admin.get(connection).json()["VolumeInfo"]}
    assert shown == {0: link(mail), 7: link(web)}
    assert admin.delete(web).status_code == 400, "it is in use"
    assert (
        admin.post(f"{connection}/Actions/Connection.RemoveVolumeInfo", json={"Volume": link(web)}).status_code == 204
    )
    assert admin.delete(web).status_code == 204

    assert admin.delete(host).status_code == 400, "a rule names it"
    assert admin.delete(connection).status_code == 204
    assert not connects(served, HOST), "nor is it everybody's when the last connection has gone"
    assert admin.delete(mail).status_code == 400, "it has a snapshot"
    for each in (snapshot, mail, clone, host, target):
        assert admin.delete(each).status_code == 204, each
        assert admin.get(each).status_code == 404, each
    with served.local() as local:
        audit = [each for each in local.get("/audit").json() if each["who"] == "boss"]
    assert len(audit) >= 14
    assert {"pool", "configuration"} <= {word for each in audit for word in each["what"].replace(":", " ").split()}


def test_what_is_lost_wrong_or_unknown_is_told(admin: httpx.Client) -> None:
    mail = made(admin, VOLUMES, {"Name": "news", "CapacityBytes": 8 * MIB})
    seen = admin.get(mail)
    etag = seen.headers["etag"]
    assert seen.json()["@odata.etag"] == etag
    larger = admin.patch(mail, json={"CapacityBytes": 16 * MIB}, headers={"If-Match": etag})
    assert (larger.status_code, larger.json()["CapacityBytes"]) == (200, 16 * MIB)
    assert admin.patch(mail, json={"CapacityBytes": 32 * MIB}, headers={"If-Match": etag}).status_code == 412
    assert admin.delete(mail, headers={"If-Match": etag}).status_code == 412
    mixed = admin.patch(mail, json={"Capacity": {"Data": {"ProvisionedBytes": 32 * MIB}}, "Model": "x"})
    assert mixed.json()["CapacityBytes"] == 32 * MIB
    assert "Model" in mixed.json()["@Message.ExtendedInfo"][0]["MessageArgs"]
    for method, path, body, status, key in (
        ("PATCH", mail, {"Model": "x"}, 400, "PropertyNotWritable"),
        ("PATCH", mail, {"@odata.id": "x"}, 400, "NoOperation"),
        ("PATCH", mail, {"CapacityBytes": "x"}, 400, "GeneralError"),
        ("PATCH", mail, [], 400, "GeneralError"),
        ("POST", VOLUMES, {"Name": "a"}, 400, "PropertyMissing"),
        ("POST", VOLUMES, {"Name": "a/b", "CapacityBytes": MIB}, 400, "GeneralError"),
        ("POST", VOLUMES, {"Name": "a", "CapacityBytes": -1}, 400, "PropertyValueError"),
        ("POST", VOLUMES, {"Name": "a", "CapacityBytes": MIB, "RAIDType": "RAID5"}, 400, "PropertyUnknown"),
        ("POST", f"{mail}/Actions/Volume.CreateReplicaTarget", {"ReplicaType": "Mirror"}, 400, "GeneralError"),
        ("POST", f"{mail}/Actions/Volume.CreateReplicaTarget", {"ReplicaType": "Clone"}, 400, "PropertyMissing"),
        ("POST", f"{FABRIC}/Endpoints", {"Identifiers": [{"DurableName": "no name"}]}, 400, "PropertyValueError"),
        ("POST", f"{FABRIC}/Connections", {"Links": {}}, 400, "PropertyMissing"),
        ("DELETE", f"{FABRIC}/Connections/a,b", None, 404, "ResourceMissingAtURI"),
        ("GET", f"{VOLUMES}/fast:news:none", None, 404, "ResourceMissingAtURI"),
        ("GET", f"{VOLUMES}/~none", None, 404, "ResourceMissingAtURI"),
        ("PUT", mail, {}, 405, "OperationNotAllowed"),
    ):
        answer = admin.request(method, path, json=body)
        (told,) = answer.json()["error"]["@Message.ExtendedInfo"]
        assert (answer.status_code, told["MessageId"].rpartition(".")[2]) == (status, key), (
            method,
            path,
            body,
            answer.text,
        )
    assert admin.post(VOLUMES, content="x", headers={"content-type": "text/plain"}).status_code == 415
    assert admin.get(mail, headers={"odata-version": "5.0"}).status_code == 412

    begun = admin.post(f"{mail}/Actions/Volume.CheckConsistency", json={})
    assert begun.status_code == 202
    monitor = begun.headers["location"].removeprefix("/redfish/v1")
    eventually(lambda: admin.get(monitor).status_code == 200, "the task ends")
    task = admin.get(monitor.replace("TaskMonitors", "Tasks")).json()
    assert (task["TaskState"], task["TaskStatus"]) == ("Completed", "OK")


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes events; the first time it fails."""

    got: Queue[Any]
    failed = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        failing, type(self).failed = not self.failed, True
        self.send_response(503 if failing else 204)
        self.end_headers()
        if not failing:
            self.got.put(json.loads(body))

    def log_message(self, format: str, *arguments: object) -> None: ...


def is_test(event: Any) -> bool:
    return bool(event["Events"][0]["MessageId"].endswith(".Test"))


def test_events_get_to_who_subscribes(served: Api, admin: httpx.Client) -> None:
    served.account("anna", Role.ADMIN)
    receiver = type("ThisReceiver", (Receiver,), {"got": Queue(), "failed": False})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        destination = f"http://127.0.0.1:{server.server_port}/events"
        common = ["-r", f"http://{served.address}", "-u", "anna", "-p", PASSWORD]
        program = str(Path(sys.executable).with_name("rf_event_service.py"))
        run([program, *common, "subscribe", "-dest", destination, "-c", "the context", "-f", "Event"])
        stream = "/EventService/SSE"
        with admin.stream("GET", stream, timeout=LIMIT) as live:
            lines = live.iter_lines()
            subscriptions = admin.get("/EventService/Subscriptions?$expand=.").json()["Members"]
            assert {each["SubscriptionType"] for each in subscriptions} == {"RedfishEvent", "SSE"}
            test = admin.post("/EventService/Actions/EventService.SubmitTestEvent", json={"Message": "hello"})
            assert test.status_code == 204
            pushed = next(each for each in iter(lambda: receiver.got.get(timeout=LIMIT), None) if is_test(each))  # type: ignore[attr-defined]
            told = (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
            streamed = next(each for each in told if is_test(each))
        server.shutdown()
    assert pushed["Context"] == "the context"
    assert pushed["Events"] == streamed["Events"]
    registry = admin.get("/Registries?$expand=.").json()["Members"][1]["Location"][0]["Uri"].removeprefix("/redfish/v1")
    message = pushed["Events"][0]["MessageId"].rpartition(".")[2]
    assert admin.get(registry).json()["Messages"][message]["MessageSeverity"] == "OK"
    eventually(
        lambda: admin.get("/EventService/Subscriptions").json()["Members@odata.count"] == 1, "the stream is over"
    )
    (where,) = admin.get("/EventService/Subscriptions").json()["Members"]
    path = where["@odata.id"].removeprefix("/redfish/v1")
    assert admin.patch(path, json={"Context": "another"}).json()["Context"] == "another"
    assert admin.delete(path).status_code == 204
    bad = {"Destination": "http://192.0.2.1/", "Protocol": "Redfish"}
    assert admin.post("/EventService/Subscriptions", json=bad).status_code == 400, "others could read along"
