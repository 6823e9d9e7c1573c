"""A run's folder where its adapter or its model is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import beftkit as api
from beftkit.adapters import is_adapter, meant
from beftkit.errors import BeftError
from tests.answering import SHORT
from tests.command import Beftkit, refused
from tests.test_imports import COMMAND, heavy_after


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")


def test_what_is_meant(answering: Path, tmp_path: Path) -> None:
    run = answering / "run"
    assert meant(run) == meant(str(run)) == str(run / "adapter")
    assert meant(answering / "values") == str(answering / "values" / "adapter")
    for other in (
        run / "adapter",
        answering / "base",
        "o/name",
        "o/name@main",
        None,
        object(),
        "\0",
    ):
        assert meant(other) is other, "no run's folder stays as it is"
    assert is_adapter(run / "adapter") and not is_adapter(run) and not is_adapter("o/name")
    # Folders of others, whatever is in them.
    for name in ("model/config.json", "checkpoint-5/model.safetensors", "weights.bin"):
        write(tmp_path / "other" / name)
        assert meant(str(tmp_path / "other")) == str(tmp_path / "other")
    # A trainer's folder with checkpoints, and settings of some kind.
    write(tmp_path / "other" / "run.yaml")
    assert meant(str(tmp_path / "other")) == str(tmp_path / "other")


def test_what_is_not_one_thing_is_refused(tmp_path: Path) -> None:
    for seed in (10, 2, 0):
        write(tmp_path / "three" / f"seed-{seed}" / "adapter" / "adapter_config.json")
    write(tmp_path / "three" / "seed-7" / "log.jsonl")
    write(tmp_path / "three" / "run.yaml")
    three = tmp_path / "three"
    names = ", ".join(str(three / f"seed-{seed}") for seed in (0, 2, 10))
    with pytest.raises(BeftError, match=f"a run of several seeds, .* give one: {names}$"):
        meant(three)
    assert meant(three / "seed-2") == str(three / "seed-2" / "adapter")
    write(tmp_path / "begun" / "run.yaml")
    with pytest.raises(BeftError, match="holds no adapter yet; take it up with `beftkit train -o"):
        meant(tmp_path / "begun")
    write(tmp_path / "begun" / "all_results.json")
    with pytest.raises(BeftError, match="a run in which nothing trained, so that there is"):
        meant(tmp_path / "begun")
    write(tmp_path / "begun" / "seed-3" / "all_results.json")
    with pytest.raises(BeftError, match="seed-3: a run in which nothing trained"):
        meant(tmp_path / "begun" / "seed-3")
    write(tmp_path / "selection" / "select.yaml")
    with pytest.raises(BeftError, match="holds a selection, which is many runs"):
        meant(tmp_path / "selection")


@pytest.fixture
def here(answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("base", "run", "train.jsonl", "dev.jsonl"):
        (tmp_path / name).symlink_to(answering / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_takes_a_run(here: Path, beftkit: Beftkit) -> None:
    asked = ("--validation-file", "dev.jsonl", "--format", "json")
    by_run = [beftkit("evaluate", *given, *asked) for given in (["run"], ["--adapter", "run"])]
    wanted = json.loads(beftkit("evaluate", "--adapter", "run/adapter", *asked).out)
    for ran in by_run:
        found = json.loads(ran.out)
        assert found | {"seconds": 0} == wanted | {"seconds": 0}
    scored = [beftkit("score", *given, "--format", "json").out
              for given in (["run"], ["run/adapter"], ["base", "run"])]  # fmt: skip
    assert json.loads(scored[0])["posts"] == json.loads(scored[1])["posts"]
    assert json.loads(scored[2])["posts"][0]["target"] == "v"
    refused(beftkit("inspect", "run"), "run/adapter: an adapter, which has no biases of its own")
    assert beftkit("export", "run", "-o", "whole").code == 0
    assert beftkit("predict", "run", "good film").code == 0
    refused(beftkit("score", "base", "nowhere"), "nowhere: no such file or folder")


def test_a_run_that_made_a_whole_model(here: Path, beftkit: Beftkit) -> None:
    files = {"train_file": "train.jsonl", "validation_file": "dev.jsonl"}
    result = api.train("base", **files, **SHORT, bias="full", output="full")
    wanted = result.runs[0].last
    found = api.evaluate("full", validation_file="dev.jsonl", device="cpu")
    assert wanted is not None and found.evaluation.metrics == wanted.metrics
    assert found.model == "full/model" and found.adapter is None
    assert api.load("full")("good film") == api.load("full/model")("good film")
    assert beftkit("inspect", "full").code == 0
    assert api.score("base", "full").roles == api.score("base", "full/model").roles
    ran = beftkit("predict", "--adapter", "full", "good film")
    assert ran.code == 2 and "full/model: is a whole model; give it as the model" in ran.err
    ran = beftkit("export", "full", "-o", "x")
    assert ran.code == 2 and "is a whole model already" in ran.err and not Path("x").exists()


def test_score_of_a_run_is_as_light_as_ever(answering: Path, tmp_path: Path) -> None:
    shutil.copytree(answering / "run", tmp_path / "run")
    assert heavy_after(COMMAND, "score", "run", tmp_path=tmp_path) == set()
