"""What --overwrite deletes: what a run's manifest lists, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Beftkit, refused, tree

pytestmark = pytest.mark.slow

DATA = ("base", "--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--device", "cpu",
        "--max-steps", "2", "-q")  # fmt: skip
RUN = ("train", *DATA, "-o", "out")
PRECIOUS = "precious"


@pytest.fixture
def out(workplace: Path, beftkit: Beftkit) -> Path:
    assert beftkit(*RUN, "--bias", "v").code == 0
    return workplace / "out"


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PRECIOUS)
    return path


def test_a_manifest_lists_all_that_a_run_made(workplace: Path, beftkit: Beftkit) -> None:
    snap = ("--save-snapshots", "--save-steps", "1")
    for more in (("--bias", "v", *snap), ("--bias", "full"), ("--seeds", "0,1", "--bias", "q")):
        assert beftkit(*RUN, *more, "--overwrite").code == 0
        for folder in (workplace / "out", *(workplace / "out").glob("seed-*")):
            assert "manifest.json" in tree(folder)
        mine = put(workplace / "out" / "mine.txt")
        assert beftkit(*RUN, "--bias", "none", "--overwrite").code == 0
        assert sorted(path.name for path in (workplace / "out").iterdir()) == [
            ".beftkit.lock", "adapter", "all_results.json", "log.jsonl", "manifest.json",
            "mine.txt", "provenance.json", "run.yaml", "state", "trainer_state.json",
        ]  # fmt: skip
        mine.unlink()


@pytest.mark.parametrize(
    "name", ["model/a.txt", "state/a.txt", "snapshots/a.txt", "seed-1/state/a.txt", "adapter/x/a"]
)
def test_what_is_not_listed_stays(name: str, out: Path, beftkit: Beftkit) -> None:
    mine = put(out / name)
    assert beftkit(*RUN, "--bias", "none", "--overwrite").code == 0
    assert mine.read_text() == PRECIOUS


@pytest.mark.parametrize(
    "name", ["adapter/mine.txt", "state/step-00000099.safetensors", "trainer_state.json"]
)
def test_what_would_be_replaced_must_be_listed(name: str, out: Path, beftkit: Beftkit) -> None:
    listed = json.loads((out / "manifest.json").read_text())
    listed["files"] = [one for one in listed["files"] if one.split("/")[0] != name.split("/")[0]]
    (out / "manifest.json").write_text(json.dumps(listed))
    put(out / name)
    before = tree(out)
    refused(beftkit(*RUN, "--bias", "v", "--overwrite"), "does not list it as made by a run")
    before.pop(".beftkit.lock")
    assert {k: v for k, v in tree(out).items() if k != ".beftkit.lock"} == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("a: b\n", "its run.yaml is no run's, so nothing is replaced"),
        ("- 1\n", "its run.yaml is no run's"),
        (None, "holds a run without manifest.json"),
    ],
)
def test_a_folder_of_others_is_no_run(
    settings: str | None, message: str, out: Path, beftkit: Beftkit
) -> None:
    """None: the settings of a run of ours."""
    other = out.parent / "other"
    for name in ("model/weights.bin", "state/a", "seed-1/state/b", "log.jsonl", "adapter/c"):
        put(other / name)
    shutil.copy(out / "run.yaml", other)
    if settings is not None:
        (other / "run.yaml").write_text(settings)
    before = tree(other)
    refused(beftkit(*RUN[:-1], "other", "--bias", "v", "--overwrite"), message, 1500)
    assert tree(other) == before


def test_a_manifest_reaches_nothing_outside(out: Path, beftkit: Beftkit) -> None:
    outside = put(out.parent / "outside.txt")
    for name in ("../outside.txt", str(outside), "state/../../outside.txt"):
        listed = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps({**listed, "files": [name]}))
        refused(beftkit(*RUN, "--bias", "v", "--overwrite"), "which is not below out")
    (out / "manifest.json").write_text("{")
    refused(beftkit(*RUN, "--bias", "v", "--overwrite"), "out/manifest.json: damaged")
    assert outside.read_text() == PRECIOUS


@pytest.mark.parametrize("name", ["state", "model", "adapter/adapter_config.json", "seed-0"])
def test_no_link_is_followed(name: str, out: Path, beftkit: Beftkit) -> None:
    place = out.parent / "place"
    shutil.copytree(out / "state", place)
    mine = put(place / "adapter_config.json")
    path = out / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(mine if "." in name else place)
    before = tree(place)
    refused(beftkit(*RUN, "--bias", "v", "--overwrite"), f"out/{name}: is a symbolic link, which")
    assert tree(place) == before and path.is_symlink()


@pytest.mark.parametrize("name", ["state", "log.jsonl", ".beftkit.lock", "seed-0/state"])
def test_no_link_is_written_through(name: str, out: Path, beftkit: Beftkit) -> None:
    """A state there would be deleted, a log cut."""
    place = out.parent / "place"
    shutil.copytree(out, place)
    (place / name).parent.mkdir(exist_ok=True)
    before = tree(place)
    path = out / name
    path.parent.mkdir(exist_ok=True)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(place / name)
    ran = beftkit("train", "-o", "out", "--resume", "-q")
    refused(ran, f"out/{name}: is a symbolic link, which is not followed")
    assert tree(place) == before


def test_a_run_of_an_older_version_is_taken_up(out: Path, beftkit: Beftkit) -> None:
    (out / "manifest.json").unlink()
    (out / "all_results.json").unlink()
    assert beftkit("train", "-o", "out", "--resume", "-q").code == 0
    assert beftkit(*RUN, "--bias", "none", "--overwrite").code == 0


@pytest.fixture(params=[0o077, 0o002, 0o022])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("bias", ["v", "full"])
def test_rights_are_as_the_umask_has_them(
    bias: str, mask: int, workplace: Path, beftkit: Beftkit
) -> None:
    assert beftkit(*RUN, "--bias", bias, "--save-snapshots").code == 0
    for path in [workplace / "out", *(workplace / "out").rglob("*")]:
        if path.name != ".beftkit.lock":
            wanted = (0o777 if path.is_dir() else 0o666) & ~mask
            assert oct(path.stat().st_mode & 0o777) == oct(wanted), path


SELECT = ("select", *DATA[:-3], "--epochs", "1", "--candidates", "q,v", "--no-fisher", "-q")
CELL = "cells/all-e1-seed0"


def test_a_selection_replaces_what_it_lists(workplace: Path, beftkit: Beftkit) -> None:
    assert beftkit(*SELECT, "--verify", "-o", "sel").code == 0
    sel = workplace / "sel"
    mine = [put(sel / name) for name in ("a.txt", f"{CELL}/a.txt", f"{CELL}/probe/state/a.txt")]
    mine.append(put(sel / "cells" / "other" / "model" / "a.txt"))
    ran = beftkit(*SELECT, "--overwrite", "-o", "sel")
    assert ran.code == 0, ran
    assert all(path.read_text() == PRECIOUS for path in mine)
    assert not (sel / CELL / "q").exists() and (sel / CELL / "cell.json").is_file()
    for path in mine:
        path.unlink()
    ran = beftkit(*SELECT, "--overwrite", "--seeds", "1", "-o", "sel")
    assert ran.code == 0 and not (sel / CELL).exists(), ran


@pytest.mark.parametrize("settings", ["a: b\n", None])
def test_a_folder_of_others_is_no_selection(
    settings: str | None, workplace: Path, beftkit: Beftkit
) -> None:
    """None: a selection's settings."""
    assert beftkit(*SELECT, "-o", "sel").code == 0
    other = workplace / "other"
    put(other / CELL / "probe" / "state" / "a")
    shutil.copy(workplace / "sel" / "select.yaml", other)
    if settings is not None:
        (other / "select.yaml").write_text(settings)
    before = tree(other)
    message = "its select.yaml is no selection's" if settings else "a selection without manifest"
    refused(beftkit(*SELECT, "--overwrite", "-o", "other"), message, 1500)
    assert tree(other) == before


def test_a_run_in_a_cell_without_a_manifest_is_not_replaced(
    workplace: Path, beftkit: Beftkit
) -> None:
    assert beftkit(*SELECT, "-o", "sel").code == 0
    probe = workplace / "sel" / CELL / "probe"
    (probe / "manifest.json").unlink()
    before = tree(probe)
    refused(beftkit(*SELECT, "--overwrite", "-o", "sel"), f"{CELL}/probe: holds a run without")
    assert tree(probe) == before
    shutil.move(probe, workplace / "place")
    probe.symlink_to(workplace / "place")
    refused(beftkit(*SELECT, "--overwrite", "-o", "sel"), f"{CELL}/probe: is a symbolic link")
    assert tree(workplace / "place") == before


def test_auto_leaves_a_folder_of_others_alone(workplace: Path, beftkit: Beftkit) -> None:
    run = ("train", *DATA[:-3], "--epochs", "1", "--bias", "auto", "--overwrite", "-q", "-o")
    put(workplace / "other" / "select" / "cells" / "a")
    (workplace / "other" / "run.yaml").write_text("a: b\n")
    before = tree(workplace / "other")
    refused(beftkit(*run, "other"), "its run.yaml is no run's", 1500)
    assert tree(workplace / "other") == before


def test_a_run_that_was_refused_before_its_first_update_is_replaced(
    workplace: Path, beftkit: Beftkit
) -> None:
    """But settings that somebody wrote there are not."""
    refused(beftkit(*RUN, "--max-length", "1"), "--max-length 1 leaves no room")
    assert Path("out/run.yaml").is_file()
    assert beftkit(*RUN).code == 0
    refused(beftkit(*RUN), "out: holds a run; --resume takes it up, --overwrite replaces it")
    own = put(workplace / "own" / "run.yaml")
    refused(beftkit(*RUN[:-1], "own"), "own: holds a run; --resume")
    assert own.read_text() == PRECIOUS


def test_a_selection_of_which_nothing_was_made_is_replaced(
    workplace: Path, beftkit: Beftkit
) -> None:
    """But one with an update in it, a result, or a file of somebody's is not."""
    run = (*SELECT, "-o", "sel")
    refused(beftkit(*run, "--max-length", "2"), "no cell came to its end", 400)
    sel, held = workplace / "sel", "sel: holds a selection; --resume takes it up, --overwrite repl"
    cell = json.loads((sel / CELL / "cell.json").read_text())
    done = json.dumps({**cell, "methods": {"projection": {}}})
    for name, text in {"probe/log.jsonl": "{}", "notes.txt": PRECIOUS, "cell.json": done}.items():
        path = sel / CELL / name
        before = path.read_text() if path.exists() else None
        path.write_text(text)
        refused(beftkit(*run), held)
        assert path.read_text() == text
        path.unlink() if before is None else path.write_text(before)
    (sel / "cells" / "linked").symlink_to(workplace)
    refused(beftkit(*run), held)
    (sel / "cells" / "linked").unlink()
    assert beftkit(*run).code == 0
    refused(beftkit(*run), held)
