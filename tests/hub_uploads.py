"""The stand-in hub with what a push asks for: whoami, a new repository, files, one commit.

What was pushed is served at once by the same server, at a commit of its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import yaml

from tests.hub_data import DataHub
from tests.hub_server import Repo

_REPO = r"[\w.-]+/[\w.-]+"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class UploadHub(DataHub):
    """Datasets and models to read, and models to write.

    Attributes:
        root: where pushed repositories lie, a folder for each commit.
        owners: namespaces that the token may write to.
        role: of the token.
        mode: ``regular``, or ``lfs``: how safetensors files have to be sent.
        commits: messages and paths of all commits.
        writes: requests that change something, by method and path.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root, self.owners, self.role, self.mode = root, {"o"}, "write", "regular"
        self.commits: list[tuple[str, list[str]]] = []
        self.writes: list[str] = []
        self.blobs: dict[str, bytes] = {}
        plain: Any = self._server.RequestHandlerClass
        hub = self

        class Handler(plain):  # type: ignore[misc]
            def do_POST(self) -> None:
                self.sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._answer()

            do_PUT = do_POST

            def _route(self, fault: Any) -> None:
                path = unquote(self.path.partition("?")[0])
                if self.command in ("POST", "PUT"):
                    hub.writes.append(f"{self.command} {path}")
                for pattern, answer in hub.ways.items():
                    match = re.fullmatch(pattern, f"{self.command} {path}")
                    if match is None:
                        continue
                    if self.command != "PUT" and not self.headers.get("Authorization"):
                        self._refuse(401, None, "Invalid username or password.")
                        return
                    sent = b"" if self.command == "GET" else self.sent
                    status, body = answer(sent, *match.groups())
                    message = {"X-Error-Message": body["error"]} if "error" in body else {}
                    self._send(status, json.dumps(body).encode(), message)
                    return
                super()._route(fault)

        self._server.RequestHandlerClass = Handler
        self.ways: dict[str, Callable[..., tuple[int, dict[str, Any]]]] = {
            "GET /api/whoami-v2": self.whoami,
            "POST /api/repos/create": self.create,
            "POST /api/validate-yaml": self.validate,
            rf"POST /api/models/({_REPO})/preupload/(.+)": self.preupload,
            rf"POST /({_REPO})\.git/info/lfs/objects/batch": self.batch,
            r"PUT /blobs/(\w+)": self.put,
            rf"POST /api/models/({_REPO})/commit/(.+)": self.commit,
        }

    def whoami(self, _: bytes) -> tuple[int, dict[str, Any]]:
        token = {"displayName": "t", "role": self.role}
        return 200, {"type": "user", "name": "o", "orgs": [], "auth": {"accessToken": token}}

    def create(self, sent: bytes) -> tuple[int, dict[str, Any]]:
        asked = json.loads(sent)
        owner = asked.get("organization") or "o"
        name = f"{owner}/{asked['name']}"
        if owner not in self.owners or self.role == "read":
            return 403, {"error": f'no rights to create a model under the namespace "{owner}"'}
        found = {"url": f"{self.url}/{name}"}
        if name in self.repos:
            return 409, {**found, "error": "You already created this model repo"}
        self._advance(name, {})
        return 200, found

    def validate(self, sent: bytes) -> tuple[int, dict[str, Any]]:
        """What the hub says of a card's front matter: a few of its rules."""
        content = json.loads(sent)["content"]
        match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        head = yaml.safe_load(match[1]) if match else None
        wrong = []
        if not isinstance(head, dict):
            wrong.append("no metadata")
        else:
            bases = head.get("base_model", [])
            for base in [bases] if isinstance(bases, str) else bases:
                if not _HUB_ID.fullmatch(base):
                    wrong.append(f'"base_model" with value "{base}" is not valid')
            for result in (
                one for entry in head.get("model-index", ()) for one in entry["results"]
            ):
                if not {"type", "name"} <= result["dataset"].keys() or "type" not in result["task"]:
                    wrong.append('"model-index" is not valid')
        found = {"errors": [{"message": text} for text in wrong], "warnings": []}
        return (400, {**found, "error": wrong[0]}) if wrong else (200, found)

    def preupload(self, sent: bytes, name: str, revision: str) -> tuple[int, dict[str, Any]]:
        files = [
            {"path": one["path"], "shouldIgnore": False,
             "uploadMode": self.mode if one["path"].endswith(".safetensors") else "regular"}
            for one in json.loads(sent)["files"]
        ]  # fmt: skip
        return 200, {"files": files}

    def batch(self, sent: bytes, name: str) -> tuple[int, dict[str, Any]]:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.url}/blobs/{one['oid']}"}}}
            for one in json.loads(sent)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def put(self, sent: bytes, oid: str) -> tuple[int, dict[str, Any]]:
        if hashlib.sha256(sent).hexdigest() != oid:
            return 400, {"error": "another checksum"}
        self.blobs[oid] = sent
        return 200, {}

    def commit(self, sent: bytes, name: str, revision: str) -> tuple[int, dict[str, Any]]:
        header, *lines = (json.loads(line) for line in sent.splitlines())
        files: dict[str, bytes | None] = {}
        for line in lines:
            value = line["value"]
            files[value["path"]] = {
                "file": lambda one: base64.b64decode(one["content"]),
                "lfsFile": lambda one: self.blobs[one["oid"]],
                "deletedFile": lambda one: None,
            }[line["key"]](value)
        self.commits.append((header["value"]["summary"], sorted(files)))
        oid = self._advance(name, files)
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{oid}", "commitOid": oid}

    def _advance(self, name: str, files: dict[str, bytes | None]) -> str:
        """A new commit of a repository, in a folder of its own."""
        former = self.repos.get(name)
        oid = hashlib.sha1(f"{name} {len(self.commits)}".encode()).hexdigest()
        folder = self.root / name / oid
        shutil.copytree(former.folder, folder) if former else folder.mkdir(parents=True)
        for path, data in files.items():
            if data is None:
                (folder / path).unlink()
            else:
                (folder / path).write_bytes(data)
        self.repos[name] = Repo(folder, oid, {"main", oid})
        return oid
