"""Cells of the paper's tables whose models and data are on the hub, under their published names."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from beftkit.checkpoints import model_reference, open_checkpoint
from beftkit.registry import GLUE, SUPER_GLUE
from beftkit.suite import paper
from tests import task_files
from tests.causal_models import write_model
from tests.command import Beftkit
from tests.hub_data import DataHub, Repos
from tests.hub_fixtures import outside

BERT, OPT = "b" * 40, "d" * 40
QUICK = ("--device", "cpu", "--train-size", "8", "--epochs", "1", "--batch-size", "4")


@pytest.fixture(scope="module")
def repos(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Repos:
    """Two of the paper's models, tiny; both benchmarks, a task that no cell asks for among them."""
    place = tmp_path_factory.mktemp("repos")
    return {
        "bert-base-cased": (tiny / "base", BERT),
        "facebook/opt-1.3b": (write_model(place / "opt", "opt"), OPT),
        "nyu-mll/glue": (task_files.write_dataset(place / "glue", ["sst2", "rte"]), GLUE),
        "aps/super_glue": (task_files.write_dataset(place / "super", ["cb"]), SUPER_GLUE),
    }


def shown(out: str) -> dict[str, dict[str, str]]:
    return {row["cell"]: row for row in csv.DictReader(out.splitlines())}


def found(folder: Path) -> Any:
    return json.loads((folder / "all_results.json").read_text())["runs"][0]


@pytest.mark.slow
def test_encoders_as_published(data_hub: DataHub, tmp_path: Path) -> None:
    """In a process of its own; then the hub is out of reach, and what is there is enough."""
    home, cells = tmp_path / "home", tmp_path / "paper" / "cells"
    how = ("paper", "table4", "--cells", "bert-base-cased-sst2-*-v,bert-base-cased-cb-*-q", *QUICK)
    ran = outside(data_hub, home, *how, "-o", "paper", "--format", "csv")
    assert ran.code == 0, ran
    rows = shown(ran.out)
    for name, metric, published in (
        ("bert-base-cased-sst2-low-v", "accuracy", 85.8),
        ("bert-base-cased-cb-low-q", "macro_f1", 47.2),
    ):
        run, row = found(cells / f"{name}-seed0"), rows[name]
        assert (run["train_examples"], row["seeds"], row["missing"]) == (8, "0", "")
        assert float(row["ours"]) == pytest.approx(100 * run["best"]["metrics"][metric])
        assert float(row["published"]) == published
        said = yaml.safe_load((cells / f"{name}-seed0" / "run.yaml").read_text())
        pinned = GLUE if "sst2" in name else SUPER_GLUE
        assert (said["revision"], said["data_revision"]) == (BERT, pinned), "commits, not branches"
    asked = {request.path for request in data_hub.log}
    assert any("/cb/" in path for path in asked)
    assert not [path for path in asked if "/rte/" in path or "opt" in path], "nothing else's"
    before = len(data_hub.log)
    again = outside(
        data_hub, home, *how, "-o", "paper", "--format", "csv", "-q", HF_HUB_OFFLINE="1"
    )
    assert (again.code, again.out, len(data_hub.log)) == (0, ran.out, before)


def test_a_decoder_with_prompts(data_hub: DataHub, beftkit: Beftkit) -> None:
    cells = "opt-1.3b-sst2-v,opt-1.3b-sst2-zero-shot"
    how = ("table5", "--cells", cells, *QUICK, "--precision", "fp32", "-o", "out", "--quiet")
    ran = beftkit("paper", *how, "--format", "csv")
    assert ran.code == 0 and ran.err == "", ran
    rows = shown(ran.out)
    run = found(Path("out/cells/opt-1.3b-sst2-v-seed0"))
    assert float(rows["opt-1.3b-sst2-v"]["ours"]) == pytest.approx(
        100 * run["best"]["metrics"]["accuracy"]
    )
    untrained = json.loads(
        Path("out/cells/opt-1.3b-sst2-zero-shot-seed0/evaluation.json").read_text()
    )
    assert untrained["examples"] == len(task_files.splits("sst2")["validation"])
    assert float(rows["opt-1.3b-sst2-zero-shot"]["ours"]) == pytest.approx(
        100 * untrained["metrics"]["accuracy"]
    )
    assert rows["opt-1.3b-sst2-zero-shot"]["published"]
    # What the hub lacks fails alone, and the rest stays.
    del data_hub.repos["aps/super_glue"]
    cells += ",opt-1.3b-cb-zero-shot"
    ran = beftkit("paper", "table5", "--cells", cells, *how[3:], "--format", "json")
    assert ran.code == 0, ran
    document = json.loads(ran.out)
    [(name, why)] = document["failed"].items()
    assert name == "opt-1.3b-cb-zero-shot-seed0" and "aps/super_glue" in why
    assert document["missing"] == 1


def test_a_name_without_an_owner(data_hub: DataHub, tiny: Path, tmp_path: Path) -> None:
    """What transformers takes is found by us as well, at its commit."""
    at = model_reference("bert-base-cased", BERT)
    assert len(open_checkpoint(at).tensors) == len(open_checkpoint(tiny / "base").tensors)
    assert model_reference("bert-base-cased", None) == "hf://bert-base-cased"
    assert model_reference("facebook/opt-1.3b", OPT) == f"facebook/opt-1.3b@{OPT}"
    (tmp_path / "bert-base-cased").mkdir()
    assert model_reference("bert-base-cased", BERT) == "bert-base-cased", "a folder goes first"


def test_a_figure(data_hub: DataHub) -> None:
    """A probe, scored against its base there, and a run of each bias."""
    how: dict[str, Any] = {"device": "cpu", "train_size": 8, "epochs": 1, "batch_size": 4}
    rows = paper("figure1", output="out", **how).rows
    assert {row.label[-3:] for row in rows} == {"b_v", "b_q", "b_k"}
    assert len({row.rank for row in rows}) == 3
    assert all(row.ours is not None and row.seeds == (0,) for row in rows)
