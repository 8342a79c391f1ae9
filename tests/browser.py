"""A real browser: Chromium without a window, asked for what a page shows, clicked, typed into and photographed.

Chromium is spoken to in its own protocol (Chrome DevTools Protocol) over two pipes, which needs no further package.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium, which nothing else of pidscale needs")
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
OPTIONS += [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
LOOK = """(() => {
  const images = [...document.images], body = document.body;
  const ground = getComputedStyle(body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number);
  return {missing: images.filter(i => !i.naturalWidth || !i.complete).map(i => i.src.slice(0, 99)), images: images.length,
    silent: images.filter(i => !i.alt).length, wider: document.documentElement.scrollWidth - innerWidth,
    dark: ground[0] + ground[1] + ground[2] < 384, width: innerWidth};
})()"""
SECONDS = 60


class Page:
    """A tab of the browser, with what went wrong in it."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._number, self._rest = read, write, 0, b""
        self._errors: list[str] = []
        self._asked: dict[str, str] = {}
        self._events: list[str] = []
        self._session: str | None = None
        self._context: str | None = None

    @property
    def errors(self) -> list[str]:
        """Errors and exceptions of the page's scripts, and what it has asked of the network."""
        return [*self._errors, *self._asked.values()]

    def open(self, address: str | Path, width: int = 1280, dark: bool = False) -> dict[str, Any]:
        """Open a page on a screen of some width, and return what LOOK finds of it."""
        if isinstance(address, Path):
            address = address.resolve().as_uri()
        self._begin()
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._errors, self._asked, self._events = [], {}, []
        self._ask("Page.navigate", url=address)
        self._until("Page.loadEventFired")
        self.value("Promise.all([...document.images].map(i => i.decode().catch(() => 0))).then(() => 0)")
        end = time.monotonic() + SECONDS / 6
        while (found := self.value(LOOK))["dark"] != dark and time.monotonic() < end:  # a script may choose the colours
            time.sleep(0.1)
        return found

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives in the page."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, element: str) -> None:
        """Press the mouse in the middle of an element, which is an expression of JavaScript."""
        middle = f"""(() => {{ const e = {element}; e.scrollIntoView({{block: "center", inline: "center"}});
          const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
        x, y = self.value(middle)
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int) -> None:
        """Press a key, by its name and its number."""
        typed = {"text": "\r"} if key == "Enter" else {}
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **typed)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def clipboard(self) -> str:
        """Return what the last copy holds."""
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self._ask("Browser.grantPermissions", permissions=permissions, browserContextId=self._context)
        self._ask("Page.bringToFront")
        text = self.value("navigator.clipboard.readText()")
        assert isinstance(text, str)
        return text

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page, as PNG."""
        found = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _begin(self) -> None:
        """Begin a tab that remembers nothing of what an earlier page has stored, such as the colours that it chose."""
        if self._context is not None:
            self._ask("Target.disposeBrowserContext", browserContextId=self._context)
        self._context = self._ask("Target.createBrowserContext")["browserContextId"]
        target = self._ask("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        own = self._number
        message: dict[str, Any] = {"id": own, "method": method, "params": params}
        if self._session is not None and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == own:
                assert "error" not in found, (method, found["error"])
                return found.get("result", {})

    def _until(self, event: str) -> None:
        while event not in self._events:
            self._next()

    def _next(self) -> dict[str, Any]:
        """Return the next message of the browser; errors of the page are kept."""
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no answer of {BROWSER} for {SECONDS} s"
            part = os.read(self._read, 2**20)
            assert part, f"{BROWSER} has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        method, params = found.get("method", ""), found.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self._errors.append(str(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self._errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self._errors.append(str(params["args"])[:500])
        elif method == "Network.requestWillBeSent":
            address = params["request"]["url"]
            if not address.startswith(("data:", "file:", "about:", "http://127.0.0.1:")):
                self._asked[params["requestId"]] = f"asked the network for {address[:200]}"
        elif method == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            self._asked.pop(params["requestId"], None)
        return found


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start Chromium, with its profile below a folder, and yield a tab of it."""
    assert BROWSER is not None
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    command = [BROWSER, *OPTIONS, f"--user-data-dir={folder / 'profile'}"]
    shell = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", *command]
    with open(folder / "browser.log", "wb") as log:
        process = subprocess.Popen(shell, pass_fds=(to_browser, from_browser), stdout=log, stderr=log)
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(to_us, from_us)
    finally:
        with suppress(OSError):
            os.write(from_us, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_us)
        os.close(to_us)
