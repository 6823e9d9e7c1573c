"""Biases added to models that have none: held to autograd, to real biases, and to PEFT."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from beftkit.adapters import write_adapter
from beftkit.biases import ADDED
from beftkit.errors import BeftError, UsageError
from beftkit.tuning import Tuner, add, adding, attach, checkpoint_activations, choose, parse_added
from beftkit.tuning.added import AddingHook, choose_added, detach
from beftkit.weights import apply_adapter, collect_tuned
from tests import bias_free
from tests.bias_free import BY_ID, CASES, Free, tokens
from tests.tiny_models import build

ROLES = [(case, role) for case in CASES for role in case.roles]
peft_warns = pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias")
lora_warns = pytest.mark.filterwarnings("ignore:.*targeted layer of type Linear has no bias")


def noise(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 0.3


def given(model: Any, modules: list[str]) -> Any:
    """A copy whose Linear layers have real biases, zero; the independent judge."""
    twin = copy.deepcopy(model)
    for name in modules:
        module = twin.get_submodule(name)
        module.bias = torch.nn.Parameter(module.weight.new_zeros(module.out_features))
    return twin


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_gradients_are_those_of_real_biases(case: Free) -> None:
    """In float64, at values that are not zero; fused projections over their whole width."""
    model = case.build(torch.float64)
    roles = ",".join(case.roles)
    modules = list(dict.fromkeys(name for role in case.roles for name in case.modules(role)))
    twin = given(model, modules)
    assert sorted(add(model, roles)) == sorted(modules)
    ours = [model.get_parameter(f"{name}.{ADDED}") for name in modules]
    theirs = [twin.get_parameter(f"{name}.bias") for name in modules]
    with torch.no_grad():
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert mine.dtype == torch.float64
            other.copy_(mine.copy_(noise(len(mine), number)))
    batch = tokens(model)
    one, other = model(**batch).logits, twin(**batch).logits
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    weights = noise(one.numel(), 99).view_as(one).double()
    found = torch.autograd.grad((one.tanh() * weights).sum(), ours)
    wanted = torch.autograd.grad((other.tanh() * weights).sum(), theirs)
    for mine, real in zip(found, wanted, strict=True):
        assert real.abs().max() > 0
        torch.testing.assert_close(mine, real, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("case", "role"), ROLES, ids=[f"{c.id}-{r}" for c, r in ROLES])
def test_what_trains_of_each_role(case: Free, role: str) -> None:
    """The modules, and of fused ones the slice, as written down by hand; nothing else moves."""
    with torch.device("meta"):
        model = type(case.build())(case.build().config)
    before = {name for name, _ in model.named_parameters()}
    choice = choose(model, "none", add_bias=role, freeze_head=True)
    assert {name for name, _ in model.named_parameters()} == before
    assert [part.parameter for part in choice.parts] == [
        f"{name}.{ADDED}" for name in case.modules(role)
    ]
    for part in choice.parts:
        assert [*part.positions] == [*case.slices.get(role, ())]
    assert choice.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_added_v_is_where_attention_takes_its_values(case: Free) -> None:
    """Weights sum to 1, so b_v at the values is W_o b_v behind it; some softmaxes are float32."""
    model, other = case.build(torch.float64), case.build(torch.float64)
    tuner = Tuner(model, choose(model, "none", add_bias="v", freeze_head=True), "cpu")
    add(other, "o")
    values = dict(zip(case.modules("v"), tuner.values, strict=True))
    with torch.no_grad():
        for number, (value, name) in enumerate(
            zip(values.values(), case.modules("m1"), strict=True)
        ):
            value.copy_(noise(len(value), number))
            out = other.get_submodule(name)
            heads = value.double().view(-1, 8)  # all of them have heads of 8
            whole = heads.repeat_interleave(out.in_features // heads.numel(), 0).flatten()
            getattr(out, ADDED).copy_(out.weight @ whole)
    tuner.write_back()
    batch = tokens(model)
    logits = model(**batch).logits
    torch.testing.assert_close(logits, other(**batch).logits, rtol=1e-6, atol=1e-6)
    assert (logits - case.build(torch.float64)(**batch).logits).abs().max() > 1e-2


@pytest.mark.parametrize("id", ["llama", "phi3"])
def test_training_moves_the_vector_alone(id: str) -> None:
    """One step of the tuner in bfloat16: float32 masters, slices only, weights to the bit."""
    case = BY_ID[id]
    model = case.build(torch.bfloat16)
    before = copy.deepcopy(model.state_dict())
    choice = choose(model, "none", add_bias="v")
    tuner = Tuner(model, choice, "cpu")
    assert all(value.dtype == torch.float32 for value in tuner.values)
    model(**tokens(model)).logits.float().square().sum().backward()
    optimizer = torch.optim.SGD(tuner.values, lr=1e-2)
    optimizer.step()
    tuner.write_back()
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for name in case.modules("v"):
        vector = after[f"{name}.{ADDED}"]
        moved = vector.nonzero().flatten().tolist()
        assert moved == [*case.slices.get("v", range(len(vector)))]
        assert vector.dtype == torch.float32
    vectors, roles = tuner.vectors()
    assert {*roles.values()} == {"v"} and all(vector.any() for vector in vectors.values())
    names = {f"{name}.bias" for name in case.modules("v")}
    assert names <= {*tuner.biases()}
    tuner.close()


@peft_warns
@lora_warns
@pytest.mark.parametrize("format", ["beft", "lora", "biases"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("id", ["llama-classes", "gptj", "phi3", "gpt-neox"])
def test_unmerged_logits_are_peft_s(
    id: str, dtype: torch.dtype, format: str, tmp_path: Path
) -> None:
    """To the bit, as trained, as PEFT loads it and as we put it on again."""
    case = BY_ID[id]
    base = case.build(dtype)
    model = copy.deepcopy(base)
    tuner = Tuner(model, choose(model, "none", add_bias="v,o"), "cpu")
    with torch.no_grad():
        for number, value in enumerate(tuner.values):
            value.add_(noise(value.numel(), number).view_as(value))
    tuner.write_back()
    before = {unit.part.parameter: unit.before for unit in tuner.units if unit.before is not None}
    task = "SEQ_CLS" if id == "llama-classes" else "CAUSAL_LM"
    what = collect_tuned(model, before, task_type=task)
    added = [one for one in what if one.kind == "linear"]
    assert all(one.added and not one.pre.any() and one.post.any() for one in added)
    notes = write_adapter(tmp_path, what, format=format, base="b", task_type=task, metadata={})
    batch = tokens(base)
    expected = model(**batch).logits
    if format != "biases":
        assert "cannot merge" in notes[0]
        adapted: Any = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
        assert torch.equal(adapted.eval()(**batch).logits, expected)
    again = copy.deepcopy(base)
    applied = apply_adapter(again, tmp_path)
    assert f"added {len(added)} biases that the base has not" in applied.notes[0]
    assert torch.equal(again(**batch).logits, expected)
    assert not torch.equal(base(**batch).logits, expected)


def test_the_sum_is_rounded_once() -> None:
    """In float32, where a sum in bfloat16 would differ."""
    linear = torch.nn.Linear(4, 64, bias=False, dtype=torch.bfloat16)
    plain = linear(torch.ones(3, 4, dtype=torch.bfloat16))
    vector = attach(linear)
    assert attach(linear) is vector
    with torch.no_grad():
        vector.copy_(noise(64))
    found = linear(torch.ones(3, 4, dtype=torch.bfloat16))
    assert torch.equal(found, (plain.float() + vector).bfloat16())
    assert not torch.equal(found, plain + vector.bfloat16())
    detach(linear)
    assert torch.equal(linear(torch.ones(3, 4, dtype=torch.bfloat16)), plain)
    assert not hasattr(linear, ADDED)


def test_a_holder_gives_each_row_its_own() -> None:
    """`[K, D]` vectors by row, in the place of the module's own."""

    class Rows:
        def rows(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
            return variants[which][:, None]

    linear = torch.nn.Linear(4, 6, bias=False)
    variants, which = torch.stack([noise(6), noise(6, 1)]), torch.tensor([1, 0, 1])
    rows = torch.randn(3, 5, 4)
    expected = linear(rows) + variants[which][:, None]
    attach(linear)
    [hook] = [hook for hook in linear._forward_hooks.values() if isinstance(hook, AddingHook)]
    hook.holder = Rows()
    torch.testing.assert_close(linear(rows), expected, rtol=0, atol=0)


def test_a_copy_of_the_model_has_vectors_of_its_own() -> None:
    model = BY_ID["llama"].build()
    add(model, "v")
    twin = copy.deepcopy(model)
    batch = tokens(model)
    before = model(**batch).logits
    with torch.no_grad():
        for name, value in twin.named_parameters():
            if name.endswith(ADDED):
                value.add_(1.0)
    assert torch.equal(model(**batch).logits, before)
    assert not torch.equal(twin(**batch).logits, before)


@pytest.mark.parametrize("id", ["llama", "phi3"])
def test_gradient_checkpointing_changes_nothing(id: str) -> None:
    grads = []
    for again in (False, True):
        model = BY_ID[id].build()
        tuner = Tuner(model, choose(model, "none", add_bias="q,v,m2"), "cpu")
        if again:
            checkpoint_activations(model)
        model.train()
        model(**tokens(model)).logits.square().sum().backward()
        grads.append([value.grad for value in tuner.values])
    for one, other in zip(*grads, strict=True):
        assert one is not None and torch.equal(one, other)


def test_a_module_of_two_layers_has_one_vector() -> None:
    model = BY_ID["llama"].build()
    first, second = model.model.layers
    second.self_attn.v_proj = first.self_attn.v_proj
    choice = choose(model, "none", add_bias="v")
    assert [part.parameter for part in choice.parts] == [f"model.layers.0.self_attn.v_proj.{ADDED}"]
    assert any("serves 2 layers, which have one vector" in note for note in choice.notes)
    twin = copy.deepcopy(model)
    twin.model.layers[0].self_attn.v_proj.bias = torch.nn.Parameter(torch.zeros(16))
    tuner = Tuner(model, choice, "cpu")
    for one in (model, twin):
        one(**tokens(one)).logits.square().sum().backward()
    expected = twin.model.layers[0].self_attn.v_proj.bias.grad
    torch.testing.assert_close(tuner.values[0].grad, expected, rtol=1e-4, atol=1e-4)


def test_with_biases_that_there_are() -> None:
    """Qwen2 has q, k and v, and gets m1; layers are chosen for both alike."""
    model = build("qwen2")
    choice = choose(model, "v", add_bias="o", layers="1")
    assert [part.parameter for part in choice.parts] == [
        "model.layers.1.self_attn.v_proj.bias", f"model.layers.1.self_attn.o_proj.{ADDED}",
    ]  # fmt: skip
    assert [site.role for site in choice.sites] == ["v", "m1"]
    with pytest.raises(BeftError, match=r"no layer 7 with a bias; this model has 0-1"):
        choose(model, "none", add_bias="o", layers="7")


def test_where_some_layers_lack_it() -> None:
    """A projection that is not there, and a bias that is."""
    hybrid = BY_ID["llama"].build()
    hybrid.model.layers[1].self_attn.v_proj = torch.nn.Identity()
    with pytest.raises(BeftError, match=r"add_bias='v': 1 of 2 layers have such a projection"):
        choose(hybrid, "none", add_bias="v")
    choice = choose(hybrid, "none", add_bias="v", allow_partial=True)
    assert choice.added == ("model.layers.0.self_attn.v_proj",)
    some = given(BY_ID["llama"].build(), ["model.layers.0.self_attn.v_proj"])
    choice = choose(some, "none", add_bias="v")
    assert choice.added == ("model.layers.1.self_attn.v_proj",)
    assert any("v: added where there is none; 1 are there" in note for note in choice.notes)


def test_an_added_key_is_inert_where_a_bias_would_be() -> None:
    """Rotary positions end inertness; plain attention has it."""
    rotary = choose(BY_ID["llama"].build(), "none", add_bias="k")
    assert {site.inert for site in rotary.sites} == {"no"} and not rotary.notes
    neo = bias_free.Free(
        "gpt-neo", "GPTNeoForCausalLM", "GPTNeoConfig",
        {"vocab_size": 50, "hidden_size": 24, "num_layers": 2, "num_heads": 3,
         "attention_types": [[["global"], 2]], "max_position_embeddings": 32},
    ).build(torch.float64)  # fmt: skip
    add(neo, "k,v")
    k, v = (neo.get_parameter(f"transformer.h.0.attn.attention.{r}_proj.{ADDED}") for r in "kv")
    grads = torch.autograd.grad(neo(**tokens(neo)).logits.square().sum(), [k, v])
    ratio = grads[0].norm() / grads[1].norm()
    assert ratio < 1e-5  # its softmax is float32: rounding
    bert = build("bert")
    del bert.bert.encoder.layer[0].attention.self.key.bias
    bert.bert.encoder.layer[0].attention.self.key.bias = None
    bert.bert.encoder.layer[1].attention.self.key.bias = None
    choice = choose(bert, "none", add_bias="k")
    assert {site.inert for site in choice.sites} == {"yes"}
    assert any("k is inert here" in note for note in choice.notes)


def test_mistakes() -> None:
    llama = BY_ID["llama"].build()
    with pytest.raises(BeftError, match=r"add_bias='q': this model has that bias .* by bias='q'"):
        choose(build("qwen2"), "none", add_bias="q")
    with pytest.raises(BeftError, match=r"add_bias='m2': this model has no such projection"):
        choose(BY_ID["mixtral"].build(), "none", add_bias="v,m2")
    with pytest.raises(BeftError, match=r"add_bias='m2': .*that bias .*fc_in"):
        choose(BY_ID["gptj"].build(), "none", add_bias="m2")
    with pytest.raises(BeftError, match=r"no projection of this Linear is known"):
        choose_added(torch.nn.Linear(3, 3), "v")
    for wrong in ("ln1", "w", "", "v,w"):
        with pytest.raises(UsageError, match="expected roles out of q, k, v, m1, m2, m3"):
            parse_added(wrong)
    assert parse_added("o, v,m1") == ("v", "m1")
    with adding(llama, "v"):
        assert sum(name.endswith(ADDED) for name, _ in llama.named_parameters()) == 2
        with pytest.raises(BeftError, match="that bias"), adding(llama, "v"):
            pass
    assert not any(name.endswith(ADDED) for name, _ in llama.named_parameters())
    assert not any(len(module._forward_hooks) for module in llama.modules())
