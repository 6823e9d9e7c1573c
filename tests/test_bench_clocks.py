"""What `bench/gpu.py` times: seconds end in the column they belong to, on both sides alike.

The clock is one that only stands still but where a test has it pass: loading takes 5 s, an update's
forward pass 1 s, one of an evaluation 1/4 s, writing a state 1/8 s.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import torch  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification  # noqa: E402

from beftkit.training import state  # noqa: E402
from bench import gpu_rows, material  # noqa: E402
from bench.gpu_rows import Figures, Place  # noqa: E402

TRAIN, DEV, EPOCHS = 168, 24, 3
UPDATES, BATCHES = 11, 2  # of an epoch, of an evaluation
LOADING, UPDATE, BATCH, STATE = 5.0, 1.0, 0.25, 0.125
CONTESTANTS = {
    "eager": partial(gpu_rows.ours, "fp32", False),
    "captured": partial(gpu_rows.ours, "fp32", True),
    "Trainer": partial(gpu_rows.trainer, "trainer", {}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("bench")
    material.write_data(folder, None, TRAIN, DEV)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    material.write_model(folder / "model", config=BertConfig(intermediate_size=16, **sizes))
    return Place(folder, "cpu", folder, EPOCHS, True)


class Seen:
    """Forward passes and optimiser steps of a run, and its seconds."""

    def __init__(self) -> None:
        self.now = 100.0
        self.passes: list[tuple[bool, tuple[int, ...], float]] = []
        self.steps: list[list[dict[str, Any]]] = []
        self.clipped: set[float] = set()

    def shapes(self, training: bool) -> list[tuple[int, ...]]:
        return [shape for trains, shape, _ in self.passes if trains == training]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """Runs are watched, and their clock is a made one."""
    found = Seen()
    monkeypatch.setattr(time, "perf_counter", lambda: found.now)

    def slow(owner: Any, name: str, seconds: float) -> None:
        before = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            found.now += seconds
            return before(*args, **options)

        monkeypatch.setattr(owner, name, call)

    slow(BertForSequenceClassification, "from_pretrained", LOADING)
    slow(state, "save_state", STATE)
    forward = BertForSequenceClassification.forward

    def watched(self: Any, input_ids: Any, **options: Any) -> Any:
        found.now += UPDATE if self.training else BATCH
        shape = tuple(input_ids.shape)
        found.passes.append((self.training, shape, self.bert.embeddings.dropout.p))
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(BertForSequenceClassification, "forward", watched)
    clip = torch.nn.utils.clip_grad_norm_

    def clipping(parameters: Any, most: Any, *args: Any, **options: Any) -> Any:
        found.clipped.add(float(most))
        return clip(parameters, most, *args, **options)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clipping)
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def stepping(optimizer: Any, *_: Any) -> None:
        found.steps.append([dict(group) for group in optimizer.param_groups])

    hook: Any = stepping
    handle = register_optimizer_step_pre_hook(hook)
    yield found
    handle.remove()


@pytest.mark.parametrize("name", CONTESTANTS)
def test_seconds_end_where_they_belong(name: str, place: Place, seen: Seen) -> None:
    found = CONTESTANTS[name](place, 1e9)
    evaluation = BATCHES * BATCH
    # Ours writes a state after an epoch: in the next one's seconds, in no update's.
    saved = 0.0 if name == "Trainer" else STATE
    later = UPDATES * UPDATE + evaluation + saved
    trying = seen.shapes(True)
    once = (len(trying) - EPOCHS * UPDATES) * UPDATE
    once += (len(seen.shapes(False)) - EPOCHS * BATCHES) * BATCH
    assert (once > 0) == (name == "captured")  # of recordings
    assert found["before s"] == LOADING
    assert found["first epoch s"] == UPDATES * UPDATE + evaluation + once
    assert found["later epoch s"] == later
    assert found["all epochs s"] == found["first epoch s"] + 2 * later
    assert found["evaluation s"] == evaluation
    step = UPDATE if saved else (later - evaluation) / UPDATES
    assert found["step ms"] == pytest.approx(1e3 * step, rel=1e-3)  # by a rounded figure
    assert found["epochs run"] == EPOCHS


def test_both_do_the_same(place: Place, seen: Seen) -> None:
    """The same values trained by the same AdamW, as many rows and tokens, dropout on."""
    kept = ("lr", "betas", "eps", "weight_decay", "fused")

    def said(run: Callable[[Place, float], Figures]) -> dict[str, Any]:
        seen.passes.clear(), seen.steps.clear(), seen.clipped.clear()
        run(place, 1e9)
        groups = [group for step in seen.steps for group in step]
        sizes = [[value.numel() for one in step for value in one["params"]] for step in seen.steps]
        return {
            "adam": {tuple((key, one[key]) for key in kept) for one in groups},
            "steps": len(seen.steps),
            "scalars": {tuple(sorted(one)) for one in sizes},
            "clipped": {*seen.clipped},
            "rows": sorted(rows for rows, _ in seen.shapes(True)),
            "rows evaluated": sorted(rows for rows, _ in seen.shapes(False)),
            "dropout": {share for training, _, share in seen.passes if training},
        }

    ours = said(CONTESTANTS["eager"])
    tokens = sum(rows * width for rows, width in seen.shapes(True))
    theirs = said(CONTESTANTS["Trainer"])
    assert ours == theirs
    assert ours["dropout"] == {0.1} and ours["steps"] == EPOCHS * UPDATES
    others = sum(rows * width for rows, width in seen.shapes(True))
    assert others == pytest.approx(tokens, rel=0.15)


def test_one_epoch_tells_nothing_of_later_ones(place: Place) -> None:
    """Trainer's first in bf16 on a GPU takes seven times as long as a later one."""
    assert gpu_rows.course([(9.0, 1.0)], place, 5.0) == {
        "before s": 5.0, "first epoch s": 9.0, "epochs run": 1,
    }  # fmt: skip


def test_a_run_of_one_epoch(place: Place, seen: Seen) -> None:
    found = gpu_rows.ours("fp32", True, place, 1e9, epochs=1)
    assert [*found] == ["before s", "first epoch s"]
    assert found["before s"] == LOADING
    assert len(seen.shapes(False)) >= BATCHES and found["first epoch s"] >= UPDATES * UPDATE


def test_warming_up_is_a_use_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    halves: list[bool] = []
    forward = BertForSequenceClassification.forward

    def watched(self: Any, **options: Any) -> Any:
        halves.append(torch.is_autocast_enabled("cpu"))
        return forward(self, **options)

    monkeypatch.setattr(BertForSequenceClassification, "forward", watched)
    gpu_rows.warm(torch.device("cpu"))
    assert halves == [False, True]
