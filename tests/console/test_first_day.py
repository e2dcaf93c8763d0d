"""From a server that nobody has used to a host that has taken back a lost file, in a browser."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TargetFactory
from tests.console.browser import Console, chromium
from tests.guest.conftest import Guest, _image, guest, network  # noqa: F401  (fixtures)
from tests.guest.network import HOST, Network

HOST_NAME = "iqn.2024-01.test.guest:initiator"
CONSOLE = "127.0.0.1:3261"


def make_disk(console: Console, directory: Path) -> str:
    """With the wizard; the name of its target."""
    page = console.page
    console.go("/new")
    page.get_by_label("Directory on the server").fill(str(directory))
    page.get_by_label("Size of the pool").fill("1G")
    page.get_by_label("Name of the disk").fill("thesis")
    page.get_by_label("Size", exact=True).fill("64M")
    page.get_by_label("Protect every write").check()
    page.get_by_label("Name of the initiator").fill(HOST_NAME)
    console.press("Make the disk")
    lines = page.get_by_label("Lines for Linux").text_content() or ""
    page.get_by_role("tab", name="Windows").click()
    assert "New-IscsiTargetPortal" in (page.get_by_label("Lines for Windows").text_content() or "")
    return lines.partition(" -T ")[2].split()[0]


def see_it_live(console: Console) -> None:
    """The host and what it does, on the dashboard, without anything being reloaded."""
    page = console.page
    console.go("/")
    page.get_by_role("region", name="Connected hosts").get_by_text(HOST_NAME).wait_for()
    console.until(
        "[...document.querySelectorAll('[aria-label=\"Busiest volumes\"] td.number')]"
        ".some((cell) => parseFloat(cell.textContent) > 0)"
    )
    console.until("/Written [1-9]/.test(document.querySelector('.chart[aria-label^=Throughput]')?.ariaLabel)")


def take_snapshot(console: Console) -> None:
    page = console.page
    console.go("/pools/main/volumes/thesis")
    console.press("Take a snapshot")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("monday")
    dialog.get_by_role("button", name="Take it").click()
    page.get_by_role("cell", name="monday", exact=True).wait_for()


def travel(console: Console) -> str:
    """To the snapshot, on the timeline; the name to log in to."""
    page = console.page
    console.go("/pools/main/volumes/thesis")
    page.get_by_role("button", name="snapshot monday").click()
    page.get_by_text("the snapshot monday").wait_for()
    console.press("Open it")
    lines = page.get_by_label("Commands for Linux").text_content() or ""
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    return lines.partition(" -T ")[2].split()[0]


def travel_by_keyboard(console: Console) -> None:
    """The handle moves by the arrow keys, and says where it is."""
    page = console.page
    console.go("/pools/main/volumes/thesis")
    handle = page.get_by_role("slider", name="Moment")
    console.press("Now")
    handle.focus()
    now = handle.get_attribute("aria-valuetext")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    console.until(
        "(now) => (document.querySelector('[aria-label=Moment]')?.getAttribute('aria-valuetext') ?? now) !== now", now
    )
    page.get_by_text("can be opened").wait_for()


def see_what_was(console: Console) -> None:
    """The history of the volume has what the host has written."""
    console.go("/pools/main/volumes/thesis")
    console.page.get_by_text("In figures").click()
    console.until(
        "[...document.querySelectorAll('[aria-label^=\"Figures\"] tr')]"
        ".some((row) => row.textContent.includes('Throughput: Written') && /[1-9]/.test(row.lastElementChild.textContent))"
    )


def delete_all(console: Console, target: str) -> None:
    page = console.page
    console.go(f"/targets/{target}")
    console.press("Delete")
    console.confirm(target, "Delete target")
    page.get_by_role("heading", name="Targets").wait_for()
    assert page.get_by_text(target).count() == 0
    console.go("/volumes/main%2Fthesis")
    console.press("Remove")
    console.confirm("main/thesis", "Delete volume")
    page.get_by_role("heading", name="Volumes").wait_for()
    console.go("/pools/main/volumes/thesis")
    page.get_by_role("button", name="Delete", exact=True).first.click()  # the snapshot has one too
    console.confirm("thesis", "Delete volume")
    page.get_by_role("heading", name="main").wait_for()
    page.get_by_text("No volume yet.").wait_for()


def test_a_first_day(target: TargetFactory, network: Network, guest: Guest, tmp_path: Path) -> None:  # noqa: F811
    target(managed=True, size=None, portals=[f"{HOST[0]}:3260"], options=["--console", CONSOLE], prefix=network.prefix)
    with chromium(f"http://{CONSOLE}/", tmp_path, prefix=network.prefix) as console:
        console.set_up()
        disk = make_disk(console, tmp_path / "pool")

        def connected() -> None:
            see_it_live(console)
            take_snapshot(console)

        guest(
            "console.sh",
            variables={"DISK": disk},
            marks={"connected": connected, "deleted": lambda: travel(console)},
        )
        travel_by_keyboard(console)
        see_what_was(console)
        delete_all(console, disk)
        assert console.wrong == []
