"""From two names on the hub to an adapter on the hub: base, data and adapter come from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

import beftkit as api
from beftkit.registry import GLUE
from tests import task_files
from tests.card_blocks import block, predictor
from tests.command import Beftkit, refused
from tests.copied import words_of
from tests.hub_data import DataHub, Repos, publish
from tests.hub_fixtures import outside

COMMIT = "a" * 40
LABELS = task_files.LABELS["sst2"]
ADAPTER = "c" * 40
QUICK = ("--epochs", "2", "--batch-size", "4", "--lr", "1e-2", "--device", "cpu")
TASK = ("--task", "sst2", *QUICK)


@pytest.fixture(scope="module")
def repos(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Repos:
    """The base and GLUE; two tasks, of which one has three labels."""
    glue = task_files.write_dataset(tmp_path_factory.mktemp("repos") / "glue", ["sst2", "mnli"])
    return {"owner/base": (tiny / "base", COMMIT), "nyu-mll/glue": (glue, GLUE)}


def results(out: str) -> Any:
    return json.loads(Path(out, "all_results.json").read_text())


def test_it_is_trained_published_evaluated_and_scored(
    data_hub: DataHub, tiny: Path, beftkit: Beftkit
) -> None:
    ran = beftkit("train", "owner/base", *TASK, "--bias", "q,v", "--quiet", "--format", "json",
                  "-o", "out")  # fmt: skip
    assert ran.code == 0 and ran.err == "", ran
    result = json.loads(ran.out)
    [run] = result["runs"]
    assert result["model"] == "owner/base" and result["task"] == "sst2"
    assert run["train_examples"] == 8 and run["steps"] == 4
    said = yaml.safe_load(Path("out/run.yaml").read_text())
    assert (said["revision"], said["data_revision"]) == (COMMIT, GLUE), "commits, not branches"
    config = json.loads(Path("out/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/base" and config["revision"] == COMMIT
    asked = {request.path for request in data_hub.log}
    assert not [path for path in asked if "/mnli/" in path], "no other task is fetched"

    publish(data_hub, "owner/adapter", Path("out/adapter"), ADAPTER)
    here = api.score(tiny / "base", "out/adapter").roles
    for given in (("owner/base", "owner/adapter"), ("owner/adapter",)):
        asked_before = len(data_hub.log)
        ran = beftkit("score", *given, "--format", "json")
        assert ran.code == 0, ran
        [found] = json.loads(ran.out)["posts"]
        assert {role: found["roles"][role]["projection"] for role in here} == {
            role: one.figures["projection"] for role, one in here.items()
        }
        assert len(data_hub.log) > asked_before

    # The adapter knows its base, the base's commit and its task; the branch is gone since.
    data_hub.repos["owner/base"].revisions.remove("main")
    for given in ((), ("owner/base", "--revision", COMMIT, "--task", "sst2")):
        ran = beftkit("evaluate", *given, "--adapter", "owner/adapter", "--device", "cpu",
                      "--format", "json")  # fmt: skip
        assert ran.code == 0, ran
        found = json.loads(ran.out)
        assert found["metrics"] == run["last"]["metrics"] and found["examples"] == 4
        assert (found["model"], found["adapter"]) == ("owner/base", "owner/adapter")

    # So does its card, to a person.
    card = Path("out/adapter/README.md").read_text()
    evaluate, score = (words_of(line) for line in block(card, "Use", "sh").splitlines())
    there = ["owner/adapter" if word == "ADAPTER" else word for word in evaluate]
    ran = beftkit(*there, "--device", "cpu", "--format", "json")
    assert ran.code == 0 and json.loads(ran.out)["metrics"] == run["last"]["metrics"], ran
    assert score == ["score", f"owner/base@{COMMIT}", "ADAPTER"]
    predict = predictor(card, {"ADAPTER": "owner/adapter"})
    rows = task_files.splits("sst2")["validation"]
    right = [predict(row["sentence"]) == LABELS[row["label"]] for row in rows]
    assert sum(right) / len(rows) == run["last"]["metrics"]["accuracy"]


def test_peft_loads_it_from_there(data_hub: DataHub, beftkit: Beftkit) -> None:
    """Also with three labels, where PEFT has to be told."""
    import torch
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    from beftkit.objectives.heads import load_classifier
    from beftkit.weights import apply_adapter

    for task, labels in (("sst2", 2), ("mnli", 3)):
        ran = beftkit("train", "owner/base", "--task", task, *QUICK, "--epochs", "1", "-o", task)
        assert ran.code == 0, ran
        name = f"owner/{task}"
        publish(data_hub, name, Path(task, "adapter"), f"{labels}" * 40)
        told = {} if labels == 2 else {"num_labels": labels}
        theirs = AutoPeftModelForSequenceClassification.from_pretrained(name, **told).eval()
        ours = load_classifier("owner/base", task_files.LABELS[task], seed=5)
        applied = apply_adapter(ours.model, name)
        assert set(ours.fresh) <= set(applied.parameters), "nothing drawn by lot is left"
        tokenizer = AutoTokenizer.from_pretrained("owner/base")
        rows = tokenizer(["good film", "the plot was bad"], return_tensors="pt", padding=True)
        with torch.inference_mode():
            found, wanted = ours.model(**rows).logits, theirs(**rows).logits
        assert found.shape == (2, labels)
        assert torch.allclose(found, wanted, atol=1e-6, rtol=0)


def test_what_is_not_there(data_hub: DataHub, beftkit: Beftkit) -> None:
    glue = data_hub.repos.pop("nyu-mll/glue")
    refused(beftkit("train", "owner/base", *TASK, "--quiet", "-o", "out"), "nyu-mll/glue", 400)
    data_hub.repos["nyu-mll/glue"] = glue
    ran = beftkit("train", "owner/absent", *TASK, "--quiet", "-o", "out")
    refused(ran, "owner/absent")
    ran = beftkit("train", "owner/base", "--revision", "v9", *TASK, "--quiet", "-o", "out")
    refused(ran, "owner/base: no such revision")
    refused(beftkit("evaluate", "--adapter", "owner/absent"), "owner/absent")
    refused(beftkit("evaluate", "--adapter", "owner/base"), "not an adapter")
    assert not Path("out").exists()


@pytest.mark.slow
def test_the_environment_names_the_hub_and_the_cache_will_do(
    data_hub: DataHub, tmp_path: Path
) -> None:
    """In processes of their own: the second has no network and finds everything in the cache."""
    home = tmp_path / "home"
    ran = outside(data_hub, home, "train", "owner/base", *TASK, "-o", "one")
    assert ran.code == 0, ran
    asked = len(data_hub.log)
    ran = outside(data_hub, home, "train", "owner/base", *TASK, "-o", "two", HF_HUB_OFFLINE="1")
    assert ran.code == 0, ran
    assert len(data_hub.log) == asked
    one, two = (load_file(f"{out}/adapter/adapter_model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)
    metrics = [results(out)["runs"][0]["last"]["metrics"] for out in ("one", "two")]
    assert metrics[0] == metrics[1]
