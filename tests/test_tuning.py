"""What ``--bias`` trains, and that nothing else moves by a single bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from beftkit.biases import ROLES
from beftkit.errors import BeftError
from beftkit.tuning import (
    Tuner,
    choose,
    head_names,
    parse_layers,
    store_for_autocast,
)
from tests import tiny_models
from tests.fisher_cases import classifying
from tests.tiny_models import BY_ID, Case

#: as sequence classifiers where the table has a language model
FAMILIES = (
    "bert", "roberta", "albert", "distilbert", "mpnet", "electra", "deberta", "deberta-v2-p2c",
    "opt", "gpt2", "gpt-neox", "bloom", "falcon-new", "falcon-multi-query", "qwen2",
)  # fmt: skip


def classifier(id: str, dtype: torch.dtype = torch.float32) -> tuple[Case, Any]:
    """A tiny sequence classifier with random biases."""
    case = classifying(id)
    return case, tiny_models.build(case, dtype, pad_token_id=0)


def owners(case: Case, role: str) -> set[str]:
    """The parameters that hold a role, by the architectures' own code, below the base model."""
    return {owner.name.partition(".")[2] for owner in case.owners if owner.role == role}


def expected_slice(id: str, role: str, size: int) -> torch.Tensor:
    """Which scalars of a fused bias are the role's, spelled out for each layout."""
    at = torch.arange(size)
    number = "qkv".index(role)
    if id == "gpt2":  # [q | k | v]
        return at.chunk(3)[number]
    if id in ("gpt-neox", "bloom"):  # for each of 3 heads: q, k, v
        return at.view(3, 3, 8)[:, number].reshape(-1)
    if id == "falcon-new":  # for each of 2 groups: 2 queries, a key, a value
        groups = at.view(2, 4, 8)
        return (groups[:, :2] if role == "q" else groups[:, 1 + number]).reshape(-1)
    assert id == "falcon-multi-query"  # 4 queries, then one key, one value
    return {"q": at[:32], "k": at[32:40], "v": at[40:]}[role]


def step(model: Any, tuner: Tuner, updates: int = 1, lr: float = 1e-2) -> None:
    """A few steps of AdamW on random tokens."""
    optimizer = torch.optim.AdamW(tuner.values, lr=lr, eps=1e-6, weight_decay=0.0)
    generator = torch.Generator().manual_seed(3)
    for _ in range(updates):
        ids = torch.randint(2, 50, (4, 6), generator=generator)
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().square()
        loss.sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tuner.write_back()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The raw bytes of each scalar, ``[scalars, bytes]``."""
    return tensor.detach().clone().reshape(-1, 1).view(torch.uint8).reshape(tensor.numel(), -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("bias", ["v", "q"])
@pytest.mark.parametrize("id", FAMILIES)
def test_one_step_moves_the_role_and_no_other_scalar(
    id: str, bias: str, dtype: torch.dtype
) -> None:
    case, model = classifier(id, dtype)
    before = {name: bits(p) for name, p in model.named_parameters()}
    choice = choose(model, bias, freeze_head=True)
    tuner = Tuner(model, choice, "cpu")
    step(model, tuner, lr=0.5)  # coarse enough for bfloat16 to show
    wanted = owners(case, bias)
    seen = set()
    for name, parameter in model.named_parameters():
        moved = (bits(parameter) != before[name]).any(1)
        short = next((one for one in wanted if f".{name}".endswith(f".{one}")), None)
        if short is None:
            assert not moved.any(), name
            continue
        seen.add(short)
        place = torch.zeros(parameter.numel(), dtype=torch.bool)
        fused = any(owner.fused for owner in case.owners if owner.name.endswith(short))
        place[expected_slice(id, bias, parameter.numel()) if fused else slice(None)] = True
        assert not moved[~place].any(), name
        assert moved[place].any(), name
    assert seen == wanted
    assert all(value.dtype == torch.float32 for value in tuner.values)


def test_small_steps_add_up_in_a_bfloat16_model() -> None:
    """Steps below bfloat16's resolution: rounded after each, nothing would ever move."""
    _, exact = classifier("bert")
    exact.bfloat16().float()  # the same rounded weights
    _, rounded = classifier("bert", torch.bfloat16)
    moves = {}
    for name, model in (("exact", exact), ("rounded", rounded)):
        tuner = Tuner(model, choose(model, "v", freeze_head=True), "cpu")
        begin = [value.detach().clone() for value in tuner.values]
        step(model, tuner, updates=30, lr=1e-5)
        moves[name] = torch.cat(
            [(v - b).detach() for v, b in zip(tuner.values, begin, strict=True)]
        )
    assert moves["rounded"].abs().mean() > 0.5 * moves["exact"].abs().mean() > 0


@pytest.mark.parametrize("id", ["bert", "albert", "gpt2", "falcon-new"])
def test_gradients_are_those_of_the_parameters(id: str) -> None:
    """Accumulated over two batches, against autograd on the whole parameters."""
    _, model = classifier(id)
    model.double()
    tuner = Tuner(model, choose(model, "q,v"), "cpu")
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(2, 50, (3, 5), generator=generator) for _ in range(2)]
    for ids in batches:
        model(input_ids=ids).logits.square().sum().backward()
    parameters = dict(model.named_parameters())
    loss = sum(model(input_ids=ids).logits.square().sum() for ids in batches)
    for unit in tuner.units:
        (whole,) = torch.autograd.grad(loss, parameters[unit.part.parameter], retain_graph=True)
        flat = whole.reshape(-1)
        expected = flat if unit.positions is None else flat[unit.positions]
        assert unit.values.grad is not None
        torch.testing.assert_close(unit.values.grad.reshape(-1).double(), expected, rtol=1e-5,
                                   atol=1e-6)  # fmt: skip


def test_roles_heads_and_controls_of_bert() -> None:
    _, model = classifier("bert")
    head = {"classifier.weight", "classifier.bias"}
    pooler = {"bert.pooler.dense.bias"}

    def parts(bias: str, **options: Any) -> set[str]:
        return {part.parameter for part in choose(model, bias, **options).parts}

    assert set(head_names(model)) == head
    assert parts("head") == head
    assert parts("none") == head | pooler
    assert parts("none", freeze_head=True) == set()
    assert parts("v") == head | pooler | {
        f"bert.encoder.layer.{i}.attention.self.value.bias" for i in range(2)
    }
    assert parts("v", layers="1", freeze_head=True) == {
        "bert.encoder.layer.1.attention.self.value.bias"
    }
    biases = {name for name, p in model.named_parameters() if name.endswith("bias")}
    assert "bert.embeddings.LayerNorm.bias" in parts("all")
    assert parts("all") == biases | head
    assert parts("full") == {name for name, _ in model.named_parameters()}
    choice = choose(model, ",".join(ROLES), freeze_head=True)
    assert choice.scalars == 2 * (3 * 24 + 24 + 40 + 24 + 24 + 24)
    assert choice.total == sum(p.numel() for p in model.parameters())
    assert choose(model, "v").scalars == 48
    assert choose(model, "v").percent == pytest.approx(100 * 48 / choice.total)


def test_random_scalars_are_drawn_evenly_and_by_seed() -> None:
    _, model = classifier("bert")
    one, same, other = (choose(model, "rand:4000", freeze_head=True, seed=s) for s in (0, 0, 1))
    assert one.parts == same.parts != other.parts
    assert one.scalars == 4000
    assert choose(model, "rand", freeze_head=True).scalars == 48, "as many as b_v"

    inside = {n: p.numel() for n, p in model.named_parameters() if not n.startswith("classifier")}
    share = 4000 / sum(inside.values())
    drawn = {part.parameter: part.size for part in one.parts}
    for name, size in inside.items():
        if size > 500:
            deviation = (size * share * (1 - share)) ** 0.5
            assert abs(drawn[name] - size * share) < 5 * deviation, name
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(model, Tuner(model, one, "cpu"))
    after = dict(model.named_parameters())
    for part in one.parts:
        moved = (after[part.parameter] != before[part.parameter]).reshape(-1).nonzero().reshape(-1)
        assert set(moved.tolist()) <= set(part.positions)
    assert not one.is_adapter


@pytest.mark.parametrize(
    ("id", "bias", "options", "message"),
    [
        ("bert", "x", {}, "expected roles out of q, k, v"),
        ("bert", "q,none", {}, "expected roles out of"),
        ("bert", "rand:0", {}, "expected roles out of"),
        ("bert", "rand:99999999", {}, r"expected 1 to \d+ scalars"),
        ("bert", "v", {"layers": "0-5"}, "no layer 2, 3, 4, 5 with a bias; this model has 0-1"),
        ("bert", "v", {"layers": "b"}, "expected numbers and ranges"),
        ("bert", "v", {"layers": "3-1"}, "expected numbers and ranges"),
        ("deberta", "k", {}, "no such bias; it has q, v, m1"),
        ("llama", "m2", {}, "no such bias"),
    ],
)
def test_what_makes_no_sense_is_refused(
    id: str, bias: str, options: dict[str, Any], message: str
) -> None:
    _, model = classifier(id)
    with pytest.raises(BeftError, match=message):
        choose(model, bias, **options)


def test_a_bias_free_model_is_named_so() -> None:
    case = replace(BY_ID["llama"], options={**BY_ID["llama"].options, "attention_bias": False})
    model = tiny_models.build(replace(case, model="LlamaForSequenceClassification"))
    with pytest.raises(BeftError, match="bias-free"):
        choose(model, "v")
    with pytest.raises(BeftError, match="bias-free"):
        choose(model, "all")


def test_a_role_of_some_layers_is_an_error_unless_allowed() -> None:
    _, model = classifier("bert")
    model.bert.encoder.layer[1].attention.self.value.bias = None
    with pytest.raises(BeftError, match="1 of 2 layers have it, not 1; allow_partial=True"):
        choose(model, "v")
    assert choose(model, "v", allow_partial=True, freeze_head=True).scalars == 24
    _, free = classifier("deberta")
    assert choose(free, "k,v", allow_partial=True, freeze_head=True).scalars == 48
    with pytest.raises(BeftError, match="no such bias"):
        choose(free, "k", allow_partial=True)


def test_an_inert_bias_is_warned_about() -> None:
    _, bert = classifier("bert")
    _, qwen = classifier("qwen2")
    assert any("k is inert" in note for note in choose(bert, "k").notes)
    assert choose(bert, "v").notes == () == choose(qwen, "k").notes


def test_tracked_vectors_follow_training() -> None:
    """For a fused bias too, where q and v lie in one copy."""
    for id in ("bert", "gpt2", "falcon-new"):
        _, model = classifier(id)
        choice = choose(model, "q,v")
        tuner = Tuner(model, choice, "cpu")
        step(model, tuner)
        found, roles = tuner.vectors()
        assert sorted(set(roles.values())) == ["q", "v"] and len(found) == 4
        parameters = dict(model.named_parameters())
        for site, vector in zip(choice.sites, found.values(), strict=True):
            flat = parameters[site.name].detach().reshape(-1)
            where = slice(None) if site.cut is None else site.cut.positions()
            assert torch.equal(vector.reshape(-1), flat[where])


def test_state_round_trip() -> None:
    _, model = classifier("gpt2")
    tuner = Tuner(model, choose(model, "v"), "cpu")
    step(model, tuner)
    held = {name: value.clone() for name, value in tuner.state().items()}
    whole = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(model, tuner)
    tuner.load_state(held)
    assert all(torch.equal(p, whole[name]) for name, p in model.named_parameters())


def test_roles_that_are_zero_at_the_start_are_named() -> None:
    _, model = classifier("gpt2")
    with torch.no_grad():
        for layer in model.transformer.h:  # [q | k | v], of which v becomes zero
            layer.attn.c_attn.bias.chunk(3)[2].zero_()
    tuner = Tuner(model, choose(model, "q,v"), "cpu")
    assert tuner.at_zero() == ["v"]
    step(model, tuner)
    assert tuner.at_zero() == []


@pytest.mark.parametrize("id", ["bert", "gpt2", "deberta-v2-p2c", "opt"])
def test_stored_matrices_change_no_bit_of_autocast(id: str) -> None:
    results = []
    for stored in (False, True):
        _, model = classifier(id)
        tuner = Tuner(model, choose(model, "v"), "cpu")
        count = store_for_autocast(model, torch.bfloat16) if stored else 0
        assert (count > 5) == stored
        ids = torch.randint(2, 50, (4, 6), generator=torch.Generator().manual_seed(3))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        logits.float().square().sum().backward()
        results.append([logits.detach(), *(value.grad for value in tuner.values)])
    for plain, stored_one in zip(*results, strict=True):
        assert plain is not None and torch.equal(plain, stored_one)


def test_nothing_frozen_is_kept_for_the_backward_pass() -> None:
    """No gradient of a frozen parameter, and no graph below the lowest bias that trains."""
    _, model = classifier("bert")
    Tuner(model, choose(model, "v", layers="1", freeze_head=True), "cpu")
    lowest = model.bert.encoder.layer[0](torch.randn(1, 3, 24))
    hidden = lowest[0] if isinstance(lowest, tuple) else lowest
    assert not hidden.requires_grad
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "bert.encoder.layer.1.attention.self.value.bias"
    ]


def test_layers_are_read_with_both_ends() -> None:
    assert parse_layers("0-2, 5") == {0, 1, 2, 5}


@pytest.mark.parametrize("bias", ["v", "all", "full", "rand:4000", "rand:9500", "none", "head"])
def test_no_scalar_trains_twice(bias: str) -> None:
    """Random scalars in the pooler's bias, which trains along, had two values and two moments."""
    _, model = classifier("bert")
    total = sum(p.numel() for p in model.parameters())
    choice = choose(model, bias)
    names = [part.parameter for part in choice.parts]
    assert len(names) == len({*names})
    assert choice.scalars + choice.head_scalars <= total
    drawn = sum(part.size for part in choice.parts if part.kind == "other")
    assert drawn == int(bias.partition(":")[2] or drawn), "as many as asked for"
    pooler = [part for part in choice.parts if part.parameter == "bert.pooler.dense.bias"]
    assert [part.kind for part in pooler] == ([] if bias == "head" else ["head"])
