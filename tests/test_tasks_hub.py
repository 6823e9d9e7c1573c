"""Tasks from the hub: a stand-in on loopback, asked through the real ``datasets``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from beftkit import registry, tasks
from beftkit.errors import BeftError
from beftkit.registry import GLUE, SUPER_GLUE
from tests import task_files
from tests.hub_data import DataHub, Repos, publish
from tests.hub_server import Fault, Hub

ROOT = Path(__file__).parents[1]
REPOS = {"nyu-mll/glue": GLUE, "aps/super_glue": SUPER_GLUE}
IN_GLUE = [name for name in registry.ENCODED if name not in task_files.SUPER_GLUE]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Repos:
    """GLUE and SuperGLUE as Parquet."""
    root = tmp_path_factory.mktemp("repos")
    glue = task_files.write_dataset(root / "glue", IN_GLUE)
    super_glue = task_files.write_dataset(root / "super_glue", task_files.SUPER_GLUE)
    return {"nyu-mll/glue": (glue, GLUE), "aps/super_glue": (super_glue, SUPER_GLUE)}


@pytest.mark.parametrize("task", registry.ENCODED)
def test_every_task(task: str, data_hub: DataHub) -> None:
    data = tasks.load_task(task)
    wanted = task_files.splits(task)
    assert data.train is not None
    found = {"train": data.train, **data.validation}
    assert list(found) == [name for name in wanted if name != "test"]
    for name, split in found.items():
        assert list(split.texts) == task_files.wanted_texts(task, wanted[name])
        assert split.targets.tolist() == [row["label"] for row in wanted[name]]
    repo = "aps/super_glue" if task in task_files.SUPER_GLUE else "nyu-mll/glue"
    assert json.loads(json.dumps(data.source)) == {
        "kind": "hub", "repo": repo, "config": task, "revision": REPOS[repo],
        "examples": {name: len(split) for name, split in found.items()},
    }  # fmt: skip
    read = {entry.path for entry in data_hub.log if entry.path.endswith(".parquet")}
    assert all(f"/{REPOS[repo]}/{task}/" in path for path in read), "no other task is fetched"
    assert tasks.load_task(task, train=False).train is None


def outside(hub: Hub, home: Path, code: str, **environment: str) -> tuple[int, str]:
    """Run code as a user does: a process of its own, told of the hub by its environment."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given |= {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), **environment,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=120
    )
    error = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
    return done.returncode, done.stdout + error


@pytest.mark.slow
def test_the_environment_is_heeded(data_hub: DataHub, tmp_path: Path) -> None:
    """The endpoint, the token, and offline mode with and without a cached copy."""
    code = (
        "from beftkit import registry, tasks\n"
        "for revision in (None, 'main', '9' * 40):\n"
        "    data = tasks.load_task('cb', revision=revision)\n"
        "    print(len(data.train), data.source['revision'])"
    )
    data_hub.token = "hf_right"
    status, text = outside(
        data_hub, tmp_path / "a", code.replace(", '9' * 40", ""), HF_TOKEN="hf_right"
    )
    assert (status, text) == (0, f"8 {SUPER_GLUE}\n" * 2)
    assert any(entry.token == "Bearer hf_right" for entry in data_hub.log)
    asked = len(data_hub.log)
    status, text = outside(data_hub, tmp_path / "a", code, HF_HUB_OFFLINE="1")
    assert status == 1
    assert text.startswith(f"8 {SUPER_GLUE}\n" * 2), "the cached copy"
    assert f"the cache has revision {SUPER_GLUE} only, not 999" in text
    status, text = outside(data_hub, tmp_path / "b", code, HF_HUB_OFFLINE="1")
    assert (status, len(data_hub.log)) == (1, asked)
    assert text.startswith("beftkit.errors.Unreachable: aps/super_glue cb: ")
    assert "the hub cannot be reached and the cache has no copy" in text
    assert text.endswith("give a local copy with data_dir")


def refused(task: str, *parts: str, **options: Any) -> None:
    """One line, with a way out."""
    with pytest.raises(BeftError) as caught:
        tasks.load_task(task, **options)
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text
    assert len(text) < 320
    print("@@", text)


def test_what_the_hub_refuses(data_hub: DataHub, repos: Repos) -> None:
    refused("cb", "not found at revision no-such", "data_dir", revision="no-such")
    data_hub.faults.append(
        Fault("super_glue", status=403, headers={"X-Error-Code": "GatedRepo"}, body=b"{}")
    )
    refused("cb", "access is gated", "HF_TOKEN", "data_dir")
    data_hub.faults.clear()
    del data_hub.repos["aps/super_glue"]
    refused("cb", "aps/super_glue cb: not found at revision 3de24cf8", "data_dir")


def test_a_hub_that_is_not_there(data_hub: DataHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    refused("cb", "aps/super_glue cb: ", "data_dir")


def test_a_loading_script(data_hub: DataHub, tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "super_glue.py").write_text("raise SystemExit('run')")
    publish(data_hub, "aps/super_glue", folder, "1" * 40)
    refused("cb", "revision main needs a loading script, which is not run", revision="main")


def repaint(hub: DataHub, folder: Path, change: Any, **options: Any) -> None:
    """Publish CB anew after a change of what is written."""
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        task_files.write_dataset(folder, ["cb"], **options)
    publish(hub, "aps/super_glue", folder, SUPER_GLUE)


def rows(change: Any) -> Any:
    plain = task_files.splits

    def changed(task: str) -> Any:
        found = plain(task)
        change(found)
        return found

    return lambda patch: patch.setattr(task_files, "splits", changed)


def without(column: str) -> Any:
    def change(found: Any) -> None:
        for examples in found.values():
            for row in examples:
                del row[column]

    return change


CHANGES: dict[str, tuple[Any, str]] = {
    "no split": (rows(lambda found: found.pop("validation")), "no split 'validation'; it has tr"),
    "no column": (rows(without("premise")), "cb train: no column 'premise'; it has hypothesis"),
    "null text": (rows(lambda found: found["train"][1].update(premise=None)),
                  "aps/super_glue cb train, row 2: nothing in column 'premise'"),
    "unlabelled": (rows(lambda found: found["validation"][0].update(label=-1)),
                   "cb validation, row 1: -1 in column 'label' (-1 marks test sets"),
    "other labels": (lambda patch: patch.setitem(task_files.LABELS, "cb", ("no", "maybe", "yes")),
                     "its labels are no, maybe, yes; expected entailment, contradiction, neutral"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_dataset_that_is_not_what_it_should_be(
    case: str, data_hub: DataHub, tmp_path: Path
) -> None:
    change, message = CHANGES[case]
    repaint(data_hub, tmp_path / "new", change)
    refused("cb", message)


def test_labels_that_are_plain_numbers(data_hub: DataHub, tmp_path: Path) -> None:
    repaint(data_hub, tmp_path / "new", lambda patch: None, described=False)
    found = tasks.load_task("cb").validation["validation"]
    assert found.targets.tolist() == [row["label"] for row in task_files.splits("cb")["validation"]]
    change = rows(lambda found: found["train"][2].update(label=3))
    repaint(data_hub, tmp_path / "newer", change, described=False)
    publish(data_hub, "aps/super_glue", tmp_path / "newer", "2" * 40)
    refused("cb", "cb train, row 3: 3 in column 'label'", revision="main")
