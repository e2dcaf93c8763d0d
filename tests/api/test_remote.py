"""`blockyard --url`: every command that asks a server, over the network, with a certificate that is trusted for a reason."""

from __future__ import annotations

import contextlib
import json
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from blockyard.cli.main import main
from blockyard.control.remote import Remote, Unreachable, pin_of
from blockyard.control.roles import Role
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.iscsi.chap import Account
from tests.api.conftest import ApiFactory
from tests.api.serving import PASSWORD, Api
from tests.conftest import run
from tests.serving import free_port
from tests.waiting import eventually


def _pem(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost, and its key, by openssl."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    run([*command.split(), f"/CN={name}", *names, "-keyout", key, "-out", certificate])
    return certificate, key


def _token(served: Api, path: Path, role: Role = Role.ADMIN) -> Path:
    path.write_text(served.token(role) + "\n")
    path.chmod(0o600)
    return path


def test_commands_by_url(api: ApiFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served = api("disk.img")
    url, token = f"http://{served.address}", _token(served, tmp_path / "token")
    road = ["--url", url, "--token-file", str(token)]
    assert main([*road, "status", "--json"]) == 0
    assert "disk.img" in json.loads(capsys.readouterr().out)["volumes"]
    assert main([*road, "volume", "resize", "disk.img", "128M"]) == 0
    assert main([*road, "volume", "resize", "nothing", "128M"]) == 2, "its exit status, as here"
    assert "there is no volume" in capsys.readouterr().err
    assert main([*road, "serve"]) == 2
    assert "done on this machine" in capsys.readouterr().err
    assert main([*road, "account", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "the-admin"
    viewer = _token(served, tmp_path / "viewer", Role.VIEWER)
    assert main(["--url", url, "--token-file", str(viewer), "volume", "resize", "disk.img", "256M"]) == 1
    assert "is for operators" in capsys.readouterr().err
    assert main(["--url", f"http://127.0.0.1:{free_port()}", "--token-file", str(token), "status"]) == 7


def test_users_pools_and_events_by_url(api: ApiFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the command line does to the state directory here, a server elsewhere does to its own."""
    served = api("disk.img")
    road = ["--url", f"http://{served.address}", "--token-file", str(_token(served, tmp_path / "token"))]
    secret = tmp_path / "secret"
    secret.write_text("a secret of 18 byt\n")
    secret.chmod(0o600)
    back = tmp_path / "back"
    back.write_text("another secret of it\n")
    back.chmod(0o600)
    given = ["--secret-file", str(secret), "--mutual", "disks", "--mutual-secret-file", str(back)]

    def done(*words: str) -> str:
        assert main([*road, *words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    done("user", "add", "alice", *given)
    done("group", "add", "staff", "alice")
    assert json.loads(done("user", "list", "--json")) == [{"name": "alice", "mutual": "disks", "groups": ["staff"]}]
    done("user", "set", "alice", "--secret-file", str(back), "--mutual", "disks", "--mutual-secret-file", str(secret))
    with contextlib.closing(State(served.state)) as state:
        kept = Users(state).get("alice")
    assert kept == Account("alice", b"another secret of it", "disks", b"a secret of 18 byt")
    assert main([*road, "user", "add", "alice", *given]) == 6
    assert main([*road, "user", "set", "bob", *given]) == 6
    secret.write_text("short")
    assert main([*road, "user", "add", "bob", "--secret-file", str(secret)]) == 2
    assert "bytes" in capsys.readouterr().err
    done("group", "remove", "staff")
    assert done("group", "list") == ""
    done("user", "remove", "alice")
    shown = done("events", "--count", "20")
    assert "the user alice was removed, by the-admin" in shown
    assert [json.loads(line)["what"] for line in done("events", "--json", "--count", "2").splitlines()] == [
        "users-changed", "users-changed",
    ]  # fmt: skip
    assert "secret" not in done("audit", "--json").replace("secrets", "").lower()
    done("pool", "create", str(tmp_path / "pool"), "--size", "64M")
    assert main([*road, "pool", "create", "pool", "--size", "64M"]) == 2
    assert "from / on" in capsys.readouterr().err
    done("pool", "destroy", str(tmp_path / "pool"), "--yes")
    assert not (tmp_path / "pool").exists()
    viewer = ["--url", road[1], "--token-file", str(_token(served, tmp_path / "viewer", Role.VIEWER))]
    assert main([*viewer, "user", "list"]) == 0
    assert main([*viewer, "user", "remove", "alice"]) == 1
    for local in (
        ["state", "backup", "x"],
        ["doctor"],
        ["support-bundle", "x"],
        ["raid", "examine", "x"],
        ["image", "info", "x"],
    ):
        assert main([*road, *local]) == 2
        assert "done on this machine" in capsys.readouterr().err


def test_tokens_are_not_shown_to_anybody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("blockyard_x")
    token.chmod(0o644)
    assert main(["--url", "https://storage.example", "--token-file", str(token), "status"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    token.chmod(0o600)
    for url in ("http://storage.example", "https://user:secret@storage.example", "ftp://storage.example"):
        assert main(["--url", url, "--token-file", str(token), "status"]) == 2


def test_accounts_and_tokens_at_the_command_line(
    api: ApiFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = api()
    state = ["--state", str(served.state)]
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    assert main(["account", "add", "ann", "--role", "admin", "--password-file", str(password), *state]) == 0
    assert main(["account", "add", "bob", "--role", "owner", "--password-file", str(password), *state]) == 6
    assert main(["account", "set", "ann", "--role", "viewer", *state]) == 6
    assert "last account" in capsys.readouterr().err
    assert main(["token", "create", "ann", "--role", "viewer", "--lifetime", "1h", "--note", "test", *state]) == 0
    token = capsys.readouterr().out.strip()
    with served.client(token) as client:
        assert client.get("/me").json()["role"] == "viewer", "a server that runs knows it at once"
        assert main(["token", "list", "--json", *state]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert found["note"] == "test"
        assert main(["token", "revoke", found["id"], *state]) == 0
        assert client.get("/me").status_code == 401
    with served.client() as client:
        assert client.post("/login", json={"name": "ann", "password": PASSWORD}).status_code == 200
        password.write_text(PASSWORD[::-1])
        assert main(["account", "passwd", "ann", "--password-file", str(password), *state]) == 0
        assert client.get("/me").status_code == 401, "its sessions have ended"
        assert client.post("/login", json={"name": "ann", "password": PASSWORD[::-1]}).status_code == 200
    password.write_text("short")
    assert main(["account", "passwd", "ann", "--password-file", str(password), *state]) == 2


def test_a_certificate_that_is_given(api: ApiFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = _pem(tmp_path, "first")
    place = f"127.0.0.1:{free_port()}"
    served = api(config="", listen=f'{place}"\ncertificate = "{certificate}"\nkey = "{key}')
    token = _token(served, tmp_path / "token")
    url = ["--url", f"https://{place}", "--token-file", str(token)]
    assert main([*url, "--cacert", str(certificate), "status"]) == 0
    capsys.readouterr()
    assert main([*url, "status"]) == 7
    assert "--cacert" in capsys.readouterr().err
    pin = pin_of(_served_by(place))
    assert main([*url, "--pin", pin, "status"]) == 0
    assert main([*url, "--pin", pin_of(_der(_pem(tmp_path, "second")[0])), "status"]) == 7
    assert "is not the server that was meant" in capsys.readouterr().err
    assert run(["curl", "-sS", "--cacert", certificate, "--pinnedpubkey", pin, f"https://{place}/api/v1/setup"]).stdout
    with pytest.raises(httpx.HTTPError):  # plain HTTP gets nothing
        httpx.get(f"http://{place}/api/v1/setup", timeout=5)

    second, its_key = _pem(tmp_path, "third")
    certificate.write_bytes(second.read_bytes())
    key.write_bytes(its_key.read_bytes())
    assert main(["reload", "--state", str(served.state)]) == 0
    eventually(lambda: _served_by(place) == _der(second), "the new certificate is served")
    key.write_text("nonsense")
    assert main(["reload", "--state", str(served.state)]) == 0
    assert _served_by(place) == _der(second), "one that cannot be used leaves the old one"
    key.write_bytes(its_key.read_bytes())
    certificate.write_bytes(_pem(tmp_path, "stray")[0].read_bytes())
    assert main(["reload", "--state", str(served.state)]) == 0
    assert _served_by(place) == _der(second), "and so does one whose key has not come yet"
    third, its_key = _pem(tmp_path, "fourth")
    key.write_bytes(its_key.read_bytes())
    certificate.write_bytes(third.read_bytes())
    eventually(lambda: _served_by(place) == _der(third), "one that was renewed is taken without being told")


def test_acme_challenges_and_the_way_to_https(api: ApiFactory) -> None:
    """What `certbot --webroot` does: a file in a directory, which is fetched by plain HTTP."""
    address = _address_beyond_loopback()
    place, plain = f"{address}:{free_port(address)}", f"{address}:{free_port(address)}"
    served = api(config="", listen=f'{place}"\nhttp = "{plain}')
    challenges = served.state / "acme" / ".well-known" / "acme-challenge"
    challenges.mkdir(parents=True)
    (challenges / "evaGxfADs6pSRb2LAv9IZ").write_text("evaGxfADs6pSRb2LAv9IZ.thumb_print")
    (served.state / "acme" / "secret").write_text("nobody's business")
    path = "/.well-known/acme-challenge"
    fetched = run(["curl", "-sS", f"http://{plain}{path}/evaGxfADs6pSRb2LAv9IZ"]).stdout
    assert fetched == "evaGxfADs6pSRb2LAv9IZ.thumb_print"
    trusted = ssl.create_default_context(cafile=served.state / "api.crt")
    with httpx.Client(verify=trusted) as client:
        assert client.get(f"https://{place}{path}/evaGxfADs6pSRb2LAv9IZ").text == fetched, "and by a proxy, say"
        for wrong in ("/nothing", "/..%2f..%2fsecret", "/../../secret", "/", "/a.b", "/%00"):
            assert client.get(f"http://{plain}{path}{wrong}").status_code in (404, 308)
            assert "nobody" not in client.get(f"https://{place}{path}{wrong}").text
        answer = client.get(f"http://{plain}/api/v1/setup?a=b", headers={"Authorization": "Bearer x"})
        assert (answer.status_code, answer.headers["location"]) == (308, f"https://{place}/api/v1/setup?a=b")
        assert client.get(f"http://{plain}/", headers={"Host": "a b"}).status_code in (400, 404)
        assert client.head(f"http://{plain}{path}/evaGxfADs6pSRb2LAv9IZ").content == b""


def test_a_certificate_of_its_own(api: ApiFactory, tmp_path: Path) -> None:
    address = _address_beyond_loopback()
    place = f"{address}:{free_port(address)}"
    served = api(listen=place)
    key, certificate = served.state / "api.key", served.state / "api.crt"
    assert key.stat().st_mode & 0o777 == 0o600
    printed = served.serving.log.with_suffix(".out")
    eventually(lambda: "Ready." in printed.read_text(), "it says where the console is")
    out = printed.read_text()
    assert f"Console: https://{place}/" in out
    assert pin_of(_der(certificate)) in out
    code = out.split("from another machine: ")[1].split()[0]
    with httpx.Client(
        base_url=f"https://{place}/api/v1", verify=ssl.create_default_context(cafile=certificate)
    ) as client:
        assert client.get("/setup").json() == {"needed": True, "code_needed": True}
        first = {"name": "admin", "password": PASSWORD}
        assert client.post("/setup", json=first).status_code == 403
        answer = client.post("/setup", json={**first, "code": code})
        assert answer.status_code == 201
        assert "Secure" in answer.headers["set-cookie"]
        assert client.get("/me").status_code == 200
    Remote(f"https://{place}", None, certificate)  # and blockyard trusts it, too
    with pytest.raises(Unreachable, match="certificate"):
        Remote(f"https://{place}", None).ask("status", {})
    served.serving.restart()
    assert pin_of(_served_by(place)) == pin_of(_der(certificate)), "the key stays"


def _address_beyond_loopback() -> str:
    """One of this machine's own."""
    told = json.loads(run(["ip", "-json", "address"]).stdout)
    addresses = [
        each["local"]
        for link in told
        for each in link["addr_info"]
        if each["family"] == "inet" and each["scope"] == "global"
    ]
    assert addresses, "this machine has no address but those of loopback"
    return str(addresses[0])


def _served_by(place: str) -> bytes:
    host, _, port = place.rpartition(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)), timeout=120))


def _der(path: Path) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
