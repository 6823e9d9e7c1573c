"""A headless Chromium spoken to over two pipes: pages opened, looked at, and what went wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: the programs themselves: what lies in /usr/bin is a script that leaves its browser running
PLACES = ("/usr/lib/chromium/chromium-headless-shell", "/usr/lib/chromium/chromium")
NAMES = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome")
#: a browser reads from descriptor 3 and writes to 4
_BECOME = """
import fcntl, os, sys
pair = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for place, one in enumerate(pair, 3):
    os.dup2(one, place)
    os.close(one)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find() -> str | None:
    """A browser that can run without a screen, if there is one."""
    given = [os.environ.get("BEFTKIT_BROWSER", "")]
    paths = [*given, *PLACES, *(shutil.which(name) or "" for name in NAMES)]
    return next((path for path in paths if path and Path(path).is_file()), None)


class Page:
    """One page; `requests` and `errors` hold what it asked for and complained of."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._last, self._held = write, read, 0, b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        [page] = [one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> Any:
        """Call a method of the DevTools protocol."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def open(self, path: Path, width: int, dark: bool = False) -> None:
        """Load a file into a window of this width."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
             mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.requests.clear()
        self("Page.navigate", url=path.resolve().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What an expression is worth on the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get(
            "value"
        )

    def _next(self) -> Any:
        while b"\0" not in self._held:
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser is gone"
            self._held += piece
        line, self._held = self._held.split(b"\0", 1)
        message = json.loads(line)
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(message["params"]))
            case "Log.entryAdded" if message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"])
        return message


@contextmanager
def page(program: str) -> Iterator[Page]:
    """A browser with an empty page, ended afterwards."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, str(to_read), str(back_write), program, *flags],
            pass_fds=(to_read, back_write),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(back_write)
        try:
            yield Page(to_write, back_read)
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_write)
            os.close(back_read)
