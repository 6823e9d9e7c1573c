"""The Fisher of every bias against float64 autograd on one example at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import beftkit
import beftkit_kernels
from beftkit.gradients import batch_mean_squares, example_squares, negative_log_likelihoods
from beftkit.gradients import sites_of as measured_of
from beftkit.scores import FisherFacts
from beftkit.tasks import Batch
from tests import fisher_cases as cases
from tests.fisher_cases import BY_ID, Case, classified, gap, generated, loop
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
#: what one backward pass cannot tell apart: no module's bias, or a module without example dimension
ALONE = {"deberta": ("q_bias", "v_bias"), "deberta-v2-share": ("query_proj.bias", "key_proj.bias")}


def names_of(model: Any) -> list[str]:
    return measured_of(model).names


def classifier(id: str = "bert", dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    return cases.build(cases.classifier(id), dtype, **options)


def judged(
    model: Any, batches: Sequence[Mapping[str, Tensor]], judge: Any = None, **settings: Any
) -> float:
    """How far the sums are from the judge's; padding is left out of the judge's batches."""
    names = names_of(model)
    found = example_squares(model, names, batches, **settings)
    assert found.examples == sum(len(batch["input_ids"]) for batch in batches)
    assert all(one.dtype == torch.float64 for one in found.sums.values())
    assert all(parameter.grad is None for parameter in model.parameters())
    return gap(found.sums, loop(judge or model, names, batches))


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
    alone = precise(cases.classifier(id), classified)
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


@pytest.mark.parametrize("id", ["bert", "gpt2"])
def test_gradient_checkpointing(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers run twice, which counts as one use."""
    model = classifier(id)
    batches = classified(model)
    projection = {"bert": "bert.encoder.layer.0.attention.self.query",
                  "gpt2": "transformer.h.0.attn.c_attn"}[id]  # fmt: skip
    runs: list[int] = []
    asked: list[bool] = []
    model.get_submodule(projection).register_forward_hook(lambda *_: runs.append(1))
    plain = beftkit_kernels.example_square_sums

    def sums(*given: Any, **named: Any) -> Any:
        asked.append(named["per_example"])
        return plain(*given, **named)

    monkeypatch.setattr(beftkit_kernels, "example_square_sums", sums)
    counts = []
    for again in (False, True):
        runs.clear()
        assert judged(model, batches, gradient_checkpointing=again) < 1e-10
        counts.append(len(runs))
    # Each pass of a batch, of the pair, and of its two examples alone runs them again.
    assert counts[1] - counts[0] == len(batches) + 1 + 2
    assert asked and not any(asked), "one use needs no gradients of each example"
    assert not any("forward" in vars(module) for module in model.modules())


def test_gradient_checkpointing_leaves_the_forward_of_a_device_map() -> None:
    model = classifier()
    layer = model.bert.encoder.layer[0]
    mine = layer.forward = partial(type(layer).forward, layer)
    assert judged(model, classified(model), gradient_checkpointing=True) < 1e-10
    assert vars(layer)["forward"] is mine


@pytest.mark.parametrize("id", ["bert", "albert"])
@pytest.mark.parametrize("budget", [0, 3000, 1 << 30])
def test_the_buffer_changes_launches_and_nothing_else(
    id: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(id)
    batches = classified(model)
    expected = example_squares(model, names_of(model), batches).sums
    launches = []
    plain = beftkit_kernels.example_square_sums

    def sums(grads: Any, *given: Any, **named: Any) -> Any:
        launches.append(sum(grad.numel() * grad.element_size() for grad in grads))
        return plain(grads, *given, **named)

    monkeypatch.setattr(beftkit_kernels, "example_square_sums", sums)
    found = example_squares(model, names_of(model), batches, budget=budget).sums
    assert gap(found, expected) < 1e-14
    passes = len(batches) + 1  # and the pair
    taken = (len(names_of(model)) * (3 if id == "albert" else 1)) * passes
    if budget == 3000:
        assert passes < len(launches) < taken
        assert sum(size > 3000 + 4 * 7 * 40 * 8 for size in launches) == 0
    else:
        assert len([size for size in launches if size]) == (passes if budget else taken)


def test_bfloat16_models_and_autocast() -> None:
    """Gradients are bfloat16, sums are not."""
    model = classifier(dtype=torch.bfloat16)
    batches = classified(model)
    assert judged(model, batches, classifier(dtype=torch.bfloat16).double()) < 0.1
    single = classifier(dtype=torch.float32)
    cast = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16), "half": torch.bfloat16}
    assert 1e-4 < judged(single, batches, **cast) < 0.1


@pytest.mark.parametrize("id", ["bert", "deberta"])
def test_float16_is_scaled_and_the_scale_undone(id: str) -> None:
    """A batch that overflows is taken again at half the scale, and no other is lost."""
    model = classifier(id, torch.float16)
    batches: list[Any] = [*classified(model), *classified(model, seed=6)]
    for number, batch in enumerate(batches):
        factor = 300.0 if number in (1, 4) else 1.0
        batch["factor"] = torch.full((len(batch["labels"]),), factor)

    def losses(model: Any, batch: Any) -> Tensor:
        plain = {key: value for key, value in batch.items() if key != "factor"}
        return negative_log_likelihoods(model, plain) * batch["factor"]

    judge = classifier(id, torch.float16).double()
    names = names_of(model)
    expected = {name: torch.zeros(1).double() for name in names}
    for batch in batches:
        plain = {key: value for key, value in batch.items() if key != "factor"}
        for name, one in loop(judge, names, [plain]).items():
            expected[name] = expected[name] + one * float(batch["factor"][0]) ** 2
    found = example_squares(model, names, batches, losses)
    assert gap(found.sums, expected) < 0.05
    assert len(found.alone) == 2 * len(ALONE.get(id, ())), "one pass was good enough"
    tame = example_squares(model, names, batches[:1], losses).sums
    assert gap(tame, loop(judge, names, [dict(classified(model)[0])])) < 0.05


def test_sum_of_losses_is_n_squared_times_their_mean() -> None:
    model = classifier()
    [batch] = classified(model, [(7, 3, 5, 6)])
    names = names_of(model)
    found, count, examples = batch_mean_squares(model, names, names, [batch], clip=float("inf"))
    parameters = dict(model.named_parameters())
    wanted = [parameters[name].requires_grad_(True) for name in names]
    grads = torch.autograd.grad(negative_log_likelihoods(model, batch).sum(), wanted)
    expected = {name: grad.square() for name, grad in zip(names, grads, strict=True)}
    assert (count, examples) == (1, 4)
    assert gap({name: 16 * one for name, one in found.items()}, expected) < 1e-10


@pytest.mark.parametrize("clip", [0.05, 1.0])
def test_batch_means_are_clipped_as_torch_clips(clip: float) -> None:
    """Head and pooler are part of the norm."""
    model = classifier()
    batches = classified(model)
    names = names_of(model)
    trained = [n for n, p in model.named_parameters() if n.endswith("bias") or "classifier" in n]
    found, count, examples = batch_mean_squares(model, names, trained, batches, clip=clip)
    assert (count, examples) == (3, 8)
    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(parameters[name]) for name in names}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    clipped = []
    for batch in batches:
        model.zero_grad()
        model(**batch).loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([parameters[name] for name in trained], clip)
        clipped.append(float(norm) > clip)
        for name in names:
            grad = parameters[name].grad
            expected[name] += 0 if grad is None else grad.square()
    model.zero_grad()
    assert any(clipped)
    assert gap(found, expected) < 1e-10
    without, *_ = batch_mean_squares(model, names, names, batches, clip=clip)
    assert gap(without, expected) > 1e-3
