"""DMTF's own validators find nothing in `/redfish`: neither in what the resources are, nor in how they are asked for.

What they fetch from dmtf.org, they have from csdl.tar.xz here.
"""

from __future__ import annotations

import logging
import tarfile
from pathlib import Path

import pytest
from redfish_protocol_validator import (
    etags,
    protocol_details,
    resources,
    security_details,
    service_details,
    service_requests,
    service_responses,
    sessions,
)
from redfish_protocol_validator.constants import Result
from redfish_protocol_validator.system_under_test import SystemUnderTest
from redfish_service_validator import logger, metadata
from redfish_service_validator.system_under_test import SystemUnderTest as ResourcesUnderTest

from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import PASSWORD, Api
from tests.serving import free_port

TARGET, HOST = "iqn.2026-11.test:disk", "iqn.2026-11.test:web"

# What the validator of the protocol cannot look into here, and why that is so.
UNTESTED = {
    "PROTO_REDIRECT_ENFORCES_TARGET_PRIVS": "nothing is redirected",
    "REQ_DATA_MOD_ERRORS": "it makes no POST that fails",
    "REQ_HEADERS_ACCEPT": "there is no openapi.yaml, which is optional",
    "RESP_HEADERS_CONTENT_TYPE": "the same",
    "RESP_HEADERS_X_AUTH_TOKEN": "it expects tokens to be hexadecimal, which none has to be",
    "RESP_STATUS_INTERNAL_SERVER_ERROR": "there is none",
    "SEC_CERTS_CONFORM_X509V3": "certificates are no resources here",
    "SEC_DEFAULT_CERT_REPLACE": "the same",
    "SEC_PWD_CHANGE_REQ_ALLOW_GET_ACCOUNT": "no account has to change its password",
    "SEC_PWD_CHANGE_REQ_ALLOW_PATCH_PASSWORD": "the same",
    "SEC_PWD_CHANGE_REQ_ALLOW_SESSION_LOGIN": "the same",
    "SEC_PWD_CHANGE_REQ_DISALLOW_ALL_OTHERS": "the same",
    "SEC_SESSION_TERMINATION_SIDE_EFFECTS": "its tests of streams are turned off",
}


@pytest.fixture
def served(api: ApiFactory, tmp_path: Path) -> Api:
    """A server, by HTTPS, that has something of everything."""
    found = api(managed=True, listen=f"0.0.0.0:{free_port()}")
    found.account("admin", Role.ADMIN)
    with found.local() as client:
        pool = {"name": "fast", "directory": str(tmp_path / "pool"), "size": 256 << 20}
        assert client.post("/pools", json=pool).status_code == 201
        disk = str(tmp_path / "disk.img")
        assert client.put("/volumes/disk", json={"path": disk, "size": "8M"}).status_code == 201
        client.base_url = "http://local/redfish/v1"
        volumes = "/Storage/blockyard/Volumes"
        mail = {"Name": "mail", "CapacityBytes": 64 << 20}
        names = [{"DurableName": HOST, "DurableNameFormat": "iQN"}]
        target = [{"EntityRole": "Target", "Identifiers": [{"DurableName": TARGET, "DurableNameFormat": "iQN"}]}]
        ends = {"InitiatorEndpoints": [_link("host:web")], "TargetEndpoints": [_link(f"target:{TARGET}")]}
        info = [{"Volume": {"@odata.id": f"/redfish/v1{volumes}/{each}"}} for each in ("fast:mail", "~disk")]
        for path, body in (
            (volumes, mail),
            (f"{volumes}/fast:mail/Actions/Volume.CreateReplicaTarget", {"ReplicaType": "Snapshot", "VolumeName": "s"}),
            (f"{volumes}/fast:mail:s/Actions/Volume.CreateReplicaTarget", {"ReplicaType": "Clone", "VolumeName": "c"}),
            (f"{volumes}/fast:mail/Actions/Volume.CheckConsistency", {}),
            ("/Fabrics/iSCSI/Endpoints", {"Name": "web", "Identifiers": names}),
            ("/Fabrics/iSCSI/Endpoints", {"ConnectedEntities": target}),
            ("/Fabrics/iSCSI/Connections", {"VolumeInfo": info, "Links": ends}),
            ("/EventService/Subscriptions", {"Destination": "https://192.0.2.1/events", "Protocol": "Redfish"}),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code in (201, 202), answer.text
    return found


def _link(name: str) -> dict[str, str]:
    return {"@odata.id": f"/redfish/v1/Fabrics/iSCSI/Endpoints/{name}"}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.filterwarnings("ignore:ssl.*:DeprecationWarning")  # it tries which old versions of TLS there are
def test_dmtfs_validators_find_nothing(served: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # would have the certificate verified in spite of all
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        etags, "STABILITY_DELAY_SEC", 0.1
    )  # after which nothing may have another ETag: none is of the time
    url = f"https://127.0.0.1:{served.address.rpartition(':')[2]}"
    _validate_resources(url, tmp_path / "schemas")
    _validate_protocol(url)


def _validate_resources(url: str, tmp_path: Path) -> None:
    """What `rf_service_validator` does, but for its reports: every resource against its schema."""
    with tarfile.open(Path(__file__).with_name("csdl.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    metadata.parse_schema_files(str(tmp_path))
    logger.logger = logging.getLogger("the validator of resources")
    sut = ResourcesUnderTest(url, "admin", PASSWORD, None, "Session", None, None, None, ["JsonSchemaFile", "2"], False)
    sut.validate(None, "/redfish/v1/", "/redfish/v1/")
    sut.logout()
    found = {
        f"{uri}{name}: {each['Message']}"
        for uri, resource in sut._resources.items()
        for name, each in resource["Results"].items()
        if each["Result"] in ("FAIL", "WARN")
    }
    assert not found
    assert (sut.fail_count, sut.warn_count) == (0, 0)
    assert sut.pass_count > 1000


def _validate_protocol(url: str) -> None:
    """What `rf_protocol_validator` does, but for the search for services by SSDP, which waits long for what is not there."""
    sut = SystemUnderTest(url, "admin", PASSWORD, verify=False)
    sut.set_avoid_http_redirect(True)
    sut.login()
    resources.read_target_resources(sut, func=resources.get_default_resources)
    nobody = sessions.no_auth_session(sut)
    resources.read_uris_no_auth(sut, nobody)
    resources.data_modification_requests(sut)
    resources.data_modification_requests_no_auth(sut, nobody)
    resources.unsupported_requests(sut)
    resources.basic_auth_requests(sut)
    resources.http_requests(sut)
    resources.bad_auth_requests(sut)
    sessions.bad_login(sut)
    protocol_details.test_protocol_details(sut)
    service_requests.test_service_requests(sut)
    service_responses.test_service_responses(sut)
    service_details.test_eventing(sut)
    security_details.test_security_details(sut)
    etags.test_etags(sut)
    sut.logout()
    results: dict[Result, set[str]] = {result: set() for result in Result}
    for assertion, found in sut.results.items():
        for each in found:
            results[each["result"]].add(f"{assertion.name}: {each['msg']}")
    assert not results[Result.FAIL] | results[Result.WARN]
    assert {each.partition(":")[0] for each in results[Result.NOT_TESTED]} <= UNTESTED.keys()
    assert len(results[Result.PASS]) > 100
