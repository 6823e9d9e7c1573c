"""`beftkit fisher` as a user meets it, against autograd on one example at a time."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn import functional

import beftkit as package
from beftkit.gradients import means as fisher_sums
from tests.fisher_cases import gap
from tests.fisher_run import (
    COUNT,
    LABELS,
    Fisher,
    document,
    examples,
    figures,
    judge,
    loaded,
    merged,
    names_in,
    reduced,
)


@pytest.mark.parametrize("batch_size", ["1", "5", "16"])
def test_it_is_the_mean_over_examples(fisher: Fisher, measured: Path, batch_size: str) -> None:
    found = document(fisher("--format", "json", "--batch-size", batch_size))
    expected = judge(*loaded(measured), examples(measured))
    assert gap(figures(found), reduced(expected)) < 1e-5
    assert len(figures(found)) == 16


def test_sum_seed_examples_and_length(fisher: Fisher, measured: Path) -> None:
    found = document(
        fisher("--format", "json", "--reduce", "sum", "--seed", "3", "--examples", "7")
    )
    model, tokenizer = loaded(measured, seed=3)
    expected = judge(model, tokenizer, examples(measured)[:7])
    assert gap(figures(found), reduced(expected, "sum")) < 1e-5
    cut = fisher("--format", "json", "--seed", "3", "--examples", "7", "--max-length", "4")
    tokenizer.model_max_length = 4
    words = [{**row, "text": " ".join(row["text"].split()[:2])} for row in examples(measured)[:7]]
    assert gap(figures(document(cut)), reduced(judge(model, tokenizer, words))) < 1e-5
    assert "of 7 examples cut to 4 tokens (--max-length)" in cut.err


def test_regression_counts_half_the_squared_error(fisher: Fisher, measured: Path) -> None:
    found = document(fisher("--format", "json", "--train-file", "values.jsonl", data=False))
    model, tokenizer = loaded(measured, labels=())
    expected = judge(model, tokenizer, examples(measured, "values.jsonl"))
    assert gap(figures(found), reduced(expected)) < 1e-5


def test_what_the_document_says(fisher: Fisher, measured: Path) -> None:
    ran = fisher("--format", "json")
    found = document(ran)
    settings = found["settings"]
    assert found["method"] == "fisher" and found["family"] == "bert" and found["tower"] == "text"
    assert found["pre"]["path"] == found["post"]["path"] == "base"
    assert settings == {
        "variant": "exact", "reduce": "mean", "task": settings["task"], "examples": COUNT,
        "batch_size": 16, "max_length": 32, "dtype": "float32", "precision": "fp32",
        "head_seeds": [0], "alone": [],
    }  # fmt: skip
    assert set(found["roles"]) == {"q", "k", "v", "m1", "m2", "m3", "ln1", "ln2"}
    assert found["roles"]["k"]["inert"] == "yes" and found["target"] in ("q", "v")
    assert found["roles"]["k"]["rank"] == 8
    assert {"fisher", "norm_pre"} < set(found["roles"]["v"])
    assert any("classifier.bias, classifier.weight" in note and "drawn by seed 0" in note
               and "--head-seeds" in note for note in found["notes"])  # fmt: skip
    assert all(note in ran.err for note in found["notes"])
    assert fisher("--format", "json", "--quiet").err == ""
    same = package.fisher("base", train_file="train.jsonl", device="cpu", candidates=["k", "m1"])
    assert same.candidates == ("k", "m1") and same.target == "m1"
    assert gap(figures(merged(same.to_dict())), figures(found)) < 1e-12


def test_forms_of_the_result(fisher: Fisher) -> None:
    found = document(fisher("--format", "json"))
    rows = list(csv.DictReader(io.StringIO(fisher("--format", "csv").out)))
    assert len(rows) == 16 and {row["role"] for row in rows} == set(found["roles"])
    assert {row["name"]: float(row["fisher"]) for row in rows} == {
        name: pytest.approx(float(one)) for name, one in figures(found).items()
    }
    text = fisher("--format", "markdown").out
    assert text.startswith("- MODEL base\n") and "| rank | role | Fisher | per layer |" in text
    assert text.count("\n| ") == 10 and f"target: {found['target']} (" in text
    table = fisher().out
    assert "MODEL base" in table and "<- target" in table and f"{COUNT} training examples" in table
    assert [line for line in table.splitlines() if " k " in line and "inert" in line]
    ran = fisher("-o", "fisher.csv", "--format", "csv")
    assert ran.out == "" and "wrote fisher.csv" in ran.err
    assert Path("fisher.csv").read_text().startswith("post,role,")
    out = fisher("--help").out
    for name in ("--head-seeds", "--snapshots", "--variant", "--reduce", "--train-size"):
        assert name in out
    assert "--examples" not in out, "taken still, and shown nowhere"
    assert out.index("Model:") < out.index("What is measured:") < out.index("Data:")


def test_several_heads_are_averaged(fisher: Fisher) -> None:
    single = [document(fisher("--format", "json", "--head-seeds", str(n))) for n in (4, 0, 2)]
    ran = fisher("--format", "json", "--head-seeds", "4,0,2")
    found = document(ran)
    each = [figures(one) for one in single]
    expected = {name: sum((one[name] for one in each), torch.zeros(1)) / 3 for name in each[0]}
    assert gap(figures(found), expected) < 1e-10
    assert gap(each[0], each[1]) > 1e-2, "the head matters"
    assert found["settings"]["head_seeds"] == [4, 0, 2]
    by_head = found["settings"]["by_head_seed"]
    assert list(by_head) == ["4", "0", "2"]
    for one, seed in zip(single, by_head, strict=True):
        for role, score in one["roles"].items():
            assert by_head[seed][role] == pytest.approx(score["fisher"], rel=1e-6,
                                                        abs=1e-12)  # fmt: skip
    table = fisher("--head-seeds", "4,0,2").out
    assert "over heads" in table and "drawn by seed 4, 0, 2" in table and " to " in table


def test_snapshots_of_a_run(fisher: Fisher, measured: Path) -> None:
    found = document(fisher("--format", "json", "--snapshots", "out/snapshots"))
    base = document(fisher("--format", "json"))
    assert [one["post"]["path"] for one in found["posts"]] == [
        "base", "out/snapshots/epoch-1.safetensors", "out/snapshots/epoch-2.safetensors",
    ]  # fmt: skip
    assert gap(figures(found["posts"][0]), figures(base)) < 1e-12
    for one in found["posts"][1:]:
        model, tokenizer = loaded(measured)
        tensors = load_file(one["post"]["path"])
        assert "classifier.weight" in tensors
        model.load_state_dict({n: torch.from_numpy(v) for n, v in tensors.items()}, strict=False)
        expected = reduced(judge(model, tokenizer, examples(measured)))
        assert gap(figures(one), expected) < 1e-5
        assert gap(figures(one), figures(base)) > 1e-2
    table = fisher("--snapshots", "out/snapshots").out
    assert "post" in table and "epoch-2" in table and "target: " in table
    (
        Path("my, own").mkdir(),
        shutil.copy("out/snapshots/epoch-2.safetensors", "my, own/epoch-2.safetensors"),
    )
    for given in ("my, own", Path("my, own"), [Path("my, own")]):
        one, two = package.fisher_all(
            "base", train_file="train.jsonl", device="cpu", snapshots=given
        )
        assert two.post.path == "my, own/epoch-2.safetensors"
        assert gap(figures(merged(two.to_dict())), figures(found["posts"][2])) < 1e-12
    only = fisher("--format", "csv", "--snapshots", "out/snapshots/epoch-2.safetensors")
    assert len(list(csv.DictReader(io.StringIO(only.out)))) == 2 * 16


def test_a_snapshot_does_not_inherit_from_the_one_before(fisher: Fisher) -> None:
    """They may be of two runs."""
    [value] = [n for n in load_file("out/snapshots/epoch-2.safetensors") if ".1." in n and
               n.endswith("value.bias")]  # fmt: skip
    whole = load_file("out/snapshots/epoch-2.safetensors")
    save_file({value: whole[value]}, "part.safetensors")
    both = document(
        fisher("--format", "json", "--snapshots", "out/snapshots/epoch-2.safetensors",
               "--snapshots", "part.safetensors")
    )  # fmt: skip
    alone = document(fisher("--format", "json", "--snapshots", "part.safetensors"))
    assert gap(figures(both["posts"][2]), figures(alone["posts"][1])) < 1e-12
    assert any("classifier.bias is not in it: drawn by seed 0" in note
               for note in alone["posts"][1]["notes"])  # fmt: skip


def test_batch_means_as_published(fisher: Fisher, measured: Path) -> None:
    """Batches of 8 in the examples' order; all biases, head and pooler count for the norm."""
    found = document(fisher("--format", "json", "--variant", "batch-mean"))
    model, tokenizer = loaded(measured)
    parameters = dict(model.named_parameters())
    trained = [name for name in parameters if name.endswith("bias") or "classifier" in name]
    expected = {name: torch.zeros_like(parameters[name]) for name in names_in(model)}
    rows, clipped = examples(measured), []
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    for name in trained:
        parameters[name].requires_grad_(True)
    for begin in range(0, COUNT, 8):
        part = rows[begin : begin + 8]
        inputs = tokenizer([row["text"] for row in part], return_tensors="pt", padding=True)
        labels = torch.tensor([LABELS.index(row["label"]) for row in part])
        model.zero_grad()
        functional.cross_entropy(model(**inputs).logits, labels).backward()
        norm = torch.nn.utils.clip_grad_norm_([parameters[name] for name in trained], 1.0)
        clipped.append(float(norm) > 1)
        for name in expected:
            grad = parameters[name].grad
            assert grad is not None
            expected[name] += grad.square() / 4
    assert any(clipped)
    assert gap(figures(found), reduced(expected)) < 1e-5
    assert found["settings"]["variant"] == "batch-mean" and found["settings"]["batch_size"] == 8
    assert "no per-example Fisher" in fisher("--variant", "batch-mean").out


def test_buffers_checkpointing_and_precision(
    fisher: Fisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    plain = fisher_sums.example_squares

    def squares(*given: Any, **named: Any) -> Any:
        seen.append(named)
        return plain(*given, **named)

    monkeypatch.setattr(fisher_sums, "example_squares", squares)
    base = figures(document(fisher("--format", "json")))
    for given in (["--buffer-mib", "0"], ["--gradient-checkpointing"], ["--dtype", "auto"]):
        assert gap(figures(document(fisher("--format", "json", *given))), base) < 1e-5
    for given in (["--precision", "bf16"], ["--dtype", "bfloat16"], ["--dtype", "float16"]):
        assert 1e-6 < gap(figures(document(fisher("--format", "json", *given))), base) < 0.2
    assert [named["budget"] >> 20 for named in seen] == [64, 0, 64, 64, 64, 64, 64]
    assert [named["gradient_checkpointing"] for named in seen] == [*[False] * 2, True, *[False] * 4]
    assert [named["half"] for named in seen] == [*[None] * 4, torch.bfloat16, None, None]
