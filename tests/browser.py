"""A real, headless Chromium, spoken to through its debugging pipe: no driver and no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_MOST_SECONDS = 30
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt install chromium")


class Page:
    """One page of a browser.

    Attributes:
        complaints: What the page wrote to its console, and its exceptions.
        requests: The addresses that it asked the network for.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        self.complaints: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        return self._browser.call(method, parameters, self._session)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in JavaScript, awaited where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def resize(self, width: int, *, dark: bool = False) -> None:
        """As a window of this width in a light or a dark system shows it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, as ``Tab`` (9) or ``Enter`` (13)."""
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **same)
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        self.call("Page.bringToFront")
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    """A running browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number = 0
        self._rest = b""
        self._pages: dict[str, Page] = {}

    def open(self, address: str) -> Page:
        """A page with this address, loaded."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        page.call("Page.navigate", url=address)
        while page.evaluate("document.readyState") != "complete":
            pass
        return page

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._hear(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], _MOST_SECONDS)
            assert ready, f"the browser did not answer for {_MOST_SECONDS} s"
            part = os.read(self._from, 1 << 16)
            assert part, "the browser ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(text))

    def _hear(self, event: dict[str, Any]) -> None:
        page = self._pages.get(event.get("sessionId", ""))
        if page is None:
            return
        method, parameters = event.get("method"), event.get("params", {})
        if method in {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}:
            page.complaints.append(json.dumps(parameters)[:500])
        elif method == "Network.requestWillBeSent":
            page.requests.append(parameters["request"]["url"])


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, which ends with the block."""
    assert PROGRAM is not None
    read_end, to_browser = os.pipe()
    from_browser, write_end = os.pipe()

    def place_pipes() -> None:
        os.dup2(read_end, 3)
        os.dup2(write_end, 4)

    flags = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-dev-shm-usage --disable-extensions"
    flags += " --disable-background-networking --hide-scrollbars --remote-debugging-pipe"
    # High numbers, so that neither end is 3 or 4 when the child puts them there.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 40) for end in (read_end, write_end)]
    os.close(read_end)
    os.close(write_end)
    read_end, write_end = ends
    process = subprocess.Popen(
        [PROGRAM, *flags.split(), f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=place_pipes,  # noqa: PLW1509 - no thread of ours runs here
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    for end in ends:
        os.close(end)
    browser = Browser(to_browser, from_browser)
    try:
        yield browser
        browser.call("Browser.close", {})
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
