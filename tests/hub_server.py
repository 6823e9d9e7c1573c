"""A stand-in for the Hugging Face hub on loopback, with faults that can be switched on.

It answers what huggingface_hub asks for (``/api/models/...``, ``/owner/name/resolve/...``), keeps a
log of requests and counts the bytes it serves.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_API = re.compile(
    r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)(/(?P<what>revision|tree)/(?P<revision>[^/]+))?"
)
_RESOLVE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_CHUNK = 1 << 16


@dataclass
class Fault:
    """What goes wrong with requests whose path contains ``match``, the first ``times`` of them.

    Attributes:
        match: part of the path.
        after: so many requests are answered properly first.
        times: so many go wrong.
        status: answer this, with these headers and this body.
        ignore_range: send the whole file with 200.
        content_range: say this instead of the truth; ``{a}``, ``{b}`` and ``{n}`` are filled in.
        short: leave out so many bytes at the end, and announce it so.
        long: send so many bytes too many, and announce it so.
        cut: announce all bytes, and break off after so many.
        encoding: claim this Content-Encoding.
        delay: wait so many seconds.
    """

    match: str = ""
    after: int = 0
    times: int = 1_000_000
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ignore_range: bool = False
    content_range: str | None = None
    short: int = 0
    long: int = 0
    cut: int | None = None
    encoding: str | None = None
    delay: float = 0.0


@dataclass
class Request:
    """One line of the log; ``served`` counts bytes of the body."""

    method: str
    path: str
    range: str | None
    token: str | None
    counted_as_download: bool
    status: int = 0
    served: int = 0


@dataclass
class Repo:
    """A repository: a folder, its commit, and the names of its revisions."""

    folder: Path
    commit: str
    revisions: set[str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep connections open

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up between two requests is no news for stderr, which tests read."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Hub:
    """The server; ``with Hub() as hub``.

    Attributes:
        url: for ``HF_ENDPOINT``.
        faults: see `Fault`; the first that fits a request strikes.
        log: all requests so far.
        token: where set, other tokens are refused.
        store: where set, big files are redirected to this other server.
        latency: seconds before every answer.
        busiest: most requests that were under way at once.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.token: str | None = None
        self.store: Hub | None = None
        self.latency = latency
        self.busy = self.busiest = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, folder: Path, *revisions: str) -> str:
        """Publish a folder as a repository; returns its commit."""
        commit = hashlib.sha1(f"{name} {folder}".encode()).hexdigest()
        self.repos[name] = Repo(folder, commit, {"main", commit, *revisions})
        return commit

    def served(self, suffix: str = "") -> int:
        """Bytes of bodies sent for paths that end so."""
        return sum(one.served for one in self.log if one.path.endswith(suffix))

    def requests(self, suffix: str = "") -> list[Request]:
        """Requests of paths that end so."""
        return [one for one in self.log if one.path.endswith(suffix)]

    def fault(self, path: str) -> Fault:
        """What goes wrong with this request, if anything."""
        with self.lock:
            for fault in self.faults:
                if fault.match not in path:
                    continue
                if fault.after:
                    fault.after -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return Fault()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # unbuffered, head and body of an answer wait 40 ms for each other's ACK

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            counted = "X-HF-Download-Counter" in self.headers
            token = self.headers.get("Authorization")
            entry = Request(self.command, path, self.headers.get("Range"), token, counted)
            with hub.lock:
                if path != "/api/agent-harnesses":  # asked by the client on its own account
                    hub.log.append(entry)
                hub.busy += 1
                hub.busiest = max(hub.busiest, hub.busy)
            self.entry = entry
            fault = hub.fault(path)
            time.sleep(hub.latency + fault.delay)
            try:
                if fault.status is not None:
                    self._send(fault.status, fault.body, fault.headers)
                elif hub.token and token not in (None, f"Bearer {hub.token}"):
                    self._refuse(401, None, "Invalid credentials in Authorization header")
                else:
                    self._route(fault)
                with hub.lock:  # before the client can have the answer and ask again
                    hub.busy -= 1
                self.wfile.flush()
            except OSError:  # the client has gone: that may be what it should do
                self.close_connection = True

        def _route(self, fault: Fault) -> None:
            raw = urlsplit(self.path).path
            match = _API.fullmatch(raw) or _RESOLVE.fullmatch(raw)
            if match is None:
                self._refuse(404, None)
                return
            repo = hub.repos.get(match["repo"])
            if repo is None:
                self._refuse(404, "RepoNotFound")
            elif unquote(match["revision"] or "main") not in repo.revisions:
                self._refuse(404, "RevisionNotFound")
            elif "path" not in match.groupdict():
                tree = match["what"] == "tree"
                found = self._tree(repo) if tree else self._listing(match["repo"], repo)
                self._send(200, json.dumps(found).encode())
            else:
                self._file(repo, unquote(match["path"]), fault)

        def _listing(self, name: str, repo: Repo) -> dict[str, Any]:
            files = sorted(path for path in repo.folder.rglob("*") if path.is_file())
            names = [{"rfilename": path.relative_to(repo.folder).as_posix()} for path in files]
            return {
                "id": name, "sha": repo.commit, "siblings": names, "private": False,
                "gated": False, "tags": [], "downloads": 0,
            }  # fmt: skip

        def _tree(self, repo: Repo) -> list[dict[str, Any]]:
            return [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in sorted(repo.folder.iterdir())
                if path.is_file()
            ]

        def _file(self, repo: Repo, name: str, fault: Fault) -> None:
            path = repo.folder / name
            if not path.is_file():
                self._refuse(404, "EntryNotFound", more={"X-Repo-Commit": repo.commit})
                return
            size = path.stat().st_size
            etag = hashlib.sha1(f"{path} {size}".encode()).hexdigest()
            head = {"X-Repo-Commit": repo.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if hub.store is not None and name.endswith(".safetensors"):
                head |= {
                    "Location": f"{hub.store.url}{urlsplit(self.path).path}?signed=1",
                    "X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(size),
                }  # fmt: skip
                self._send(302, b"", head)
                return
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            start, stop, status = 0, size, 200
            if asked and not fault.ignore_range:
                start, stop, status = int(asked[1]), min(int(asked[2]) + 1, size), 206
                if start >= size:
                    self._send(416, b"", {"Content-Range": f"bytes */{size}"})
                    return
                said = fault.content_range or "bytes {a}-{b}/{n}"
                head["Content-Range"] = said.format(a=start, b=stop - 1, n=size)
            if fault.encoding:
                head["Content-Encoding"] = fault.encoding
            announced = max(stop - start - fault.short, 0) + fault.long
            sent = announced if fault.cut is None else min(fault.cut, announced)
            self._head(status, head, announced)
            if self.command == "GET":
                self._bytes(path, start, sent)
            if sent < announced:
                self.close_connection = True

        def _bytes(self, path: Path, start: int, length: int) -> None:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                while length > 0:
                    block = os.pread(descriptor, min(_CHUNK, length), start)
                    block = block or bytes(min(_CHUNK, length))
                    self.wfile.write(block)
                    self.entry.served += len(block)
                    start, length = start + len(block), length - len(block)
            finally:
                os.close(descriptor)

        def _refuse(
            self, status: int, code: str | None, message: str = "", more: Any = None
        ) -> None:
            head = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
            self._send(status, b"{}", {**head, **(more or {})})

        def _send(self, status: int, body: bytes, head: dict[str, str] | None = None) -> None:
            self._head(status, head or {}, len(body))
            if self.command != "HEAD":
                self.wfile.write(body)
                self.entry.served += len(body)

        def _head(self, status: int, head: dict[str, str], length: int) -> None:
            self.entry.status = status
            self.send_response(status)
            for key, value in {**head, "Content-Length": str(length)}.items():
                self.send_header(key, value)
            self.end_headers()

    return Handler
