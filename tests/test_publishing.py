"""Model cards, and pushing adapters to the stand-in hub."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants

import beftkit as api
from beftkit.errors import BeftError
from beftkit.objectives import make_objective
from beftkit.runs.cards import model_card
from beftkit.runs.publishing import CARD, check_push, push, write_card
from beftkit.runs.results import Run, TrainResult
from beftkit.settings.train import TrainSettings
from beftkit.training.evaluation import Evaluated
from tests import tiny_run
from tests.card_blocks import block
from tests.command import Beftkit, tree
from tests.hub_server import Fault
from tests.hub_uploads import UploadHub

FILES = [
    "README.md", "adapter_config.json", "adapter_model.safetensors",
    "tokenizer.json", "tokenizer_config.json",
]  # fmt: skip


def train(place: Path, output: Path | None, **settings: Any) -> TrainResult:
    given: dict[str, Any] = {
        "train_file": str(place / "train.jsonl"),
        "validation_file": str(place / "dev.jsonl"),
        "device": "cpu", "output": None if output is None else str(output), **tiny_run.QUICK,
    }  # fmt: skip
    return api.train(place / "base", **{**given, **settings})


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    output = tmp_path_factory.mktemp("trained") / "out"
    train(place, output, bias="q,v")
    return output


def test_a_run_is_pushed(uploads: UploadHub, place: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = train(place, output, push_to_hub="o/mine", bias="q")
    adapter = output / "adapter"
    assert uploads.commits == [("Upload adapter trained with beftkit", FILES)], "one commit"
    assert sorted(path.name for path in adapter.iterdir()) == FILES, "nothing half written"
    pushed = uploads.repos["o/mine"].folder
    assert tree(pushed) == tree(adapter)
    found = api.evaluate(adapter="o/mine", validation_file=place / "dev.jsonl", device="cpu")
    assert result.runs[0].last is not None
    assert found.evaluation.metrics == result.runs[0].last.metrics
    base = place / "base"
    assert api.score(base, "o/mine").roles == api.score(base, adapter).roles
    card = (pushed / CARD).read_text()
    assert "beftkit evaluate BASE --adapter o/mine --validation-file dev.jsonl\n" in card
    assert "BASE: the base model's folder." in card and "ADAPTER" not in card
    # Once more, from a folder with other things in it.
    (adapter / "thesis.txt").write_text("precious")
    assert push(adapter, "o/mine") == f"{uploads.url}/o/mine"
    assert sorted(tree(uploads.repos["o/mine"].folder)) == FILES


def test_what_a_card_says(trained: Path, place: Path) -> None:
    path = trained / "adapter" / CARD
    text = path.read_text()
    assert str(place.parent) not in text and str(trained.parent) not in text
    assert str(Path.home()) not in text
    card = ModelCard.load(path)
    assert card.data.to_dict() | {"model-index": None} == {
        "library_name": "peft", "pipeline_tag": "text-classification", "model-index": None,
        "tags": ["beft", "beftkit", "bias-tuning"], "metrics": ["accuracy", "f1"],
    }  # fmt: skip
    [run] = TrainResult.from_dict(json.loads((trained / "all_results.json").read_text())).runs
    assert run.best is not None and run.last is not None
    values = {one.metric_name: one.metric_value for one in card.data.eval_results or ()}
    assert values == {
        f"{name} ({which}, epoch {found.epoch:g})": found.metrics[name]
        for which, found in (("best", run.best), ("last", run.last))
        for name in ("accuracy", "macro_f1")
    }
    for shown in (
        "of a local folder, fine-tuned", "96 scalars", f"| q | {run.scores['q']:.4f} |",
        "- Labels: 0 neg, 1 pos", "| lr | 0.01 |", "| bias | q,v |", "The adapter holds the last",
        "ADAPTER: this folder, or its owner/name on the hub.",
    ):  # fmt: skip
        assert shown in text, shown


def test_the_card_s_command_trains_it_again(
    trained: Path, place: Path, beftkit: Beftkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = block((trained / "adapter" / CARD).read_text(), "Train it again", "sh")
    words = shlex.split(text.replace("\\\n", " ").replace("BASE", str(place / "base")))
    assert words[:2] == ["beftkit", "train"] and "--max-grad-norm" not in words
    monkeypatch.chdir(tmp_path)
    for name in ("train.jsonl", "dev.jsonl"):
        shutil.copy(place / name, name)
    ran = beftkit(*words[1:], "--device", "cpu")
    assert ran.code == 0, ran
    again, before = Path("out/adapter"), trained / "adapter"
    assert (again / FILES[2]).read_bytes() == (before / FILES[2]).read_bytes()


NLI = ["entailment", "neutral", "contradiction"]


def made(**changed: Any) -> TrainResult:
    """What a run on MNLI from the hub would have found, for three seeds."""
    settings = TrainSettings(
        model="o/base", revision="1" * 40, task="mnli", bias="v", lr=1e-3, epochs=30, max_length=99,
        metric=("accuracy",), seeds=(0, 1, 2), data_revision="2" * 40, group_by_length=False,
        freeze_head=True, tokenizer="/home/somebody/words", output="/home/somebody/runs/x",
    )  # fmt: skip
    settings = settings.model_copy(update=changed)

    def at(epoch: int, value: float) -> Evaluated:
        return Evaluated(9, epoch, {"accuracy_matched": value, "accuracy_mismatched": None})

    run = Run(0, "/home/somebody/runs/x", "adapter", "lora", at(2, 0.75), at(3, 0.5), "best",
              {"v": 0.25}, 9, 3.0, False, 400, {}, 1.0, 1.0,
              ("lies in /home/somebody/runs/x, as a | b",))  # fmt: skip
    runs = tuple(replace(run, seed=seed, last=at(3, 0.5 + seed / 10)) for seed in range(3))
    return TrainResult("o/base", "mnli", "v", "accuracy", 768, 1538, 10_000_000,
                       settings, runs)  # fmt: skip


def test_a_card_of_the_hub_s_own() -> None:
    result = made()
    text = model_card(result, result.runs[1], make_objective("classes", NLI))
    head = ModelCard(text).data.to_dict()
    assert head["base_model"] == "o/base" and head["base_model_relation"] == "adapter"
    assert head["datasets"] == ["nyu-mll/glue"] and head["metrics"] == ["accuracy"]
    [entry] = head["model-index"]
    [one] = entry["results"]
    assert one["dataset"] == {"name": "mnli", "type": "nyu-mll/glue", "config": "mnli",
                              "split": "validation_matched", "revision": "2" * 40}  # fmt: skip
    assert [(m["name"], m["value"]) for m in one["metrics"]] == [
        ("accuracy (best, epoch 2)", 0.75), ("accuracy (last, epoch 3)", 0.6)
    ]  # fmt: skip
    assert "somebody" not in text
    assert "accuracy_matched last 0.6000 ± 0.1000" in text and "of seed 1" in text
    assert "0.0077 % of the model" in text and "num_labels=3" in text
    assert f"beftkit score o/base@{'1' * 40} ADAPTER" in text
    base = f'"o/base", revision="{"1" * 40}", num_labels=3, dtype=torch.float32'
    assert f"from_pretrained(\n    {base}\n)" in text
    assert 'AutoTokenizer.from_pretrained("TOKENIZER")' in text
    assert "ADAPTER --tokenizer TOKENIZER\n" in text
    words = shlex.split(block(text, "Train it again", "sh").replace("\\\n", " "))
    assert words == [
        "beftkit", "train", "o/base", "--revision", "1" * 40, "--tokenizer", "words",
        "--freeze-head", "--task", "mnli", "--data-revision", "2" * 40, "--max-length", "99",
        "--epochs", "30", "--lr", "0.001", "--no-group-by-length", "--seed", "1", "--output", "out",
    ]  # fmt: skip


def test_a_card_that_cannot_be_written(tmp_path: Path) -> None:
    result = made()
    (tmp_path / CARD).mkdir()
    with pytest.raises(BeftError, match="is a folder"):
        write_card(tmp_path, result, result.runs[0], make_objective("values"))
    assert [path.name for path in tmp_path.iterdir()] == [CARD]


def refused(call: Callable[[], object], *parts: str) -> None:
    started = time.perf_counter()
    with pytest.raises(BeftError) as caught:
        call()
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text and len(text) < 400
    assert time.perf_counter() - started < 20, "no waiting for a hub that is not there"


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("a b/c", "must use alphanumeric"),
        ("o/x--y", "Cannot have -- or .."),
        ("a/b/c", "must be in the form"),
        ("mine", "expected owner/name"),
        ("", "must use alphanumeric"),
    ],
)
def test_what_is_no_repository(uploads: UploadHub, repo: str, message: str) -> None:
    refused(lambda: check_push(repo), "push_to_hub", message)
    assert not uploads.log


def test_who_may_push(uploads: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    check_push("o/mine")
    uploads.role = "read"
    refused(lambda: check_push("o/mine"), "the token may only read")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(lambda: check_push("o/mine"), "the hub refuses the token (401)")
    monkeypatch.delenv("HF_TOKEN")
    refused(lambda: check_push("o/mine"), "nobody is logged in; run `hf auth login`")


def test_a_hub_that_is_not_there(uploads: UploadHub, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads.faults = [Fault("whoami", status=200, body=b"<html>", times=1),
                  Fault("whoami", status=200, body=b"[]", times=1)]  # fmt: skip
    for _ in range(2):
        refused(lambda: check_push("o/mine"), "answers, but not as a hub does")
    uploads.faults = [Fault("whoami", status=503)]
    refused(lambda: check_push("o/mine"), "the hub answers 503")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(lambda: check_push("o/mine"), "http://127.0.0.1:9 cannot be reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(lambda: check_push("o/mine"), "offline mode (HF_HUB_OFFLINE)")


def test_what_a_push_can_meet(uploads: UploadHub, trained: Path, tmp_path: Path) -> None:
    adapter = trained / "adapter"
    before = tree(adapter)
    later = f"`hf upload o/mine {adapter} .` sends it later"
    refused(lambda: push(tmp_path, "o/mine"), "no adapter; expected adapter_model.safetensors")
    refused(lambda: push(adapter, "x/mine"), "(403: ", 'the namespace "x"', "write for x?")
    for place, fault in {
        "commit": Fault(status=403, headers={"X-Error-Message": "no"}),
        "preupload": Fault(status=401, headers={"X-Error-Message": "no"}),
    }.items():
        fault.match = place
        uploads.faults = [fault]
        refused(lambda: push(adapter, "o/mine"), f"({fault.status}: no)", later)
    uploads.faults = [Fault("commit", status=500)]
    refused(lambda: push(adapter, "o/mine"), "the hub answers 500", later)
    uploads.faults = []
    refused(lambda: push(adapter, "o/mine", revision="nope"), "no such branch", later)
    shutil.copytree(adapter, tmp_path / "other")
    (tmp_path / "other" / CARD).write_text("---\nbase_model: /home/x\n---\n")
    refused(lambda: push(tmp_path / "other", "o/mine"), "Invalid metadata in README.md")
    assert not uploads.commits and tree(adapter) == before


def test_it_is_refused_before_the_training(uploads: UploadHub, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    uploads.role = "read"
    refused(lambda: train(place, out, push_to_hub="o/mine"), "may only read")
    uploads.role = "write"
    for message, output, settings in (
        ("3 seeds make as many", out, {"seeds": (0, 1, 2)}),
        ("bias='full' makes a whole model", out, {"bias": "full"}),
        ("bias='rand:9' makes a whole model", out, {"bias": "rand:9"}),
        ("lacks output", None, {}),
    ):
        refused(lambda: train(place, output, push_to_hub="o/mine", **settings), message)  # noqa: B023
    assert not out.exists() and not uploads.writes


def test_a_push_that_failed_is_made_good(
    uploads: UploadHub, place: Path, tmp_path: Path, beftkit: Beftkit
) -> None:
    out = tmp_path / "out"
    uploads.faults = [Fault("commit", status=500, times=1)]
    refused(lambda: train(place, out, push_to_hub="o/mine"), "the hub answers 500")
    adapter = (out / "adapter" / FILES[2]).read_bytes()
    ran = beftkit("train", "--output", out, "--resume", "--push-to-hub", "o/other")
    assert ran.code == 0 and f"pushed to {uploads.url}/o/other\n" in ran.err, ran
    assert "# other\n" in (uploads.repos["o/other"].folder / CARD).read_text()
    assert (uploads.repos["o/other"].folder / FILES[2]).read_bytes() == adapter
    assert [names for _, names in uploads.commits] == [FILES]


def test_another_format_takes_the_place_of_the_first(
    uploads: UploadHub, place: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large files go another way, which the hub chooses for all safetensors."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    uploads.mode = "lfs"
    push(trained / "adapter", "o/mine")
    assert any(line.startswith("PUT /blobs/") for line in uploads.writes)
    assert tree(uploads.repos["o/mine"].folder) == tree(trained / "adapter")
    train(place, tmp_path / "out", adapter_format="biases")
    push(tmp_path / "out" / "adapter", "o/mine")
    assert tree(uploads.repos["o/mine"].folder) == tree(tmp_path / "out" / "adapter")
    assert sorted(uploads.commits[-1][1]) == sorted([*FILES, "biases.safetensors"])


def test_a_pushed_adapter_answers(uploads: UploadHub, place: Path, trained: Path) -> None:
    """Its tokenizer comes from there, by its name alone; the base is the colleague's own."""
    push(trained / "adapter", "o/mine")
    wanted = api.load(trained, device="cpu")("good film")
    found = [api.load("o/mine", device="cpu"), api.load(str(place / "base"), adapter="o/mine")]
    for predictor in found:
        assert predictor.settings.tokenizer == "o/mine"
        assert predictor("good film").probability == pytest.approx(wanted.probability, abs=1e-6)
