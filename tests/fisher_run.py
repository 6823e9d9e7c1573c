"""Where `beftkit fisher` is tried: a tiny model, its data, a run with snapshots; and the judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import tiny_run
from tests.command import Beftkit, Ran

if TYPE_CHECKING:
    from torch import Tensor

Fisher = Callable[..., Ran]
LABELS = ("neg", "pos")
COUNT = 26


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base``, ``train.jsonl``, ``values.jsonl``, and ``out``, a run with its snapshots."""
    from transformers.utils import logging

    import beftkit

    folder = tmp_path_factory.mktemp("fisher")
    logging.disable_progress_bar()
    tiny_run.write_base(folder / "base", initializer_range=0.3)
    tiny_run.write_task(folder, train=COUNT)
    rows = examples(folder)
    lines = [{"text": row["text"], "label": 3.5 * len(row["text"]) % 2 - 1} for row in rows]
    (folder / "values.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    beftkit.train(
        str(folder / "base"), train_file=str(folder / "train.jsonl"), device="cpu", epochs=2,
        batch_size=8, lr=1e-2, bias="q,v", save_snapshots=True, output=str(folder / "out"),
        validation_file=str(folder / "dev.jsonl"),
    )  # fmt: skip
    return folder


@pytest.fixture
def fisher(
    measured: Path, tmp_path: Path, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> Fisher:
    """Run it beside the data, on the CPU; a model given first is used instead of ``base``."""
    tiny_run.link(measured, tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, model: str = "base", data: bool = True) -> Ran:
        given = ("--train-file", "train.jsonl") if data else ()
        return beftkit("fisher", model, "--device", "cpu", *given, *arguments)

    return run


def examples(folder: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def loaded(
    place: Path, seed: int = 0, labels: tuple[str, ...] = LABELS, model: str = "base"
) -> Any:
    from beftkit.objectives.heads import load_classifier

    found = load_classifier(str(place / model), labels, seed=seed)
    return found.model.double(), found.tokenizer


def names_in(model: Any) -> list[str]:
    """Biases of the blocks."""
    return [n for n, _ in model.named_parameters() if ".layer." in n and n.endswith("bias")]


def judge(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Mean over examples of the squared gradient of log p, each example on its own."""
    import torch

    names = names_in(model)
    wanted = [dict(model.named_parameters())[name].requires_grad_(True) for name in names]
    sums = {name: torch.zeros_like(one) for name, one in zip(names, wanted, strict=True)}
    for row in rows:
        logits = model(**tokenizer(row["text"], return_tensors="pt")).logits[0]
        if len(logits) == 1:
            score = -0.5 * (logits[0] - row["label"]).square()
        else:
            score = logits.log_softmax(0)[LABELS.index(row["label"])]
        for name, grad in zip(names, torch.autograd.grad(score, wanted), strict=True):
            sums[name] += grad.square()
    return {name: one.detach() / len(rows) for name, one in sums.items()}


def figures(document: dict[str, Any]) -> dict[str, Tensor]:
    """Site to its figure."""
    import torch

    return {
        site["name"]: torch.tensor([site["fisher"]], dtype=torch.float64)
        for role in document["roles"].values()
        for site in role["sites"]
    }


def reduced(by_name: dict[str, Tensor], how: str = "mean") -> dict[str, Tensor]:
    return {name: getattr(one, how)()[None] for name, one in by_name.items()}


def document(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran
    return merged(json.loads(ran.out))


def merged(found: dict[str, Any]) -> dict[str, Any]:
    """With what the only post has, if it is the only one."""
    return {**found, **found["posts"][0]} if len(found["posts"]) == 1 else found
