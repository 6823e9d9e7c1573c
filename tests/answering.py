"""A tiny model whose answers differ from text to text, and runs trained on it, made once."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_run
from tests.command import tree

#: settings of a run that takes half a second
SHORT = {"epochs": 2, "batch_size": 8, "lr": 3e-2, "device": "cpu"}


def write_lively(folder: Path, **options: object) -> Path:
    """`tiny_run.write_base` with weights so large that texts are told apart."""
    import torch
    import transformers

    tiny_run.write_base(folder, **options)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``base``, ``train.jsonl``, ``dev.jsonl``, and runs: ``run``, and of pairs with values
    ``values``, whose ``adapter`` is in our own format. To be read, never written.
    """
    import beftkit

    folder = tmp_path_factory.mktemp("answering")
    base = write_lively(folder / "base")
    files = tiny_run.write_task(folder)
    beftkit.train(base, **files, **SHORT, bias="v", output=folder / "run")
    pairs = [{"a": "good film", "b": "bad plot the", "score": n / 7, "id": n} for n in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in pairs)
    (folder / "pairs.jsonl").write_text(text)
    beftkit.train(
        base, train_file=folder / "pairs.jsonl", text_columns="a,b", label_column="score",
        bias="none", adapter_format="biases", output=folder / "values", **SHORT,
    )  # fmt: skip
    before = tree(folder)
    yield folder
    assert tree(folder) == before, "a test wrote into what all share"
