"""What stock PEFT writes, put on and scored by us, against PEFT's own merge: every combination."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import beftkit
from beftkit.adapters import fewer_layers
from beftkit.errors import BeftError
from beftkit.weights import apply_adapter
from tests import tiny_models
from tests.adapted import same, trained
from tests.tiny_models import build

peft = pytest.importorskip("peft")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PREFIXES = (
    "base_model.model.",
    "base_model.model._orig_mod.",
    "base_model.model.module.",
    "module.base_model.model.",
    "_orig_mod.module.base_model.model.",
)
LORA = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "value"]}
KINDS: dict[str, dict[str, Any]] = {
    "beft": {},
    **{f"lora {bias}": {"bias": bias} for bias in ("none", "all", "lora_only")},
    "lora with biases of its own": {"lora_bias": True},
    "rslora with biases of its own": {"lora_bias": True, "use_rslora": True},
    "rslora all": {"bias": "all", "use_rslora": True},
}


def written(kind: str, head: bool, dtype: torch.dtype, folder: Path) -> tuple[Any, Any]:
    """The base, and PEFT's merge of what it trained; base, adapter and merge lie in the folder."""
    row = tiny_models.BY_ID["bert"]
    base = build(row, dtype)
    base.save_pretrained(folder / "base")
    task = {"task_type": "SEQ_CLS"} if head else {}
    if kind == "beft":
        config = peft.BeftConfig(target_modules=["value", "intermediate.dense"], **task)
    else:
        config = peft.LoraConfig(**LORA, **KINDS[kind], **task)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(copy.deepcopy(base), config)
    free = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(free, lr=0.3)
    for _ in range(2):
        adapted(**tiny_models.batch(row, base))[0].float().pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save_pretrained(folder / "adapter")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder / "adapter")
    merged = loaded.merge_and_unload()
    assert merged.dtype == dtype and not same(base, merged)
    merged.save_pretrained(folder / "merged")
    return base, merged


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", [False, True], ids=["bare", "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_put_on_and_scored_as_peft_merges(
    tmp_path: Path, kind: str, head: bool, dtype: str
) -> None:
    base, merged = written(kind, head, DTYPES[dtype], tmp_path)
    want = beftkit.score(tmp_path / "base", tmp_path / "merged")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    assert ("base_model.model.classifier.original_module.bias" in tensors) == (
        head and KINDS[kind].get("bias") == "all"
    )
    for prefix in PREFIXES:
        save_file({name.replace(PREFIXES[0], prefix): one for name, one in tensors.items()}, file)
        model = copy.deepcopy(base)
        applied = apply_adapter(model, tmp_path / "adapter")
        assert same(model, merged), prefix
        assert applied.notes == ()
        if kind == "lora none" and not head:
            with pytest.raises(BeftError, match="changes no bias"):
                beftkit.score(tmp_path / "base", tmp_path / "adapter")
            continue
        found = beftkit.score(tmp_path / "base", tmp_path / "adapter")
        assert [site.name for site in found.sites] == [site.name for site in want.sites]
        for ours, theirs in zip(found.sites, want.sites, strict=True):
            assert ours.figures == theirs.figures, (prefix, ours.name)
        assert found.target == want.target and found.changed == want.changed
        rounds = [note for note in found.notes if "as PEFT's merge rounds it" in note]
        assert len(rounds) == (found.changed and dtype != "fp32")


def test_a_compiled_model_s_adapter(tmp_path: Path) -> None:
    """The prefix as PEFT itself writes it."""
    base = build("bert")
    adapted = peft.get_peft_model(
        torch.compile(copy.deepcopy(base)),
        peft.LoraConfig(**LORA, bias="all", task_type="SEQ_CLS"),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 if name.endswith("bias") else 0.01)
    adapted.save_pretrained(tmp_path / "adapter")
    assert any(
        "_orig_mod" in name
        for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    )
    merged = adapted.merge_and_unload()._orig_mod
    model = copy.deepcopy(base)
    apply_adapter(model, tmp_path / "adapter")
    assert same(model, merged)
    base.save_pretrained(tmp_path / "base")
    merged.save_pretrained(tmp_path / "merged")
    found = beftkit.score(tmp_path / "base", tmp_path / "adapter")
    assert found.roles == beftkit.score(tmp_path / "base", tmp_path / "merged").roles


# --- layers that do not fit ---


@pytest.mark.parametrize("case", ["bert", "opt"])
def test_an_adapter_of_a_smaller_model_is_noted(tmp_path: Path, case: str) -> None:
    more = {"task_type": None}
    trained(case, tmp_path / "small", **more)
    base = build(case, num_hidden_layers=5)
    base.save_pretrained(tmp_path / "base")
    match = r"the adapter changes 2 of the base's 5 layers \(.*: 0, 1\); was it trained on a small"
    notes = apply_adapter(base, tmp_path / "small").notes
    assert len(notes) == 1 and re.search(match, notes[0])
    found = beftkit.score(tmp_path / "base", tmp_path / "small").notes
    assert [note for note in found if re.search(match, note)]
    build(case).save_pretrained(tmp_path / "right")
    assert not any(
        "layers" in n for n in beftkit.score(tmp_path / "right", tmp_path / "small").notes
    )


@pytest.mark.parametrize("format", ["beft", "lora", "biases"])
def test_an_adapter_of_a_larger_model_is_refused(tmp_path: Path, format: str) -> None:
    """By both: it was scored as if its last layers were not there."""
    trained("bert", tmp_path / "large", format=format, options={"num_hidden_layers": 4})
    base = build("bert")
    base.save_pretrained(tmp_path / "base")
    base.bert.save_pretrained(tmp_path / "bare")
    match = r"layer\.[23].*changes bert\.encoder\.layer\.[23].*has not; a base model that does not"
    for call in (
        lambda: apply_adapter(base, tmp_path / "large"),
        lambda: beftkit.score(tmp_path / "base", tmp_path / "large"),
        lambda: beftkit.score(tmp_path / "bare", tmp_path / "large"),
    ):
        with pytest.raises(BeftError, match=match):
            call()


def test_layers_are_compared_stack_by_stack() -> None:
    there = [f"bert.encoder.layer.{i}.output" for i in range(3)] + ["decoder.layers.0.fc1"]
    assert fewer_layers(["encoder.layer.0.output", "decoder.layers.0.fc1"], there)
    assert not fewer_layers([f"encoder.layer.{i}" for i in range(3)], there)
    assert not fewer_layers(["classifier.0", "pooler"], there)


def test_biases_that_belong_nowhere_are_noted(tmp_path: Path) -> None:
    """A whole tensor under a name that the base has not: scored, it changed nothing."""
    trained("bert", tmp_path / "adapter")
    build("bert").save_pretrained(tmp_path / "base")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    name = "base_model.model.bert.encoder.layer.0.output.gate.bias"
    save_file({**load_file(file), name: torch.ones(4)}, file)
    notes = beftkit.score(tmp_path / "base", tmp_path / "adapter").notes
    assert any("1 biases of the adapter are none of the base's" in note for note in notes)


def test_a_sum_beyond_float16_is_no_figure(tmp_path: Path) -> None:
    trained("bert", tmp_path / "adapter", torch.float16)
    build("bert", torch.float16).save_pretrained(tmp_path / "base")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("beft_bias"))
    save_file({**tensors, name: torch.full_like(tensors[name], 1e6)}, file)
    with pytest.raises(BeftError, match="beft_bias holds NaN or infinity"):
        beftkit.score(tmp_path / "base", tmp_path / "adapter")


# --- where the base lies ---


def renamed(adapter: Path, base: str) -> None:
    file = adapter / "adapter_config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "base_model_name_or_path": base}))


@pytest.mark.parametrize("form", ["absolute", "dots"])
def test_a_base_outside_is_said_and_read_only_if_it_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from beftkit.runs.evaluating import evaluate

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trained("bert", tmp_path / "adapter")
    build("bert").save_pretrained(tmp_path / "base")

    def named(name: str) -> str:
        return str(tmp_path / name) if form == "absolute" else f"x/../../{name}"

    (tmp_path / "here" / "x").mkdir()
    renamed(tmp_path / "adapter", named("base"))
    found = beftkit.score(None, tmp_path / "adapter")
    want = f"the adapter names its base by a path: {named('base')}"
    assert want in found.notes
    given = beftkit.score(tmp_path / "base", tmp_path / "adapter")
    assert given.roles == found.roles and want not in given.notes
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "weights").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "weights" / "model.safetensors")
    for other in ("secret", "weights", "nowhere"):
        renamed(tmp_path / "adapter", named(other))
        for call in (
            lambda: beftkit.score(None, tmp_path / "adapter"),
            lambda: evaluate(adapter=str(tmp_path / "adapter"), task="rte"),
        ):
            with pytest.raises(BeftError, match=r"where no model's folder is .*give the base"):
                call()


def test_a_base_beside_is_read_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained("bert", tmp_path / "adapter", base="base")
    build("bert").save_pretrained(tmp_path / "base")
    assert not any("names its base" in note for note in beftkit.score(None, "adapter").notes)
