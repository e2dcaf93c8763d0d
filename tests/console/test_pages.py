"""Every page: without errors and barriers, light and dark, at a desk and on a phone, for whoever may see it."""

from __future__ import annotations

import base64
import math
import time
from pathlib import Path

import pytest

from blockyard.block.building import create_layer
from blockyard.block.formats import create_image
from blockyard.control import totp
from blockyard.control.history.sampling import Point, Values
from blockyard.control.history.series import RESOLUTIONS
from blockyard.control.history.store import Store
from blockyard.control.roles import Role
from tests.api.conftest import (
    ApiFactory,
    api,  # noqa: F401  (a fixture)
)
from tests.api.serving import Api
from tests.console.browser import DESK, PASSWORD, PHONE, Console, chromium

PAGES = [
    ("/", "Dashboard"),
    ("/volumes", "Volumes"),
    ("/volumes/demo.img", "demo.img"),
    ("/volumes/mirror", "mirror"),
    ("/pools", "Pools"),
    ("/pools/fast", "fast"),
    ("/pools/fast/volumes/vm", "vm"),
    ("/targets", "Targets"),
    ("/hosts", "Hosts and users"),
    ("/sessions", "Sessions"),
    ("/schedules", "Schedules"),
    ("/media", "Tapes and discs"),
    ("/jobs", "Jobs"),
    ("/events", "Events"),
    ("/people", "Accounts"),
    ("/me", "Your account"),
    ("/settings", "Settings"),
    ("/new", "New disk for a host"),
    ("/build", "New volume on layers"),
]


def furnish(server: Api, directory: Path) -> str:
    """Something on every page; the name of a target."""
    legs = [directory / "a.img", directory / "b.img"]
    for leg in legs:
        with leg.open("wb") as file:
            file.truncate(64 << 20)
    mirror = f"raid1({legs[0]}, {legs[1]})"
    create_layer(mirror)
    with server.local() as client:

        def post(where: str, body: dict[str, object]) -> None:
            answer = client.post(where, json=body)
            assert answer.is_success, answer.text

        post("/pools", {"name": "fast", "directory": str(directory / "fast"), "create": True, "size": 1 << 30})
        post("/pools/fast/volumes", {"name": "vm", "size": 64 << 20})
        assert client.put("/pools/fast/volumes/vm/cdp", json={"window": 3600}).is_success
        post("/pools/fast/volumes/vm/snapshots", {"name": "monday"})
        for where, body in (
            ("/volumes/vm", {"pool": "fast", "volume": "vm"}),
            ("/schedules/nightly", {"at": "daily at 02:00", "volumes": ["fast/*"], "keep": {"daily": 7}}),
            ("/libraries/vault", {"directory": str(directory / "tapes")}),
            ("/volumes/mirror", {"stack": mirror}),
            ("/targets/iqn.2024-01.com.example:mirror", {"luns": {"0": "mirror"}}),
            ("/targets/iqn.2024-01.com.example:tapes", {"library": "vault"}),
            ("/drives/dvd", {}),
            ("/users/alice", {"secret": "a secret of 18 b"}),
        ):
            answer = client.put(where, json=body)
            assert answer.is_success, f"{where}: {answer.text}"
        post("/libraries/vault/cartridges", {"barcode": "A00001L8"})
        name: str = client.get("/targets").json()[0]["name"]
        return name


def remember(state: Path) -> None:
    """A history of a week, and of the last hour."""

    def damaged(what: str, text: str) -> None:
        raise AssertionError(text)

    state.mkdir()
    store, now = Store(state, damaged), int(time.time())
    for resolution, span in ((RESOLUTIONS[-1], 8 * 86400), (RESOLUTIONS[0], 3600)):
        for at in range((now - span) // resolution.step * resolution.step, now - 60, resolution.step):
            busy = 1 + math.sin(at / 13751)
            work: Values = (900 * busy, 400 * busy, 4e7 * busy, 9e6, 2e-4, 3e-3 * busy, 4e-4, 5e-3, 4 * busy, 0.9)
            kinds: dict[str, dict[str, Values]] = {"total": {"": work}, "volume": {"demo.img": work}, "pool": {}}
            kinds["pool"]["fast"] = (at / 9, 2e8, 3e8)
            store.write([Point(resolution, at, kinds)], now)
    store.close()


def look_back(console: Console, pool: str) -> None:
    """At graphs of what was, with the keyboard."""
    page = console.page
    page.get_by_role("img", name="Latency, the last hour").wait_for()
    button = page.get_by_role("group", name="How far back").get_by_role("button", name="60 days")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("img", name="Throughput, the last 60 days").wait_for()
    console.until("document.activeElement.getAttribute('aria-pressed') === 'true'")
    page.get_by_text("In figures").focus()
    page.keyboard.press("Enter")
    figures = page.get_by_role("region", name="Figures, the last 60 days")
    figures.get_by_role("row", name="Latency: Writes, 99 %").get_by_role("cell", name="5 ms").first.wait_for()
    assert console.barriers() == []
    console.go(pool)
    page.get_by_role("img", name="Space, the last hour").wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page(api: ApiFactory, tmp_path: Path, dark: bool) -> None:  # noqa: F811
    remember(tmp_path / "state-0")
    server = api(managed=True)
    name = furnish(server, tmp_path)
    with chromium(f"http://{server.address}/", tmp_path, dark=dark) as console:
        console.page.goto(console.base)
        console.page.get_by_role("heading", name="Welcome to Blockyard").wait_for()
        assert console.barriers() == []
        console.set_up()
        console.page.get_by_text("All is well").wait_for()
        for where, heading in [*PAGES, (f"/targets/{name}", name)]:
            look_at(console, where, heading)
        console.go("/settings")
        console.page.get_by_text("this console, the API and the command line").wait_for()
        console.go("/volumes/demo.img")
        look_back(console, "/pools/fast")
        choose_a_file(console, tmp_path)
        assert console.wrong == []


def choose_a_file(console: Console, directory: Path) -> None:
    """A disk is made of a file that is found with the keyboard, and not of one that is in use."""
    page = console.page
    (directory / "images").mkdir()
    create_image(directory / "images" / "mail.vhd", "vhd", 16 << 20)
    console.go("/volumes")
    console.press("New volume")
    dialog = page.get_by_role("dialog", name="New volume")
    dialog.get_by_label("What it is made of").select_option("file")
    dialog.get_by_label("Name").fill("mail")
    dialog.get_by_role("button", name="Browse").press("Enter")
    chooser = page.get_by_role("dialog", name="Path on the server: choose")
    chooser.get_by_text("free here").wait_for()  # wherever it begins
    page.keyboard.press("Escape")
    chooser.wait_for(state="detached")
    dialog.get_by_role("button", name="Browse").press("Enter")
    chooser.get_by_text("free here").wait_for()
    path, options = chooser.get_by_role("combobox"), chooser.get_by_role("option")
    path.fill(f"{directory}/A.im")
    taken = options.filter(has_text="in use: volume mirror")
    taken.wait_for()
    assert taken.get_attribute("aria-disabled") == "true"
    path.press("Enter")  # which does nothing
    assert console.barriers() == []
    path.fill(f"{directory}/images/new.img")
    chooser.get_by_label("Size of the new file").fill("32M")
    assert chooser.get_by_role("button", name=f"Use {directory}/images/new.img").is_enabled()
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    console.wait_until_it_fits()
    assert console.barriers() == []
    chooser.get_by_role("button", name="Disks of the server").click()
    chooser.get_by_role("button", name="Disks of the server", pressed=True).wait_for()
    assert console.barriers() == []
    page.set_viewport_size(DESK)  # type: ignore[arg-type]
    path.fill(f"{directory}/ima")
    options.filter(has_text="images/").wait_for()
    path.press("Enter")
    options.filter(has_text="VHD").wait_for()
    path.press("ArrowDown")
    path.press("Enter")
    chooser.wait_for(state="detached")
    field = dialog.get_by_label("Path on the server")
    assert field.input_value() == f"{directory}/images/mail.vhd"
    console.until("document.activeElement.value?.endsWith('mail.vhd')")
    assert dialog.get_by_label("Format").input_value() == "vhd"
    dialog.get_by_role("button", name="Make it").click()
    dialog.wait_for(state="detached")
    page.get_by_role("link", name="mail", exact=True).click()
    page.get_by_text("16 MiB").first.wait_for()


def look_at(console: Console, where: str, heading: str) -> None:
    page = console.page
    console.go(where)
    page.get_by_role("heading", name=heading, exact=True, level=1).wait_for()
    page.get_by_text("Loading …").first.wait_for(state="detached")
    console.until("(title) => document.title === title", f"{heading} – Blockyard")  # noqa: RUF001
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    console.wait_until_it_fits()
    assert console.barriers() == [], where
    page.set_viewport_size({"width": 1280, "height": 900})
    assert console.barriers() == [], where


def test_a_viewer_is_offered_nothing_that_he_may_not_do(api: ApiFactory, tmp_path: Path) -> None:  # noqa: F811
    server = api(managed=True)
    furnish(server, tmp_path)
    server.account("victor", Role.VIEWER)
    with chromium(f"http://{server.address}/", tmp_path, phone=True) as console:
        console.log_in("victor")
        page = console.page
        console.press("Menu")
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="Volumes").click()
        page.get_by_role("heading", name="Volumes", level=1).wait_for()
        assert not page.get_by_role("link", name="Accounts").is_visible()
        assert page.get_by_role("button", name="New volume").count() == 0
        console.go("/pools/fast/volumes/vm")
        page.get_by_role("heading", name="vm", exact=True).wait_for()
        for name in ("Delete", "Change", "Take a snapshot", "Roll back to it"):
            assert page.get_by_role("button", name=name, exact=True).count() == 0
        turn_on_one_time_passwords(console)
        console.press("Menu")
        console.press("Log out")
        page.get_by_role("heading", name="Log in").wait_for()
        server.account("olga", Role.OWNER, "iqn.2024-01.com.example:mirror")
        console.log_in("olga")
        look_as_an_owner(console)
        assert console.wrong == []


def look_as_an_owner(console: Console) -> None:
    """At what concerns their targets, and nothing else."""
    page = console.page
    console.press("Menu")
    pages = page.get_by_role("navigation", name="Pages")
    assert [link.split("\n")[0] for link in pages.get_by_role("link").all_inner_texts()] == [
        "Dashboard", "Volumes", "Targets", "Sessions", "Events",
    ]  # fmt: skip
    pages.get_by_role("link", name="Targets").click()
    page.get_by_role("link", name="iqn.2024-01.com.example:mirror").click()
    page.get_by_role("link", name="mirror", exact=True).click()
    page.get_by_text("in sync").first.wait_for()
    assert page.get_by_role("button", name="Scrub").count() == 0
    assert console.barriers() == []


def turn_on_one_time_passwords(console: Console) -> None:
    """With what a telephone would have read from the QR code."""
    page = console.page
    console.press("Menu")
    page.get_by_role("link", name="victor").click()
    console.press("Set them up")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Go on").click()
    dialog.get_by_role("img", name="QR code").wait_for()
    assert console.barriers() == []
    dialog.get_by_text("It cannot be scanned").click()
    secret = base64.b32decode(dialog.get_by_label("Secret").inner_text().replace(" ", ""))
    dialog.get_by_label("Code that the app shows").fill(totp.code(secret, int(time.time() // totp.PERIOD)))
    dialog.get_by_role("button", name="Turn them on").click()
    page.get_by_role("button", name="Turn them off").wait_for()
    console.press("New token")
    dialog.get_by_label("What it is for").fill("backups")
    dialog.get_by_role("button", name="Make it").click()
    assert dialog.get_by_label("Token", exact=True).inner_text().startswith("blockyard_")
    dialog.get_by_role("button", name="I have it").click()
    page.get_by_role("button", name="Revoke backups").click()
    page.get_by_text("No program has a token").wait_for()


def fill(console: Console, action: str, **fields: str) -> None:
    """Fill the form of the dialog that is open, and send it."""
    dialog = console.page.get_by_role("dialog")
    for label, value in fields.items():
        field = dialog.get_by_label(label.replace("_", " "), exact=True)
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    dialog.get_by_role("button", name=action, exact=True).click()
    dialog.wait_for(state="detached")


def removed(console: Console, name: str, what: str) -> None:
    """Out of the configuration."""
    console.press(f"Remove: {name}")
    console.confirm(name, f"Delete {what}")
    assert console.wrong == []


def use_discs(console: Console, directory: Path) -> None:
    """An optical drive and its discs, from the first to the last."""
    page = console.page
    jukebox = directory / "discs"
    jukebox.mkdir()
    (directory / "data.iso").write_bytes(bytes(range(256)) * 8 * 700)
    console.go("/media")
    console.press("New optical drive")
    fill(console, "Make it", Name="burner", Jukebox=str(jukebox))
    card, discs = (
        page.get_by_role("region", name="Optical drive burner"),
        page.get_by_role("region", name="Discs of burner"),
    )
    console.press("New blank disc: burner")
    fill(console, "Make it", Name="backup", Kind="dvd+rw", Size="8M")
    console.press("Insert backup.iso")
    fill(console, "Insert")
    card.get_by_text("DVD+RW, blank").wait_for()
    console.press("Eject: burner")
    card.get_by_text("empty").wait_for()
    console.press("Import: burner")
    fill(console, "Copy it", File=str(directory / "data.iso"), Name="data")
    discs.get_by_text("data.iso").wait_for()
    console.press("Copy data.iso")
    fill(console, "Copy it", To="sheet.cue")
    discs.get_by_text("sheet.cue").wait_for()
    assert console.barriers() == []
    console.press("Label data.iso")
    fill(console, "Rename it", Name="archive")
    discs.get_by_text("archive.iso").wait_for()
    console.press("Delete archive.iso")
    console.confirm("archive.iso", "Delete disc")
    discs.get_by_text("archive.iso").wait_for(state="detached")
    with (jukebox / "zeros.iso").open("wb") as file:
        file.truncate(100 << 30)  # they take minutes to read
    page.reload()
    console.press("Copy zeros.iso")
    fill(console, "Copy it", To=str(directory / "zeros.iso"))
    page.get_by_role("meter", name="Progress of export of zeros.iso to zeros.iso").wait_for()
    console.press("Stop")
    page.get_by_role("region", name="Copies of burner").get_by_text("cancelled").wait_for()
    assert not (directory / "zeros.iso").exists()
    removed(console, "burner", "drive")
    card.wait_for(state="detached")


def use_tapes(console: Console, directory: Path) -> None:
    """A tape library, and a cartridge that goes everywhere."""
    page = console.page
    console.press("New tape library")
    fill(console, "Make it", Name="vault", Directory=str(directory / "tapes"), Slots="4")
    cartridges = page.get_by_role("region", name="Cartridges of vault")
    console.press("New cartridge: vault")
    fill(console, "Make it", Barcode="A00001L8", Size="64M")
    cartridges.get_by_text("slot-1").wait_for()
    console.press("Protect A00001L8")
    cartridges.get_by_text("protected").wait_for()
    console.press("Allow writing A00001L8")
    console.press("Move A00001L8")
    fill(console, "Move", To="drive-1")
    page.get_by_text("drive-1: A00001L8").wait_for()
    assert page.get_by_role("button", name="Take out A00001L8").count() == 0
    console.press("Move A00001L8")
    fill(console, "Move", To="slot-3")
    console.press("Copy A00001L8")
    fill(console, "Copy it", To=str(directory / "a.tap"))
    page.get_by_role("region", name="Copies of vault").get_by_text("has 0 blocks and filemarks").wait_for()
    console.press("Take out A00001L8")
    cartridges.get_by_text("outside").wait_for()
    console.press("Put in A00001L8")
    cartridges.get_by_text("io-1").wait_for()
    console.press("Import: vault")
    fill(console, "Copy it", File=str(directory / "a.tap"), Barcode="B00002L8")
    cartridges.get_by_text("B00002L8").wait_for()
    console.press("Label B00002L8")
    fill(console, "Label it", Barcode="C00002L8")
    cartridges.get_by_text("C00002L8").wait_for()
    console.press("Delete C00002L8")
    console.confirm("C00002L8", "Delete cartridge")
    cartridges.get_by_text("C00002L8").wait_for(state="detached")
    console.press("New cartridge: vault")
    fill(console, "Make it", Barcode="D00001L8", How_many="2", Size="64M")
    cartridges.get_by_text("D00002L8").wait_for()
    assert console.barriers() == []
    removed(console, "vault", "library")
    cartridges.wait_for(state="detached")


def test_a_session_with_discs_and_tapes(api: ApiFactory, tmp_path: Path) -> None:  # noqa: F811
    server = api(managed=True)
    with chromium(f"http://{server.address}/", tmp_path) as console:
        console.set_up()
        use_discs(console, tmp_path)
        use_tapes(console, tmp_path)
        console.press("Log out")
        console.page.get_by_role("heading", name="Log in").wait_for()
        console.page.get_by_label("Name").fill("admin")
        console.page.get_by_label("Password").fill("not the right one")
        console.press("Log in")
        console.page.get_by_role("alert").get_by_text("wrong").wait_for()
        assert console.barriers() == []


def test_a_mirror_is_made_loses_a_leg_and_gets_another(api: ApiFactory, tmp_path: Path) -> None:  # noqa: F811
    server = api(managed=True)
    with chromium(f"http://{server.address}/", tmp_path) as console:
        console.set_up()
        page = console.page
        console.go("/build")
        page.get_by_label("Path on the server").first.wait_for()
        for at, name in enumerate("ab"):
            page.get_by_label("Path on the server").nth(at).fill(f"{tmp_path}/{name}.img")
        page.get_by_label("Size of files").fill("64M")
        page.get_by_label("Cache").select_option("ram")
        page.get_by_label("Memory").fill("8M")
        page.get_by_label("Name of the volume").fill("pair")
        page.get_by_text("About 64 MiB for hosts").wait_for()
        page.get_by_role("list", name="Layers").get_by_text("Cache in memory").wait_for()
        assert console.barriers() == []
        console.press("Make the volume")
        page.get_by_role("heading", name="pair").wait_for()
        console.go("/volumes/pair")
        _rate(server, "64K")  # a quarter of an hour: the pages are looked at meanwhile
        page.get_by_role("button", name=f"Take a disk out: {tmp_path}/b.img").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Take a disk out").click()
        page.get_by_text("degraded").first.wait_for()
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        console.wait_until_it_fits()
        page.get_by_role("button", name="Add a disk").click()
        with (tmp_path / "c.img").open("wb") as file:
            file.truncate(64 << 20)
        dialog.get_by_label("Device").fill(f"{tmp_path}/c.img")
        dialog.get_by_role("button", name="Add a disk").click()
        page.get_by_role("meter", name="Progress of raid1").wait_for()
        assert console.barriers() == []
        console.go("/")
        page.get_by_text("1 volume degraded").wait_for()
        page.get_by_role("meter", name="Progress of rebuild of pair").wait_for()
        assert console.barriers() == []
        console.go("/jobs")
        jobs = page.get_by_role("region", name="Jobs")
        jobs.get_by_text("rebuild").wait_for()
        console.press("Pause")
        jobs.get_by_text("paused", exact=True).wait_for()
        assert console.barriers() == []
        console.press("Resume")
        jobs.get_by_text("running", exact=True).wait_for()
        _rate(server, "1G")
        console.go("/")
        page.get_by_text("All is well").wait_for()
        assert console.wrong == []


def _rate(server: Api, rate: str) -> None:
    """Of what arrays do by themselves."""
    request = {"request": "act", "layer": "pair/raid1", "action": "rate", "options": {"rate": rate}}
    with server.local() as client:
        assert client.post("/commands/layer", json=request).is_success
