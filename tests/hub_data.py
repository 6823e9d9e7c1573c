"""The stand-in hub with datasets in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub_server import Fault, Hub, Repo

#: name -> folder and commit
Repos = dict[str, tuple[Path, str]]
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)/(?P<path>.+)")


class DataHub(Hub):
    """The stand-in hub, whose repositories are datasets, with folders in them."""

    def __init__(self) -> None:
        super().__init__()
        plain: Any = self._server.RequestHandlerClass
        hub = self

        class Handler(plain):  # type: ignore[misc]
            def _route(self, fault: Fault) -> None:
                self.path = re.sub(r"^/api/datasets/|^/datasets/", self.there, self.path)
                match = _TREE.fullmatch(urlsplit(self.path).path)
                repo = hub.repos.get(match["repo"]) if match else None
                if match is None or repo is None:
                    super()._route(fault)
                    return
                found = hub.listing(repo, unquote(match["path"]))
                if found:
                    self._send(200, json.dumps(found).encode())
                else:
                    self._refuse(404, "EntryNotFound")

            @staticmethod
            def there(match: re.Match[str]) -> str:
                return "/api/models/" if "api" in match[0] else "/"

            def _tree(self, repo: Repo) -> list[dict[str, Any]]:
                return hub.listing(repo, "")

        self._server.RequestHandlerClass = Handler

    @staticmethod
    def listing(repo: Repo, folder: str) -> list[dict[str, Any]]:
        """Everything below a folder; empty where there is none."""
        found: list[dict[str, Any]] = []
        for path in sorted((repo.folder / folder).rglob("*")):
            name = path.relative_to(repo.folder).as_posix()
            entry = {"path": name, "oid": "0" * 40}
            if path.is_file():
                found.append({**entry, "type": "file", "size": path.stat().st_size})
            else:
                found.append({**entry, "type": "directory"})
        return found


def publish(hub: Hub, name: str, folder: Path, commit: str) -> None:
    hub.repos[name] = Repo(folder, commit, {"main", commit})
