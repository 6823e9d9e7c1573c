"""Each family that trains, captured with the stand-in: rounded widths and filled rows change
nothing, and what goes on eagerly says why.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from beftkit.objectives.fits import READ_PADDING
from beftkit.tasks import Encoded, widths
from beftkit.training.captured import CapturedStepper
from beftkit.training.trainer import Trainer
from beftkit.watching import Unwatched
from tests.test_trainer import job
from tests.tiny_classifiers import END, FAMILIES, make_classifier

#: one of each way to pool, to mask and to count positions
SAMPLE = ("bert", "roberta", "gpt2", "llama", "opt", "bart", "deberta-v2", "bloom", "qwen2_moe")
#: family -> a part of what is said where it is not captured
EAGER: dict[str, str] = {
    # rows or places are chosen by a mask of truth values
    **dict.fromkeys("bart bigbird_pegasus mbart mvp plbart xmod".split(), "the host waits"),
    **dict.fromkeys("gemma3 longformer".split(), "the host waits"),
    # a value is looked at
    **dict.fromkeys("flaubert ibert xlm".split(), "the host waits"),
    **{kind: "reads padding" for kind in READ_PADDING if kind in FAMILIES},
}


def encoded(count: int = 11) -> Encoded:
    """Rows of 4 to 20 tokens, each with its ends; the first is not the longest."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(4, 21, (count,), generator=generator)
    lengths[-1] = 20
    rows = []
    for length in lengths.tolist():
        inner = torch.randint(5, 13, (length - 2,), generator=generator)
        rows.append(torch.cat([torch.tensor([2]), inner, torch.tensor([END])]))
    return Encoded(
        ids=torch.cat(rows).to(torch.int32), type_ids=None,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        first_row=torch.arange(count + 1), truncated=0, pad_id=0,
        targets=torch.arange(count) % 2,
    )  # fmt: skip


class Told(Unwatched):
    """Keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def first_update(
    kind: str, graphs: str, device: str = "cpu"
) -> tuple[float, list[torch.Tensor], Trainer, list[str]]:
    """Loss and gradients of the last batch of an epoch, of 3 rows where others have 4."""
    told = Told()
    # Dropout is off; every parameter trains, so that each has its gradient compared.
    ours = job(make_classifier(kind), "full", graphs=graphs, batch_size=4, epochs=1,
               max_grad_norm=0, lr=1e-3, watcher=told, device=device)  # fmt: skip
    data = replace(encoded(), by_length=kind in READ_PADDING)
    trainer = Trainer(replace(ours, train=data, validation={}))
    trainer.progress.update = 2
    trainer.total_steps = 1
    caught: list[list[torch.Tensor]] = []

    def catch(optimizer: Any, *_: Any) -> None:
        caught.append(
            [
                v.grad.to("cpu", copy=True)
                for group in optimizer.param_groups
                for v in group["params"]
            ]
        )

    handle = register_optimizer_step_pre_hook(catch)
    try:
        torch.manual_seed(0)
        losses = trainer.meter
        for window in trainer.updates():
            trainer.job.model.train()
            made = trainer.stepper.step(window)
            if made is not None and made.loss is not None and made.tells is not None:
                losses.add(made.loss, made.tells, made.examples, 1)
            break
    finally:
        handle.remove()
    return float(losses.sums[0]), caught[0], trainer, told.notes


def compare(kind: str, monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> str:
    """Hold both ways against each other; why it is not captured, or nothing."""
    monkeypatch.setattr(widths, "MOST", 1)
    loss, gradients, trainer, notes = first_update(kind, "on", device)
    expected, judges, _, _ = first_update(kind, "off", device)
    if isinstance(trainer.stepper, CapturedStepper):
        (only,) = trainer.stepper.widths.chosen
        assert only == 20 and (trainer.stepper.graphs or notes)
    assert loss == pytest.approx(expected, rel=1e-5)
    whole = sum(float(judge.square().sum()) for judge in judges) ** 0.5
    for one, judge in zip(gradients, judges, strict=True):
        assert float((one - judge).norm()) < 2e-5 * whole
    return " ".join(notes)


@pytest.mark.parametrize("kind", SAMPLE)
def test_sample(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EAGER.get(kind, "") in compare(kind, monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [*SAMPLE, "gemma3", "longformer", "gpt_oss", "xlm"])
def test_on_a_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU captures is printed; numbers hold in either case."""
    print(f"\n{kind}: {compare(kind, monkeypatch, 'cuda') or 'captured'}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(kind, monkeypatch)
    print(f"{kind}: {found or 'captured'}")
    assert bool(found) == (kind in EAGER) and EAGER.get(kind, "") in found


def test_the_page_says_the_same() -> None:
    """Each family of the table in docs/training.md as these tests find it, and none left out."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| ([a-z0-9_ .-]+) \| (captured[a-z -]*|eager) \| (.*)\|$", page, re.M)
    found = [(kind, way, why) for kinds, way, why in lines for kind in kinds.split()]
    assert sorted(kind for kind, *_ in found) == sorted(FAMILIES)
    assert {kind for kind, way, _ in found if way == "eager"} == {*EAGER}
    for kind, way, why in found:
        assert (why.strip() != "") == (way != "captured"), kind
        assert ("they read padding" in why) == (EAGER.get(kind) == "reads padding"), kind
