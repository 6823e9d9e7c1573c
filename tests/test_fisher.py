"""The Fisher of every bias against float64 autograd on one example at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import beftkit
from beftkit.gradients import example_squares
from beftkit.scores import FisherFacts
from beftkit.tasks import Batch
from tests import fisher_cases as cases
from tests.fisher_cases import (
    ALONE,
    BY_ID,
    Case,
    classified,
    classifier,
    gap,
    generated,
    judged,
    loop,
    names_of,
)
from tests.test_tuning import expected_slice

#: dtype -> relative error of the sums
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
CLASSIFIERS = (
    "bert", "albert", "deberta", "deberta-v2-c2p", "deberta-v2-p2c", "deberta-v2-share", "opt",
    "gpt2", "gpt-neox", "bloom", "falcon-new", "qwen2", "bart",
)  # fmt: skip
LANGUAGE_MODELS = (
    "opt", "gpt2", "gpt-neox", "bloom", "falcon-new", "falcon-multi-query", "qwen2", "qwen2-moe",
    "gpt-oss", "bart",
)  # fmt: skip


def precise(case: Case, batches: Any) -> tuple[str, ...]:
    """Float64 and float32 sums are near the judge's of the same weights; returns who was alone."""
    exact = cases.build(case, torch.float64)
    names = names_of(exact)
    expected = loop(exact, names, batches(exact))
    alone: list[tuple[str, ...]] = []
    for dtype, tolerance in TOLERANCES.items():
        model = exact.to(dtype)
        found = example_squares(model, names, batches(model))
        assert gap(found.sums, expected) < tolerance
        assert list(found.sums) == names
        alone.append(found.alone)
    assert alone[0] == alone[1]
    return alone[0]


@pytest.mark.parametrize("id", CLASSIFIERS)
def test_classification(id: str) -> None:
    alone = precise(cases.classifying(id), classified)
    ends = ALONE.get(id, ())
    assert len(alone) == 2 * len(ends)
    assert all(name.endswith(ends) for name in alone)


@pytest.mark.parametrize("id", LANGUAGE_MODELS)
def test_language_modelling(id: str) -> None:
    """Log p of an example is the sum over its tokens."""
    assert precise(BY_ID[id], generated) == ()


@pytest.mark.parametrize("id", ["opt", "gpt2", "qwen2"])
def test_padding_on_the_left(id: str) -> None:
    model = classifier(id)
    batches = classified(model, left=True)
    if id != "opt":  # which counts by the mask itself
        for batch in batches:
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    assert judged(model, batches) < 1e-10


def test_batches_of_equal_lengths_and_other_partitions_give_the_same() -> None:
    model = classifier()
    names = names_of(model)
    [whole] = classified(model, [(7, 7, 3, 3, 2, 2)])
    parts = [
        {key: value[rows, : 7 if value.dim() == 2 and 0 in rows else 3] if value.dim() == 2
         else value[rows] for key, value in whole.items()}
        for rows in ([0, 1], [2, 3, 4, 5])
    ]  # fmt: skip
    one, two = (example_squares(model, names, batches).sums for batches in ([whole], parts))
    assert gap(two, one) < 1e-12 and gap(one, loop(model, names, parts)) < 1e-10


@pytest.mark.parametrize("shape", [(), (1,)], ids=["[N]", "[N, 1]"])
def test_regression_is_half_a_squared_error(shape: tuple[int, ...]) -> None:
    model = classifier(num_labels=1)
    values = torch.randn(4, *shape, dtype=torch.float64)
    batches = classified(model, [(5, 3, 6, 2)])
    for batch in batches:
        batch["labels"] = values
    expected = squared_scores(
        model, batches, lambda logits, label: -0.5 * (logits - label).square().sum()
    )
    found = example_squares(model, list(expected), batches)
    assert gap(found.sums, expected) < 1e-10


@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
def test_several_labels_or_values_each(problem: str | None) -> None:
    model = classifier(problem_type=problem)
    batches = classified(model)
    for seed, batch in enumerate(batches):
        generator = torch.Generator().manual_seed(seed)
        batch["labels"] = torch.rand(len(batch["labels"]), 3, generator=generator).round()

    def score(logits: Tensor, label: Tensor) -> Tensor:
        if problem == "regression":
            return -0.5 * (logits - label).square().sum()
        p = logits.sigmoid()
        return (label * p.log() + (1 - label) * (1 - p).log()).sum()

    expected = squared_scores(model, batches, score)
    assert gap(example_squares(model, list(expected), batches).sums, expected) < 1e-10


def squared_scores(model: Any, batches: Any, score: Any) -> dict[str, Tensor]:
    """`loop` with another log p of an example's logits and label."""
    parameters = dict(model.named_parameters())
    names = names_of(model)
    sums = {name: torch.zeros_like(parameters[name]) for name in names}
    wanted = [parameters[name].requires_grad_(True) for name in names]
    for batch in batches:
        for row, label in enumerate(batch["labels"]):
            kept = batch["attention_mask"][row].bool()
            logits = model(input_ids=batch["input_ids"][row : row + 1, kept]).logits
            for name, grad in zip(
                names, torch.autograd.grad(score(logits.squeeze(0), label), wanted), strict=True
            ):
                sums[name] += grad.square()
    for parameter in wanted:
        parameter.requires_grad_(False)
    return sums


def choice(model: Any, batch: Batch) -> Tensor:
    """-log p of the right one of an example's candidates, each a row."""
    scores = model(**batch.inputs).logits[:, 0]
    index = torch.arange(len(scores)) if batch.index is None else batch.index
    return torch.stack(
        [
            functional.cross_entropy(scores[index == example], batch.targets[example])
            for example in range(batch.examples)
        ]
    )


@pytest.mark.parametrize("id", ["bert", "albert", "deberta"])
@pytest.mark.parametrize("index", [[0, 0, 1, 1, 1], [1, 0, 1, 0, 1]], ids=["in order", "mixed"])
def test_several_rows_an_example(id: str, index: list[int]) -> None:
    model = classifier(id)
    [rows] = classified(model, [(7, 3, 5, 6, 2)])
    inputs = {key: rows[key] for key in ("input_ids", "attention_mask")}
    batch = Batch(inputs, torch.tensor([1, 2]), torch.tensor(index))
    names = names_of(model)
    found = example_squares(model, names, [batch, batch], choice)
    assert found.examples == 4 and bool(found.alone) == (id == "deberta")
    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(parameters[name]) for name in names}
    wanted = [parameters[name].requires_grad_(True) for name in names]
    for example in range(2):
        mine = torch.tensor(index) == example
        alone = Batch(
            {key: value[mine] for key, value in inputs.items()}, batch.targets[[example]],
            torch.zeros(int(mine.sum()), dtype=torch.int64),
        )  # fmt: skip
        grads = torch.autograd.grad(choice(model, alone).sum(), wanted)
        for name, grad in zip(names, grads, strict=True):
            expected[name] += 2 * grad.square()
    assert gap(found.sums, expected) < 1e-10


@pytest.mark.parametrize("id", ["gpt2", "gpt-neox", "bloom", "falcon-new"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_roles_of_a_fused_projection(id: str, reduce: str) -> None:
    """Each role is its own part of the one bias."""
    model = classifier(id)
    batches = classified(model)
    scores = beftkit.fisher(model, batches, reduce=reduce)
    judge = loop(model, names_of(model), batches)
    fused = [name for name in judge if any(part in name for part in ("c_attn", "query_key_value"))]
    assert len(fused) == 2
    for role in "qkv":
        parts = [judge[name][expected_slice(id, role, len(judge[name]))] / 8 for name in fused]
        each = [float(part.mean() if reduce == "mean" else part.sum()) for part in parts]
        largest = max(one.figures["fisher"] or 0.0 for one in scores.roles.values())
        figure = scores.roles[role].figures["fisher"]
        assert figure == pytest.approx(sum(each) / 2, rel=1e-9, abs=1e-15 * largest)


def test_scores_of_a_model_in_memory() -> None:
    model = classifier()
    batches = classified(model)
    scores = beftkit.fisher(model, iter(batches))
    judge = loop(model, names_of(model), batches)
    for role, one in scores.roles.items():
        for site in one.sites:
            vector = dict(model.named_parameters())[site.name].detach()
            assert site.figures["norm_pre"] == pytest.approx(float(vector.norm()))
            if role != "k":
                mean = float(judge[site.name].mean()) / 8
                assert site.figures["fisher"] == pytest.approx(mean, rel=1e-10)
    assert scores.method == "fisher" and scores.target in ("q", "v")
    assert scores.roles["k"].inert == "yes" and list(scores.roles)[-1] == "k"
    figures = {role: one.figures["fisher"] or 0.0 for role, one in scores.roles.items()}
    assert figures["k"] < 1e-25 * figures["v"], "rounding noise"
    assert [one.rank for one in scores.roles.values()][:7] == list(range(1, 8))
    assert scores.settings == FisherFacts("exact", "mean", examples=8)
    assert beftkit.fisher(model, batches, candidates=["k"]).target is None
    assert beftkit.fisher(model, batches, candidates=["k"], allow_inert=True).target == "k"
    share = classifier("deberta-v2-share")
    again = beftkit.fisher(share, classified(share), candidates=["k", "q"])
    assert again.target in ("q", "k") and "measured one example at a time" in " ".join(again.notes)
    assert "and 3 more" in " ".join(again.notes)


def test_one_tower_of_two() -> None:
    model = cases.build(BY_ID["bart"], torch.float64)
    batches = generated(model)
    for tower, part in (("text.encoder", "model.encoder."), ("text.decoder", "model.decoder.")):
        scores = beftkit.fisher(model, batches, tower=tower)
        sites = [site for one in scores.roles.values() for site in one.sites]
        assert scores.tower == tower and all(site.name.startswith(part) for site in sites)
        judge = loop(model, [site.name for site in sites], batches)
        found = {site.name: torch.tensor([site.figures["fisher"] or 0.0]) for site in sites}
        assert gap(found, {name: one.mean()[None] / 8 for name, one in judge.items()}) < 1e-6
