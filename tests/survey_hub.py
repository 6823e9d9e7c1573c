"""The stand-in hub with what a survey asks of one: lists, former ids, a limit of requests."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.builders import write_model
from tests.hub_fixtures import redirect
from tests.hub_server import Fault, Hub


@dataclass
class Grant:
    """A fixed window of requests, as the hub counts them; ``speed`` times faster than it says.

    Attributes:
        limit: requests in a window.
        window: its seconds, as they are told.
        speed: how many told seconds go by in a real one.
        retry_after: whether refusals carry ``Retry-After``.
        used: in each window so far.
        refused: requests that were.
    """

    limit: int
    window: int = 300
    speed: float = 1.0
    retry_after: bool = False
    used: list[int] = field(default_factory=list)
    refused: int = 0
    ends: float = 0.0
    lock: Any = field(default_factory=threading.Lock)

    def ask(self, what: str) -> tuple[bool, dict[str, str]]:
        """Whether a request is granted, and the headers of the answer."""
        with self.lock:
            now = time.monotonic() * self.speed
            if now >= self.ends:
                self.ends = now + self.window
                self.used.append(0)
            granted = self.used[-1] < self.limit
            if granted:
                self.used[-1] += 1
            else:
                self.refused += 1
            left, rest = self.limit - self.used[-1], math.floor(self.ends - now)
            head = {"RateLimit": f'"{what}";r={left};t={rest}'}
            head["RateLimit-Policy"] = f'"fixed window";"{what}";q={self.limit};w={self.window}'
            if not granted and self.retry_after:
                head["Retry-After"] = str(rest + 1)
            return granted, head


class SurveyHub(Hub):
    """A hub that lists.

    Attributes:
        about: repository to what a list says of it: ``base``, ``tags``, ``downloads``, ...
        former: old ids to present ones.
        grants: ``resolvers`` or ``api`` to their limits.
        page: models in a page of a list.
        drip: seconds between two bytes of a file, for paths that hold a key.
    """

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(latency)
        self.about: dict[str, dict[str, Any]] = {}
        self.former: dict[str, str] = {}
        self.grants: dict[str, Grant] = {}
        self.page = 100
        self.drip: dict[str, float] = {}
        plain: Any = self._server.RequestHandlerClass
        hub = self

        class Handler(plain):  # type: ignore[misc]
            def _route(self, fault: Fault) -> None:
                parts = urlsplit(self.path)
                what = "api" if parts.path.startswith("/api/") else "resolvers"
                self.rate: dict[str, str] = {}
                if what in hub.grants:
                    granted, self.rate = hub.grants[what].ask(what)
                    if not granted:
                        self._send(429, b"{}")
                        return
                if parts.path == "/api/models":
                    self._list(parse_qs(parts.query))
                    return
                name, slash, rest = parts.path.removeprefix("/api/models/").partition("/")
                if what == "api" and name in hub.former:
                    self.path = f"/api/models/{hub.former[name]}{slash}{rest}"
                super()._route(fault)

            def _list(self, asked: dict[str, list[str]]) -> None:
                base = asked["filter"][0].removeprefix("base_model:finetune:")
                found = [name for name, said in hub.about.items() if said["base"] == base]
                task = asked.get("pipeline_tag", [None])[0]
                if task:
                    found = [name for name in found if hub.about[name].get("pipeline_tag") == task]
                key = asked["sort"][0]
                found.sort(key=lambda name: -hub.about[name].get(key, 0))
                start, size = int(asked.get("at", ["0"])[0]), int(asked["limit"][0])
                size = min(size, hub.page)
                entries = [self._entry(name) for name in found[start : start + size]]
                head = {}
                if start + size < len(found):
                    following = urlencode({**asked, "at": start + size}, doseq=True)
                    head["Link"] = f'<{hub.url}/api/models?{following}>; rel="next"'
                self._send(200, json.dumps(entries).encode(), head)

            def _entry(self, name: str) -> dict[str, Any]:
                said = {k: v for k, v in hub.about[name].items() if k != "base"}
                if name not in hub.repos:  # deleted between listing and reading
                    paths = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
                    return {"id": name, "sha": "0" * 40, "siblings": paths, **said}
                return {**self._listing(name, hub.repos[name]), **said}

            def _head(self, status: int, head: dict[str, str], length: int) -> None:
                super()._head(status, {**head, **getattr(self, "rate", {})}, length)

            def _bytes(self, path: Path, start: int, length: int) -> None:
                pause = next((s for key, s in hub.drip.items() if key in self.path), 0.0)
                if not pause:
                    super()._bytes(path, start, length)
                    return
                for place in range(start, start + length):
                    super()._bytes(path, place, 1)
                    self.wfile.flush()
                    time.sleep(pause)

        self._server.RequestHandlerClass = Handler

    def tuned(self, name: str, folder: Path, base: str = "o/pre", **said: Any) -> str:
        """Publish a fine-tune that lists name."""
        self.about[name] = {"base": base, **said}
        return self.add(name, folder)


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SurveyHub]:
    """A hub with ``o/pre`` and its fine-tunes ``o/one`` to ``o/three``, most downloaded first."""
    monkeypatch.chdir(tmp_path)
    with SurveyHub() as server:
        server.add("o/pre", write_model(tmp_path / "repos" / "pre", seed=0))
        for seed, name in enumerate(("one", "two", "three"), start=1):
            folder = write_model(tmp_path / "repos" / name, seed=seed)
            server.tuned(f"o/{name}", folder, downloads=100 - seed)
        redirect(monkeypatch, server.url, tmp_path / "home")
        yield server
