"""`beftkit select` and `beftkit train --bias auto`, run on a tiny model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import beftkit as package
from tests import tiny_run
from tests.command import Beftkit, Ran, refused
from tests.forked import Command, start_pair, until

pytestmark = pytest.mark.slow

DATA = ("--train-file", "train.jsonl", "--validation-file", "dev.jsonl", "--batch-size", "8",
        "--device", "cpu")  # fmt: skip
GRID = (*DATA, "--epochs", "1", "--lrs", "1e-2,1e-3")
Select = Callable[..., Ran]


@pytest.fixture(scope="module", autouse=True)
def whole(place: Path) -> None:
    """In ``out``: a verified selection over two learning rates."""
    command = Command(place, ["select", "base", *GRID, "--verify", "-o", "out"])
    assert command.wait(120) == 0, command.said


@pytest.fixture
def beside(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with base and data alone in it."""
    tiny_run.link(tiny, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def select(beside: Path, beftkit: Beftkit) -> Select:
    """Run it beside the data."""

    def run(*arguments: str) -> Ran:
        return beftkit("select", *arguments)

    return run


def document(folder: Path) -> Any:
    return json.loads((folder / "select.json").read_text())


def test_a_selection_and_its_folder(place: Path) -> None:
    found = document(place / "out")
    assert set(found["targets"]) == {"projection", "magnitude", "fisher"}
    assert found["target" if "target" in found else "targets"]
    assert [group["lr"] for group in found["groups"]] == [1e-2, 1e-3]
    group = found["groups"][0]
    assert set(group["verified"]) == {"q", "k", "v", "none", "all"}
    assert group["methods"]["projection"]["roles"]["k"]["inert"] == "yes"
    assert group["methods"]["projection"]["target"] != "k"
    cell = found["cells"][0]
    assert cell["runs"]["all"] == cell["runs"]["probe"], "the probe is the run of all biases"
    assert set(cell["track"]["v"][0]) and len(cell["track"]["v"]) == cell["runs"]["probe"]["steps"]
    adapter = place / "out" / cell["runs"]["v"]["folder"] / "adapter"
    assert adapter.is_dir() and not [*adapter.glob("tokenizer*")], "the base's own is enough here"
    assert 'AutoTokenizer.from_pretrained("ADAPTER")' not in (adapter / "README.md").read_text()


def test_its_numbers_are_those_of_score_and_fisher(place: Path) -> None:
    cell = document(place / "out")["cells"][0]
    probe = place / "out" / cell["runs"]["probe"]["folder"]
    for method in ("projection", "magnitude"):
        judge = package.score(place / "base", probe / "adapter", method=method)
        for role, one in judge.roles.items():
            figure = "projection" if method == "projection" else "magnitude_l1"
            assert cell["methods"][method]["roles"][role]["score"] == one.figures[figure]
            assert cell["methods"][method]["roles"][role]["rank"] == one.rank
    judge = package.fisher(
        str(place / "base"), train_file=str(place / "train.jsonl"), batch_size=8, device="cpu"
    )
    for role, one in judge.roles.items():
        if one.inert == "yes":
            continue
        found = cell["methods"]["fisher"]["roles"][role]["score"]
        assert found == pytest.approx(one.figures["fisher"], rel=1e-4), role


def test_what_is_finished_is_not_repeated(place: Path, select: Select) -> None:
    shutil.copytree(place / "out", "out")
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("log.jsonl")}
    again = select("--resume", "-o", "out", "--format", "json")
    assert again.code == 0, again
    assert again.err.count("finished before") == 2
    assert json.loads(again.out) == document(place / "out")
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").rglob("log.jsonl")}


def test_a_killed_grid_goes_on(place: Path, beside: Path) -> None:
    arguments = ["select", "base", *GRID, "--verify"]
    command = Command(beside, [*arguments, "-o", "out"])
    second = beside / "out" / "cells" / "all-lr0.001-e1-seed0" / "none"
    assert until(second.is_dir, command), command.said
    command.kill()
    done = beside / "out" / "cells" / "all-lr0.01-e1-seed0" / "cell.json"
    stamp = done.stat().st_mtime_ns
    command = Command(beside, ["select", "-o", "out", "--resume"])
    assert command.wait(120) == 0, command.said
    assert "finished before" in command.said
    assert done.stat().st_mtime_ns == stamp
    mine, theirs = document(beside / "out"), document(place / "out")
    for one, other in zip(mine["cells"], theirs["cells"], strict=True):
        assert one["methods"] == other["methods"]
        for bias in other["runs"]:
            assert one["runs"][bias]["last"] == other["runs"][bias]["last"]


def test_a_signal_stops_it_with_its_state_saved(beside: Path) -> None:
    command = Command(beside, ["select", "base", *DATA, "--epochs", "40", "-o", "out"])
    log = beside / "out" / "cells" / "all-e40-seed0" / "probe" / "log.jsonl"
    # An empty log is there before the first update; a signal so early ends it at once.
    assert until(lambda: log.is_file() and log.stat().st_size > 0, command), command.said
    command.send(signal.SIGTERM)
    assert command.wait() == 143, command.said
    assert "--output out --resume takes it up" in command.said
    assert not (beside / "out" / "select.json").exists()


def test_a_cell_that_fails_is_said_and_the_rest_goes_on(select: Select) -> None:
    ran = select("base", *DATA, "--epochs", "1", "--lrs", "1e30,1e-2", "--no-fisher", "-o", "out",
                 "--format", "json")  # fmt: skip
    assert ran.code == 0, ran
    found = json.loads(ran.out)
    assert "not finite" in found["cells"][0]["failed"]["probe"]
    assert [group["lr"] for group in found["groups"]] == [1e-2]
    assert set(found["targets"]) == {"projection", "magnitude"}
    assert any("failed" in note for note in found["notes"])


def test_where_every_cell_fails_the_first_reason_is_said(select: Select) -> None:
    ran = select("base", *DATA, "--epochs", "1", "--lr", "1e30", "-q", "-o", "out")
    refused(ran, "no cell came to its end", limit=600)
    assert "not finite" in ran.err


def test_a_probe_may_be_short(select: Select) -> None:
    ran = select("base", *DATA, "--epochs", "1", "--probe-steps", "3", "--no-fisher", "-o", "out",
                 "--format", "json")  # fmt: skip
    assert ran.code == 0, ran
    cell = json.loads(ran.out)["cells"][0]
    assert cell["runs"]["probe"]["steps"] == 3
    assert cell["settled"]["steps"] == 3


def test_two_processes_share_out_the_cells(place: Path, beside: Path) -> None:
    pair = start_pair(beside, ["select", "base", *GRID, "--verify", "-o", "out"])
    assert [command.wait(120) for command in pair] == [0, 0], [one.said for one in pair]
    mine, theirs = document(beside / "out"), document(place / "out")
    assert [one["methods"] for one in mine["cells"]] == [one["methods"] for one in theirs["cells"]]
    assert mine["targets"] == theirs["targets"]
    for path in (beside / "out" / "cells").glob("*/cell.json"):  # as if nothing had been verified
        cell = json.loads(path.read_text())
        path.write_text(json.dumps({**cell, "runs": {"probe": cell["runs"]["probe"]}}))
    pair = start_pair(beside, ["select", "-o", "out", "--verify", "--resume"])
    assert [command.wait(120) for command in pair] == [0, 0], [one.said for one in pair]
    assert [{*cell["runs"]} for cell in document(beside / "out")["cells"]] == [
        {*cell["runs"]} for cell in theirs["cells"]
    ]


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("base", *DATA), 2, "no --output was given"),
        (("base", *DATA[:2], "--verify", "-o", "new"), 2, "give --validation-file as well"),
        (("base", *DATA, "--candidates", "x", "-o", "new"), 2, "expected some of"),
        (("base", *DATA, "-o", "."), 1, "is no selection's folder"),
        (("base", "-o", "new"), 2, "neither --task nor --train-file"),
        (("nowhere/at/all", *DATA, "-o", "new"), 1, "nowhere/at/all: no such folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], code: int, message: str, select: Select
) -> None:
    ran = select(*arguments, *(["-q"] if "base" not in arguments else []))
    assert ran.code == code, ran
    assert message in ran.err and "Traceback" not in ran.err


def test_other_settings_are_refused(place: Path, select: Select) -> None:
    shutil.copytree(place / "out", "out")
    refused(select("base", *GRID, "-o", "out"), "holds a selection")
    other = select("base", *GRID, "--warmup", "3", "--resume", "-o", "out")
    refused(other, "was begun with --warmup", limit=400)


def test_auto_selects_and_trains_the_target(place: Path, beside: Path, beftkit: Beftkit) -> None:
    arguments = ("train", "base", *DATA, "--bias", "auto", "--epochs", "1", "--lr", "1e-2")
    ran = beftkit(*arguments, "-o", "out", "--format", "json")
    assert ran.code == 0, ran
    target = document(Path("out/select"))["targets"]["projection"]
    assert json.loads(ran.out)["bias"] == target
    assert yaml.safe_load(Path("out/run.yaml").read_text())["bias"] == target
    assert f"moved {target} most" in ran.err
    alone = package.train(
        "base", train_file="train.jsonl", validation_file="dev.jsonl", batch_size=8, device="cpu",
        bias=target, epochs=1, lr=1e-2, output="alone",
    )  # fmt: skip
    adapters = [Path(f"{name}/adapter/adapter_model.safetensors") for name in ("out", "alone")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()
    assert alone.bias == target
    refused(beftkit(*arguments, "-o", "out"), "is not empty")
    again = beftkit(*arguments, "-o", "out", "--resume")
    assert again.code == 0 and "came to its end before" in again.err, again
    replaced = beftkit(*arguments, "-o", "out", "--overwrite", "-q")
    assert replaced.code == 0, replaced
    assert os.path.exists("out/select/select.json")  # noqa: PTH110


def test_a_selection_can_be_verified_later(select: Select) -> None:
    first = select("base", *DATA, "--epochs", "1", "--candidates", "q,v", "-q", "-o", "out")
    assert first.code == 0, first
    assert document(Path("out"))["groups"][0]["verified"] == {}
    later = select("--resume", "--verify", "-o", "out")
    assert later.code == 0, later
    assert set(document(Path("out"))["groups"][0]["verified"]) == {"q", "v", "none", "all"}


def test_the_next_command_trains_with_the_same_settings(select: Select, beftkit: Beftkit) -> None:
    ran = select("base", *DATA, "--epochs", "1", "--lr", "1e-2", "--schedule", "linear",
                 "--warmup", "2", "--validation-size", "20", "--seeds", "0,1", "--no-fisher", "-q",
                 "-o", "out")  # fmt: skip
    assert ran.code == 0, ran
    command = next(line for line in ran.out.splitlines() if line.startswith("Next: "))
    words = shlex.split(command.removeprefix("Next: beftkit "))
    trained = beftkit(*words, "-q")
    assert trained.code == 0, trained
    ours = yaml.safe_load(Path(words[-1], "run.yaml").read_text())
    probe = yaml.safe_load(Path("out/cells/all-lr0.01-e1-seed0/probe/run.yaml").read_text())
    differing = {key for key in ours if ours[key] != probe[key]}
    assert differing == {"bias", "output", "seeds", "track_steps"}


def test_biases_that_are_zero_before_have_no_target_by_the_ratio(
    beside: Path, beftkit: Beftkit
) -> None:
    """Every ratio is 1: the first candidate was named, and ``--bias auto`` trained it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(beside / "base", beside / "zero", symlinks=False)
    file = beside / "zero" / "model.safetensors"
    tensors = load_file(file)
    held = {name: one * 0 if name.endswith("bias") else one for name, one in tensors.items()}
    file.unlink()
    save_file(held, file, metadata={"format": "pt"})
    given = (*DATA, "--epochs", "1")
    ran = beftkit("select", "zero", *given, "--lrs", "1e-2", "-o", "none")
    assert ran.code == 0, ran.err
    found = document(beside / "none")
    assert found["targets"]["projection"] is None
    assert found["targets"]["magnitude"] in ("q", "v") and found["targets"]["fisher"]
    assert any("every compared bias is zero in PRE" in note for note in found["notes"])
    ran = beftkit("train", "zero", "--bias", "auto", *given, "--lr", "1e-2", "-o", "auto")
    assert ran.code == 1 and "every compared bias is zero in PRE" in ran.err.splitlines()[-1]
