"""A real Chromium, and what tests look at in it: pages without errors and barriers, within the policy that they come with."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Response, sync_playwright

from tests.conftest import need

PASSWORD = "correct horse battery"  # noqa: S105
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
_PATIENCE = 120_000.0  # milliseconds: a browser beside guests that have no KVM is slow
_RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
_LOGGED_OUT = ("/api/v1/me", "/api/v1/stream")  # 401 as long as nobody is logged in


class Console:
    """The console in one page of a browser; `wrong` has what the browser complained of."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.wrong: list[str] = []
        self._gone: set[str] = set()  # names of what was destroyed
        page.set_default_timeout(_PATIENCE)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", self._said)
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        told = "status of 401" in message.text or (
            "status of 4" in message.text and self._is_gone(message.location["url"])
        )
        if message.type == "error" and not told:
            self.wrong.append(message.text)

    def _answered(self, response: Response) -> None:
        status, method, url = response.status, response.request.method, response.url
        if status == 401 and url.endswith(_LOGGED_OUT):
            return
        if status >= 400 and not (status < 500 and method == "GET" and self._is_gone(url)):
            self.wrong.append(f"{status} {method} {url}")

    def _is_gone(self, url: str) -> bool:
        """The page of what was destroyed may still ask how it is in the moment when it goes."""
        return any(name in unquote(url) for name in self._gone)

    def go(self, where: str) -> None:
        """To a page of the console: what stands after the #."""
        self.page.goto(f"{self.base}#{where}")

    def set_up(self) -> None:
        """Make the first account."""
        page = self.page
        page.goto(self.base)
        page.get_by_role("heading", name="Welcome to Blockyard").wait_for()
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.get_by_role("button", name="Make the account").click()
        page.get_by_role("heading", name="Dashboard").wait_for()

    def log_in(self, name: str) -> None:
        page = self.page
        page.goto(self.base)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Dashboard").wait_for()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def confirm(self, name: str, button: str) -> None:
        """Type the name of what is to be destroyed."""
        dialog = self.page.get_by_role("dialog")
        press = dialog.get_by_role("button", name=button)
        self._gone.add(name)
        assert press.is_disabled()
        dialog.get_by_label("Type").fill(name)
        press.click()
        dialog.wait_for(state="detached")

    def barriers(self) -> list[str]:
        """What somebody could not use (WCAG 2.2 AA, by axe)."""
        found = Axe().run(self.page, options=_RULES).response["violations"]
        return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]

    def wait_until_it_fits(self) -> None:
        """Until nobody has to scroll sideways: graphs draw themselves anew when the window changes."""
        self.until("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    def until(self, condition: str, arg: object = None) -> None:
        """Until an expression, or a function of `arg`, holds.

        Playwright's own way of waiting evaluates text in the page, which its policy forbids when it does not hold at once.
        """
        end = time.monotonic() + _PATIENCE / 1000
        while not self.page.evaluate(condition, arg):
            assert time.monotonic() < end, f"never: {condition}"
            self.page.wait_for_timeout(50)


@contextlib.contextmanager
def chromium(
    base: str, directory: Path, *, prefix: Sequence[str] = (), phone: bool = False, dark: bool = False
) -> Iterator[Console]:
    """A browser; `prefix` is put before its command, `directory` gets a picture of the last page."""
    program = need("chromium", "chromium")
    if prefix:
        wrapper = directory / "chromium"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(prefix)} {program} "$@"\n')
        wrapper.chmod(0o755)
        program = str(wrapper)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], timeout=_PATIENCE
        )
        page = browser.new_page(
            viewport=PHONE if phone else DESK,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",  # what is just fading in has less contrast than it will have
        )
        try:
            yield Console(page, base)
        finally:
            with contextlib.suppress(Exception):
                page.screenshot(path=os.fspath(directory / "console.png"), full_page=True)
            browser.close()
