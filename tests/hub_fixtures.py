"""Stand-in hubs that beftkit talks to in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import write_model
from tests.command import Ran
from tests.hub_data import DataHub, Repos, publish
from tests.hub_server import Hub
from tests.hub_uploads import UploadHub

ROOT = Path(__file__).parents[1]


def redirect(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Have the libraries of this process, which may have read the environment, ask this hub.

    The cache is an empty one below home, nobody is logged in, and nothing waits long.
    """
    from huggingface_hub import constants, hf_api

    from beftkit.checkpoints import fetch

    given = {
        "ENDPOINT": url, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": False, "HF_HUB_DOWNLOAD_TIMEOUT": 2,
        "HF_HUB_CACHE": str(home / "hub"), "HF_TOKEN_PATH": str(home / "token"),
        "HF_DATASETS_CACHE": home / "datasets",
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
    }  # fmt: skip
    for module in (constants, sys.modules.get("datasets.config")):
        for name, value in given.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", url)  # peft asks it
    if kept := sys.modules.get("transformers.utils.hub"):
        monkeypatch.setattr(kept, "_hf_api", None, raising=False)  # made once, with its endpoint
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.02)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with ``o/pre`` and ``o/post``; the working directory holds them in ``repos``."""
    monkeypatch.chdir(tmp_path)
    with Hub() as server:
        for seed, name in enumerate(("pre", "post"), start=1):
            server.add(f"o/{name}", write_model(tmp_path / "repos" / name, seed=seed))
        redirect(monkeypatch, server.url, tmp_path / "home")
        yield server


@pytest.fixture
def data_hub(repos: Repos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DataHub]:
    """A hub with the repositories that a module's fixture ``repos`` gives; an empty directory."""
    import transformers.utils.hub  # noqa: F401

    monkeypatch.chdir(tmp_path)
    with DataHub() as server:
        for name, (folder, commit) in repos.items():
            publish(server, name, folder, commit)
        redirect(monkeypatch, server.url, tmp_path / "home")
        yield server


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """An empty hub; somebody is logged in."""
    with UploadHub(tmp_path / "hub") as server:
        redirect(monkeypatch, server.url, tmp_path / "home")
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        server.token = "hf_right"
        yield server


def outside(hub: Hub, home: Path, *arguments: str | Path, **environment: str) -> Ran:
    """Run the command as a user does: a process of its own, told of the hub by its environment."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    paths = [str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
    given |= {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "beftkit", *map(str, arguments)],
        env=given, cwd=home.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def needed(folder: Path) -> int:
    """Bytes of headers and biases of a folder's weights, counted without the code under test."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        total += 8 + length
        for name, entry in header.items():
            if name.endswith(".bias"):
                begin, end = entry["data_offsets"]
                total += end - begin
    return total
