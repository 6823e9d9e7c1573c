"""`beftkit extract`: a fine-tuning's biases as an adapter, put back on and compared to the bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.adapters import storable
from beftkit.errors import BeftError, Refusal, UsageError
from beftkit.weights import adapter_info, apply_adapter
from tests import builders
from tests.adapted import same
from tests.command import Beftkit, misused, refused, tree
from tests.hub_fixtures import needed
from tests.hub_server import Hub
from tests.tiny_models import build

peft = pytest.importorskip("peft")
Moves = Callable[[str], bool]


def moved(model: Any, moves: Moves, seed: int = 1) -> Any:
    """A copy with noise on some of its parameters."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) / 10
            if moves(name):
                parameter.add_(noise.to(parameter.dtype))
    return other


def pair(folder: Path, case: str, moves: Moves, **more: Any) -> tuple[Any, Any]:
    """A tiny base and its fine-tuning, live, and saved as ``pre`` and, in shards, ``post``."""
    base = build(case, more.pop("dtype", torch.float32), **more)
    post = moved(base, moves)
    base.save_pretrained(folder / "pre")
    post.save_pretrained(folder / "post", max_shard_size="20KB")
    return base, post


def values(name: str) -> bool:
    return any(word in name for word in ("value.bias", "v_proj.bias", "classifier"))


def on_base(base: Any, adapter: Path) -> Any:
    """The base with our adapter put on, in memory."""
    model = copy.deepcopy(base)
    apply_adapter(model, adapter)
    return model


@pytest.mark.parametrize("case", ["bert", "qwen2", "opt"])
def test_put_back_on_it_is_the_fine_tuning(tmp_path: Path, case: str) -> None:
    """Nothing but b_v and the head changed, so base and adapter are POST to the bit; PEFT too."""
    base, post = pair(tmp_path, case, values)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", "v", output=tmp_path / "a")
    assert found.adapter_format == "beft" and found.unreached == 0 == found.rounded
    assert same(on_base(base, tmp_path / "a"), post)
    named = tmp_path / "pre"
    assert adapter_info(tmp_path / "a").base == str(named)
    theirs = peft.PeftModel.from_pretrained(type(base).from_pretrained(named), tmp_path / "a")
    assert same(theirs.merge_and_unload(), post)
    assert any("were not looked at" in note for note in found.notes)
    deep = beftkit.extract(named, tmp_path / "post", deep=True, output=tmp_path / "deep")
    assert (deep.beside.changed, deep.beside.unread, dict(deep.beside.biases)) == (0, 0, {})
    assert any("none of the" in note for note in deep.notes)


@pytest.mark.parametrize(("case", "word"), [("gpt2", "c_attn"), ("gpt-neox", "query_key_value")])
def test_a_slice_of_a_fused_projection(tmp_path: Path, case: str, word: str) -> None:
    base, post = pair(tmp_path, case, lambda name: f"{word}.bias" in name)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", "v", output=tmp_path / "a")
    assert dict(found.beside.biases) == {"q": 2, "k": 2}
    got = on_base(base, tmp_path / "a")
    for name, one in base.named_parameters():
        want, mine = post.get_parameter(name), got.get_parameter(name)
        if f"{word}.bias" not in name:
            assert torch.equal(mine, one)
            continue
        heads = (1, 3, 24) if case == "gpt2" else (3, 3, 8)
        parts = [one.view(heads), mine.view(heads), want.view(heads)]
        assert torch.equal(parts[0][:, :2], parts[1][:, :2])
        assert torch.equal(parts[1][:, 2], parts[2][:, 2])
    both = beftkit.extract(tmp_path / "pre", tmp_path / "post", "q,k,v", output=tmp_path / "b")
    assert same(on_base(base, tmp_path / "b"), post) and both.vectors == 6


def test_every_bias_and_the_layernorms(tmp_path: Path) -> None:
    base, post = pair(tmp_path, "bert", lambda name: "bias" in name or "classifier" in name)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", "all", output=tmp_path / "a")
    assert same(on_base(base, tmp_path / "a"), post)  # the pooler's bias came with the head
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a")
    assert same(theirs.merge_and_unload(), post)
    assert found.vectors == 17 and set(found.norms) == {*"qkv", "m1", "m2", "m3", "ln1", "ln2"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    base, post = pair(tmp_path, "opt", values, dtype=dtype)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", output=tmp_path / "a")
    assert found.unreached == 0 == found.rounded and same(on_base(base, tmp_path / "a"), post)
    build("opt").save_pretrained(tmp_path / "fine")
    lost = beftkit.extract(tmp_path / "pre", tmp_path / "fine", output=tmp_path / "b")
    name = "BF16" if dtype is torch.bfloat16 else "F16"
    assert lost.rounded > 0 and f"PRE is in {name}, POST in F32" in lost.notes
    got = on_base(base, tmp_path / "b")
    for name, one in build("opt").named_parameters():
        if "v_proj.bias" in name:
            assert torch.equal(got.get_parameter(name), one.to(dtype))


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias:UserWarning")
def test_biases_that_the_base_has_not(tmp_path: Path) -> None:
    """The switch ``attention_bias`` was turned on for POST: an added bias, as PEFT's BEFT."""
    base = build("llama", attention_bias=False)
    base.save_pretrained(tmp_path / "pre")
    post = build("llama")
    held = {**base.state_dict(), **{n: p for n, p in post.state_dict().items() if "bias" in n}}
    post.load_state_dict(held)
    post.save_pretrained(tmp_path / "post")
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", output=tmp_path / "a")
    assert (found.added, found.vectors, found.adapter_format) == (2, 2, "beft")
    got = load_file(tmp_path / "a" / "adapter_model.safetensors")
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.v_proj"
        added = got.pop(f"base_model.model.{name}.beft_bias")
        assert torch.equal(added[0], post.get_parameter(f"{name}.bias"))
    assert not got
    all_of_it = beftkit.extract(tmp_path / "pre", tmp_path / "post", "all", output=tmp_path / "b")
    assert all_of_it.added == 8
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "b").eval()
    ids = torch.arange(2, 9)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            adapted(input_ids=ids).logits, post.eval()(input_ids=ids).logits, rtol=0, atol=1e-5
        )


def test_files_that_lack_the_task_model_s_prefix(tmp_path: Path) -> None:
    """OPT's files on the hub begin with ``decoder.``: PEFT needs ``model.decoder.``."""
    base, post = pair(tmp_path, "opt", values)
    for side in ("pre", "post"):
        folder = tmp_path / side
        held = {}
        for path in folder.glob("*.safetensors"):
            held |= load_file(path)
            path.unlink()
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        held = {name.removeprefix("model."): tensor for name, tensor in held.items()}
        save_file(held, folder / "model.safetensors", {"format": "pt"})
    beftkit.extract(tmp_path / "pre", tmp_path / "post", output=tmp_path / "a")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "a")
    assert same(theirs.merge_and_unload(), post)


def test_what_else_changed_is_said_in_numbers(tmp_path: Path) -> None:
    base, post = pair(tmp_path, "bert", lambda name: values(name) or "intermediate.dense" in name)
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", deep=True, output=tmp_path / "a")
    beside = found.beside
    assert dict(beside.biases) == {"m2": 2}
    assert (beside.changed, beside.scalars) == (2, 2 * 24 * 40)
    rest = [
        name for name, one in base.named_parameters()
        if not name.endswith("bias") and "classifier" not in name
    ]  # fmt: skip
    assert beside.compared == len(rest)
    before = torch.cat([base.get_parameter(n).double().ravel() for n in rest])
    after = torch.cat([post.get_parameter(n).double().ravel() for n in rest])
    assert beside.relative == pytest.approx(((after - before).norm() / before.norm()).item())
    assert [name.split(".")[4] for name, _ in beside.largest] == ["intermediate"] * 2
    assert any("not the whole fine-tuning" in note for note in found.notes)


def test_a_file_without_a_configuration(tmp_path: Path) -> None:
    """Its head is one where a configuration says so."""
    base, post = pair(tmp_path, "bert", values)
    save_file(post.state_dict(), tmp_path / "post.safetensors", {"format": "pt"})
    bare = beftkit.extract(tmp_path / "pre", tmp_path / "post.safetensors", output=tmp_path / "a")
    assert bare.head == () and any("--model-config PATH says it" in note for note in bare.notes)
    told = beftkit.extract(
        tmp_path / "pre", tmp_path / "post.safetensors", output=tmp_path / "b",
        model_config=tmp_path / "post" / "config.json",
    )  # fmt: skip
    assert told.head == ("classifier",) and same(on_base(base, tmp_path / "b"), post)
    base.bert.save_pretrained(tmp_path / "inner")
    new = beftkit.extract(tmp_path / "inner", tmp_path / "post.safetensors", output=tmp_path / "c")
    assert new.beside.only_post == ("classifier.bias", "classifier.weight")


def test_pieces_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors larger than a block, of two dtypes, are met piece by piece."""
    from beftkit.weights import beside

    pair(tmp_path, "bert", lambda name: "word_embeddings" in name)
    build("bert", torch.bfloat16).save_pretrained(tmp_path / "half")
    at = {"deep": True, "overwrite": True, "output": tmp_path / "a"}
    whole = [beftkit.extract(tmp_path / "pre", tmp_path / p, **at) for p in ("post", "half")]
    monkeypatch.setattr(beside, "_BLOCK", 100)
    small = [beftkit.extract(tmp_path / "pre", tmp_path / p, **at) for p in ("post", "half")]
    for one, other in zip(whole, small, strict=True):
        assert one.beside.scalars == other.beside.scalars > 1000
        assert one.beside.relative == pytest.approx(other.beside.relative, rel=1e-12)


def test_a_classifier_answers_as_post_does(answering: Path, tmp_path: Path) -> None:
    """A run of ours, exported and extracted again: labels, head and answers are the same."""
    beftkit.export(answering / "run", tmp_path / "post")
    pre = answering / "base"
    found = beftkit.extract(pre, tmp_path / "post", output=tmp_path / "a", deep=True)
    assert found.head == ("classifier",) and found.beside.changed == 0
    texts = ["good film", "bad plot", "the the"]
    answers = [
        beftkit.load(one, device="cpu")(texts) for one in (tmp_path / "post", tmp_path / "a")
    ]
    assert [str(one) for one in answers[0]] == [str(one) for one in answers[1]]
    held = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    assert b"beftkit.labels" in held and str(tmp_path).encode() not in held


def test_on_the_hub_biases_alone_are_fetched(hub: Hub, tmp_path: Path) -> None:
    found = beftkit.extract("o/pre", "o/post", output="a")
    info = adapter_info("a")
    assert info.base == "o/pre" and len(info.revision or "") == 40
    pre, post = (
        {n: v.astype(np.float32) for n, v in builders.model("bert", s).items()} for s in (1, 2)
    )
    got = load_file(tmp_path / "a" / "adapter_model.safetensors")
    name = "bert.encoder.layer.0.attention.self.value"
    change = got[f"base_model.model.{name}.beft_bias"].numpy()[0]
    name = f"{name}.bias"
    assert np.array_equal(pre[name] + change, storable(pre[name], post[name]))
    # Where a change is as large as the value not every sum is a float32's; the values are.
    assert found.unreached > 0 and any("miss POST's value" in note for note in found.notes)
    whole = beftkit.extract("o/pre", "o/post", adapter_format="biases", output="b")
    assert whole.unreached == 0
    assert np.array_equal(load_file("b/biases.safetensors")[name].numpy(), post[name])
    bound = sum(needed(tmp_path / "repos" / side) for side in ("pre", "post"))
    assert hub.served(".safetensors") < 3 * bound
    assert found.vectors == 2


def test_free_parameters_and_formats(tmp_path: Path) -> None:
    base, post = pair(tmp_path, "deberta", lambda name: name.endswith(("q_bias", "v_bias")))
    found = beftkit.extract(tmp_path / "pre", tmp_path / "post", "q,v", output=tmp_path / "a")
    assert found.adapter_format == "biases" and same(on_base(base, tmp_path / "a"), post)
    at = {"output": tmp_path / "b"}
    with pytest.raises(BeftError, match=r"adapter_format='biases' can"):
        beftkit.extract(tmp_path / "pre", tmp_path / "post", "v", adapter_format="beft", **at)
    with pytest.raises(UsageError, match="adapter_format='pdf'"):
        beftkit.extract(tmp_path / "pre", tmp_path / "post", "v", adapter_format="pdf", **at)


def test_what_cannot_be_extracted(tmp_path: Path) -> None:
    pair(tmp_path, "qwen2", values)
    pre, post, out = tmp_path / "pre", tmp_path / "post", tmp_path / "out"
    before = tree(tmp_path)

    def against(match: str, kind: type[BeftError] = BeftError, *given: Any, **more: Any) -> None:
        with pytest.raises(kind, match=match):
            beftkit.extract(*(given or (pre, post)), **{"output": out, **more})
        assert tree(tmp_path) == before

    against("bias='m2': .* has no such bias; ", bias="m2")
    against(
        "expected roles out of q, k, v, .* \\(several with commas\\), or all",
        UsageError,
        bias="full",
    )
    against("did you mean v", UsageError, bias="value")
    against("is the fine-tuned model itself", Refusal, output=post)
    against("no such file or folder", BeftError, pre, tmp_path / "none")
    build("llama", attention_bias=False).save_pretrained(tmp_path / "free")
    build("qwen2", hidden_size=48).save_pretrained(tmp_path / "wide")
    less = build("qwen2")
    less.model.layers[1].self_attn.v_proj.bias = None
    less.save_pretrained(tmp_path / "less")
    beftkit.extract(pre, post, output=tmp_path / "adapter")
    before = tree(tmp_path)
    against("lacks .*v_proj.bias, which .* has", BeftError, pre, tmp_path / "less")
    against("bias-free", BeftError, pre, tmp_path / "free")
    against("not the same architecture", BeftError, pre, tmp_path / "wide")
    against("is an adapter already; expected a model as POST", BeftError, pre, tmp_path / "adapter")
    against("is an adapter already; expected a model as PRE", BeftError, tmp_path / "adapter", post)
    against("bias-free", BeftError, tmp_path / "free", tmp_path / "free")
    nan = build("qwen2")
    with torch.no_grad():
        nan.model.layers[0].self_attn.v_proj.bias[0] = torch.nan
    nan.save_pretrained(tmp_path / "nan")
    before = tree(tmp_path)
    against("v_proj.bias holds NaN or infinity", BeftError, pre, tmp_path / "nan")


def test_the_command(tmp_path: Path, beftkit: Beftkit) -> None:
    pair(tmp_path, "bert", values)
    both = tmp_path / "pre", tmp_path / "post"
    ran = beftkit("extract", *both, "-o", tmp_path / "a")
    assert ran.code == 0 and "2 biases, 48 scalars, with classifier, format beft" in ran.out
    more = ("--overwrite", "--deep", "--format", "json")
    said = json.loads(beftkit("extract", *both, "--bias", "q,v", "-o", tmp_path / "a", *more).out)
    assert said["vectors"] == 4 and said["norms"]["q"] == 0 and said["beside"]["changed"] == 0
    refused(beftkit("extract", *both, "-o", tmp_path / "a"), "--overwrite replaces it")
    misused(beftkit("extract", *both), "no --output was given")
