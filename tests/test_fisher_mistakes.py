"""What `beftkit fisher` refuses, and what two processes make of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from beftkit.gradients import means as fisher_sums
from tests import tiny_run
from tests.command import Beftkit, misused, refused
from tests.fisher_cases import gap
from tests.fisher_run import COUNT, Fisher, document, figures, merged
from tests.forked import Command, start_pair


def test_a_trained_model_has_its_own_head(fisher: Fisher, beftkit: Beftkit) -> None:
    ran = beftkit(
        "train", "base", "--device", "cpu", "--train-file", "train.jsonl", "--bias", "full",
        "--max-steps", "1", "-o", "full",
    )  # fmt: skip
    assert ran.code == 0, ran
    found = document(fisher("--format", "json", model="full/model"))
    assert found["settings"]["head_seeds"] is None
    assert not any("drawn by seed" in note for note in found["notes"])
    refused(
        fisher("--head-seeds", "0,1", model="full/model"),
        "full/model: holds a trained classifier, so no seed draws one; leave out --head-seeds",
    )


def test_mistakes(fisher: Fisher, tmp_path: Path) -> None:
    """Each is one line; what the arguments alone show to be wrong ends with 2."""
    for arguments, message in (
        ([], "neither --task nor --train-file was given; expected one of them"),
        (["--task", "sst2", "--train-file", "train.jsonl"], "--task and --train-file were both"),
        (["--task", "sst2", "--regression"], "--regression: is for files of your own"),
        (["--train-file", "train.jsonl", "--head-seeds", "0,1", "--snapshots", "out/snapshots"],
         "--snapshots: they hold the classifier of their run; give --head-seeds N"),
        (["--train-file", "train.jsonl", "--head-seeds", "1,1"], "different whole numbers"),
        (["--train-file", "train.jsonl", "--head-seeds", "x"], "--head-seeds x: expected a whole"),
        (["--train-file", "train.jsonl", "--variant", "batch"], "did you mean batch-mean?"),
        (["--train-file", "train.jsonl", "--train-size", "0"], "--train-size 0: expected a number"),
        (["--train-file", "train.jsonl", "--train-size", "3", "--examples", "4"],
         "--train-size 3 and --examples 4 are one setting"),
    ):  # fmt: skip
        misused(fisher(*arguments, data=False), message)
    refused(fisher("--examples", str(COUNT + 1)),
            f"has {COUNT} training examples, not {COUNT + 1}; lower --train-size")  # fmt: skip
    misused(fisher("--candidates", "q,x"), "--candidates x: expected some of q, k, v")
    misused(fisher("--precision", "fp16"), "--precision fp16: needs a GPU")
    refused(fisher("--tower", "vision"), "vision")
    refused(fisher(model="absent"), "absent")
    refused(fisher(model="train.jsonl"), "is a file")
    refused(fisher("--snapshots", "absent.safetensors"), "absent.safetensors")
    refused(fisher("--text-columns", "nothing"), "nothing")
    damaged = shutil.copytree("base", tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    refused(fisher(model="damaged"), "damaged", limit=400)
    tiny_run.write_base(tmp_path / "wide", hidden_size=48)
    ran = fisher("--snapshots", "out/snapshots", "--quiet", model="wide")
    refused(ran, "which this BertForSequenceClassification has not; expected a snapshot", limit=400)
    ran = fisher("-o", "train.jsonl")
    assert "Traceback" not in ran.err


def test_a_model_without_biases(fisher: Fisher, tmp_path: Path) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=24, num_hidden_layers=1, num_attention_heads=3,
        num_key_value_heads=3, intermediate_size=40,
    )  # fmt: skip
    transformers.LlamaModel(config).save_pretrained(tmp_path / "llama")
    for more in ((), ("--dry-run",)):  # called as it was given
        ran = fisher("--tokenizer", "base", *more, model="llama")
        refused(ran, "error: llama: ", limit=400)
        assert "no bias" in ran.err and "in memory" not in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["exact", "batch-mean"])
def test_two_processes_measure_what_one_does(measured: Path, variant: str) -> None:
    """Also where a process has less than the other, or nothing at all."""
    for count in ("26", "3"):
        arguments = ["fisher", "base", "--train-file", "train.jsonl", "--device", "cpu",
                     "--batch-size", "4", "--format", "json", "--variant", variant,
                     "--train-size", count]  # fmt: skip
        alone = Command(measured, arguments)
        assert alone.wait() == 0, alone.said
        pair = start_pair(measured, arguments)
        assert [one.wait() for one in pair] == [0, 0], [one.said for one in pair]
        assert pair[1].out.read_text() == "" and pair[1].said == ""
        expected, found = (merged(json.loads(one.out.read_text())) for one in (alone, pair[0]))
        assert gap(figures(found), figures(expected)) < 1e-6
        assert found["settings"] == expected["settings"]


@pytest.mark.parametrize("variant", ["exact", "batch-mean"])
def test_out_of_memory_is_one_line(
    variant: str, fisher: Fisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> Any:
        raise MemoryError

    for name in ("example_squares", "batch_mean_squares"):
        monkeypatch.setattr(fisher_sums, name, full)
    refused(fisher("--variant", variant), "out of memory with batch_size")
    misused(fisher("--variant", variant, "--candidates", "x"), "--candidates x: ")  # beforehand
