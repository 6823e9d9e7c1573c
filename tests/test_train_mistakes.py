"""What a user can get wrong in training and evaluating: one line each, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import saved_states, tiny_run
from tests.command import Beftkit, refused

DATA = ("--validation-file", "dev.jsonl", "--device", "cpu")
RUN = ("--train-file", "train.jsonl", *DATA, "--epochs", "1", "--batch-size", "8", "--lr", "1e-2",
       "--quiet")  # fmt: skip
FIT = "a base model that does not match the adapter (it was trained on "


@pytest.fixture(scope="module", autouse=True)
def others(place: Path) -> None:
    """Bases of two more geometries, one that reads no text, and data of values."""
    tiny_run.write_base(place / "wide", hidden_size=36)
    tiny_run.write_base(place / "shallow", num_hidden_layers=1)
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        image_size=32, patch_size=16,
    )  # fmt: skip
    transformers.ViTModel(config).save_pretrained(place / "vit")
    rows = [{"text": "good film", "label": number / 7} for number in range(12)]
    (place / "values.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def adapter(workplace: Path, beftkit: Beftkit) -> str:
    """An adapter for ``base``."""
    assert beftkit("train", "base", *RUN, "--max-steps", "1", "-o", "good").code == 0
    return "good/adapter"


def test_a_model_that_reads_no_text(workplace: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", "vit", *RUN, "-o", "out")
    refused(ran, "vit: no model with a classification head exists for ")


def test_an_adapter_of_another_geometry(adapter: str, beftkit: Beftkit) -> None:
    for base, message in (("wide", "is [2, 24], but "), ("shallow", "has not; ")):
        ran = beftkit("evaluate", base, "--adapter", adapter, *DATA)
        refused(ran, message, limit=400)
        assert FIT in ran.err
    refused(beftkit("score", "wide", adapter), "is this the adapter's base?", limit=400)


def test_values_for_classes(adapter: str, beftkit: Beftkit) -> None:
    values = ("--validation-file", "values.jsonl")
    ran = beftkit("evaluate", "--adapter", adapter, *values)
    refused(ran, "values.jsonl, column 'label': labels 0")
    ran = beftkit("train", "base", *RUN, *values, "-o", "out")
    refused(ran, "'neg' in column 'label', where other rows hold numbers")
    ran = beftkit("train", "base", *RUN, "--regression", "-o", "out")
    refused(ran, "train.jsonl:1: 'neg', not a finite number, in column 'label'")


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro_f1", "matthews"])
def test_a_metric_of_classes_for_values(metric: str, workplace: Path, beftkit: Beftkit) -> None:
    """Cut to whole numbers, values would agree that do not."""
    values = ("--train-file", "values.jsonl", "--validation-file", "values.jsonl")
    ran = beftkit("train", "base", *RUN, *values, "--metric", metric, "-o", "out")
    refused(ran, f"metric {metric}: is for classes, and these are values; use pearson")
    assert not Path("out").exists()


def test_a_learning_rate_beyond_all_measure(workplace: Path, beftkit: Beftkit) -> None:
    ran = beftkit("train", "base", *RUN, "--lr", "1e30", "--save-steps", "1", "-o", "out")
    refused(ran, "the loss or its gradient is not finite at update 2; try a lower --lr")
    assert "--resume takes up the last good state in out/state" in ran.err
    assert [*saved_states.states(Path("out"))] == [1]


def cuda() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has")


def cpu() -> Exception:
    return RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 B")


@pytest.mark.parametrize("error", [cuda, cpu, MemoryError])
@pytest.mark.parametrize("where", ["moved", "computed"])
def test_out_of_memory(
    error: Callable[[], Exception], where: str, adapter: str, beftkit: Beftkit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: Any, **__: Any) -> Any:
        raise error()

    if where == "moved":
        monkeypatch.setattr(torch.nn.Module, "to", fail)
    else:
        monkeypatch.setattr(torch.nn.Embedding, "forward", fail)
    ran = beftkit("train", "base", *RUN, "-o", "out")
    refused(ran, "out of memory with batch_size 8, max_length 128; lower --batch-size (and raise")
    ran = beftkit("evaluate", "--adapter", adapter, *DATA, "--batch-size", "31")
    refused(ran, "out of memory with batch_size 31, max_length 32; lower --batch-size or --max-len")
