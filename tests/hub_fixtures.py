"""What the tests of hub references share: a stand-in hub that beftkit talks to in this process."""

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
from tests.hub_server import Hub

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with ``o/pre`` and ``o/post``; the cache is empty, nobody is logged in."""
    from huggingface_hub import constants

    from beftkit.checkpoints import fetch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.02)
    with Hub() as server:
        for seed, name in enumerate(("pre", "post"), start=1):
            server.add(f"o/{name}", write_model(tmp_path / "repos" / name, seed=seed))
        # huggingface_hub has read the environment by now, in an earlier test.
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
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
