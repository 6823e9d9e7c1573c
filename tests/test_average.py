"""`beftkit average`: sums of adapters against numpy and PEFT, heads, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import beftkit
from beftkit.adapters import write_adapter
from beftkit.errors import BeftError, Refusal, UsageError
from beftkit.runs import average
from beftkit.weights import adapter_info, apply_adapter, collect_tuned
from tests.adapted import same, trained
from tests.command import Beftkit, misused, refused, tree
from tests.hub_server import Hub
from tests.tiny_models import build

peft = pytest.importorskip("peft")
VALUES = [f"bert.encoder.layer.{n}.attention.self.value" for n in range(2)]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters ``0``, ``1``, ``2`` of one base in PEFT's BEFT, the same in other formats too."""
    folder = tmp_path_factory.mktemp("three")
    build("bert").save_pretrained(folder / "base")
    for seed in range(3):
        at = {"seed": seed, "base": str(folder / "base")}
        trained("bert", folder / str(seed), metadata={"mine": str(seed)}, **at)
        for format in ("lora", "biases"):
            trained("bert", folder / f"{seed}-{format}", format=format, **at)
    return folder


def deltas(folder: Path) -> np.ndarray:
    """What a BEFT adapter's file holds: a row a layer."""
    held = load_file(folder / "adapter_model.safetensors")
    rows = [held[f"base_model.model.{name}.beft_bias"][0] for name in VALUES]
    return np.stack(rows).astype(np.float64)


def peft_merged(three: Path, adapter: Path) -> Any:
    base = type(build("bert")).from_pretrained(three / "base")
    return peft.PeftModel.from_pretrained(base, adapter).merge_and_unload()


@pytest.mark.parametrize(
    ("weights", "scale", "factors"),
    [(None, 1.0, [1 / 3] * 3), (None, 0.5, [1 / 6] * 3), ([2, 0, -1.5], 2.0, [4, 0, -3])],
)
def test_sums_against_numpy_and_peft(
    three: Path, tmp_path: Path, weights: Any, scale: float, factors: list[float]
) -> None:
    names = [three / str(n) for n in range(3)]
    found = average(*names, output=tmp_path / "out", weights=weights, scale=scale, head=names[1])
    held = np.stack([deltas(name) for name in names])
    want = np.tensordot(factors, held, 1).astype(np.float32)
    np.testing.assert_allclose(deltas(tmp_path / "out"), want, rtol=1e-6)
    assert found.norm == pytest.approx(np.linalg.norm(np.tensordot(factors, held, 1)), rel=1e-12)
    for part, one in zip(found.adapters, held, strict=True):
        assert part.norms == {"v": pytest.approx(np.linalg.norm(one), rel=1e-12)}
    merged, base = peft_merged(three, tmp_path / "out"), build("bert")
    for name, row in zip(VALUES, want, strict=True):
        got = merged.get_parameter(f"{name}.bias").detach().numpy()
        before = base.get_parameter(f"{name}.bias").detach().numpy()
        np.testing.assert_allclose(got, before + row, rtol=0, atol=1e-7)
    theirs = peft_merged(three, names[1]).classifier.weight
    assert torch.equal(merged.classifier.weight, theirs)
    assert (found.vectors, found.scalars, found.adapter_format) == (2, 48, "beft")


def test_formats_that_mean_the_same(three: Path, tmp_path: Path) -> None:
    average(three / "0", three / "1", output=tmp_path / "want", head=three / "1")
    for first, second in (("0-lora", "1"), ("0", "1-biases"), ("0-biases", "1-lora")):
        out = tmp_path / first
        found = average(three / first, three / second, output=out, head=three / second)
        assert found.adapter_format == adapter_info(three / first).format
        models = [build("bert"), build("bert")]
        for model, adapter in zip(models, (tmp_path / "want", out), strict=True):
            apply_adapter(model, adapter)
        for name, one in models[0].named_parameters():
            other = models[1].get_parameter(name)
            torch.testing.assert_close(other, one, rtol=0, atol=1e-7)
        if found.adapter_format == "lora":
            assert same(peft_merged(three, out), models[1])


def test_heads_are_never_added_up(three: Path, tmp_path: Path) -> None:
    bare = average(three / "0", three / "1", output=tmp_path / "bare")
    assert bare.head is None and any("heads differ" in note for note in bare.notes)
    info = adapter_info(tmp_path / "bare")
    assert (info.num_labels, info.task_type, "mine" in info.metadata) == (None, None, False)
    assert peft_merged(three, tmp_path / "bare") is not None
    mine = average(three / "0", three / "1", output=tmp_path / "mine", head=str(three / "1"))
    assert mine.head == str(three / "1")
    assert adapter_info(tmp_path / "mine").metadata["mine"] == "1"
    alike = average(three / "0", three / "0-lora", output=tmp_path / "alike")
    assert alike.head == str(three / "0")
    with pytest.raises(UsageError, match=r"head='2': expected one of"):
        average(three / "0", three / "1", output=tmp_path / "x", head="2")
    trained("bert", tmp_path / "none", task_type=None, base=str(three / "base"))
    with pytest.raises(BeftError, match="brings no head"):
        average(three / "0", tmp_path / "none", output=tmp_path / "x", head=tmp_path / "none")


def test_on_the_hub(three: Path, tmp_path: Path, hub: Hub) -> None:
    hub.add("o/zero", three / "0")
    hub.add("o/one", three / "1")
    found = average("o/zero", "o/one", output="out", head="o/one")
    held = [deltas(three / name) for name in "01"]
    np.testing.assert_allclose(deltas(tmp_path / "out"), sum(held) / 2, rtol=1e-6)
    assert found.head == "o/one" and adapter_info("out").base == str(three / "base")
    assert b"o/zero" in (tmp_path / "out" / "adapter_model.safetensors").read_bytes()


def test_a_base_that_has_changed_since(answering: Path, tmp_path: Path) -> None:
    """Its digest stands in the header of an adapter of ours."""
    shutil.copytree(answering / "base", tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    held = {name: one.copy() for name, one in load_file(path).items()}
    next(one for name, one in held.items() if name.endswith("value.bias"))[0] += 1
    save_file(held, path, {"format": "pt"})
    at = {"base": tmp_path / "base", "output": tmp_path / "out"}
    found = average(answering / "run", **at)
    assert any("not those of the base that was trained on" in note for note in found.notes)
    shutil.copytree(answering / "run" / "adapter", tmp_path / "moved")
    config = tmp_path / "moved" / "adapter_config.json"
    said = {**json.loads(config.read_text()), "base_model_name_or_path": str(tmp_path / "base")}
    config.write_text(json.dumps(said))
    with pytest.raises(BeftError, match=r"has changed since .* was trained on it"):
        average(tmp_path / "moved", output=tmp_path / "x")
    with pytest.raises(BeftError, match="is an adapter; expected a model"):
        average(answering / "run", base=tmp_path / "moved", output=tmp_path / "x")


def test_one_adapter_scaled_to_nothing_is_the_base(three: Path, tmp_path: Path) -> None:
    found = average(three / "0", output=tmp_path / "out", scale=0)
    assert found.norm == 0 and any("the base is as it was" in note for note in found.notes)
    merged = peft_merged(three, tmp_path / "out")
    base = build("bert")
    assert all(
        torch.equal(merged.get_parameter(f"{n}.bias"), base.get_parameter(f"{n}.bias"))
        for n in VALUES
    )


def test_a_run_of_ours_answers_as_before(answering: Path, tmp_path: Path) -> None:
    """Its labels, its task's columns and its tokenizer come along."""
    average(answering / "run", output=tmp_path / "same", scale=1.0)
    texts = ["good film", "bad plot", "the the"]
    before, after = (
        beftkit.load(one, device="cpu") for one in (answering / "run", tmp_path / "same")
    )
    assert [str(one) for one in before(texts)] == [str(one) for one in after(texts)]
    assert (tmp_path / "same" / "tokenizer.json").is_file()
    held = (tmp_path / "same" / "adapter_model.safetensors").read_bytes()
    assert b"beftkit.average" in held and str(tmp_path).encode() not in held


def test_layernorms(tmp_path: Path) -> None:
    """PEFT saves them whole, so the base says what their change is."""
    name = "bert.encoder.layer.1.output.LayerNorm.bias"
    base = build("bert")
    base.save_pretrained(tmp_path / "base")
    for number in range(2):
        model = copy.deepcopy(base)
        with torch.no_grad():
            model.get_parameter(name).add_(torch.linspace(number, 2, 24))
            if number:
                model.bert.encoder.layer[1].output.LayerNorm.weight.add_(0.0)
        what = collect_tuned(model, {name: base.get_parameter(name)})
        write_adapter(
            tmp_path / str(number), what, format="beft", base=str(tmp_path / "base"),
            task_type=None, metadata={},
        )  # fmt: skip
    names = tmp_path / "0", tmp_path / "1"
    found = average(*names, output=tmp_path / "out", weights=[1, 1])
    assert list(found.norms) == ["ln2"]
    applied = copy.deepcopy(base)
    apply_adapter(applied, tmp_path / "out")
    want = base.get_parameter(name) + torch.linspace(0, 2, 24) + torch.linspace(1, 2, 24)
    torch.testing.assert_close(applied.get_parameter(name), want, rtol=0, atol=1e-6)
    change_file(names[1], lambda held: held[next(n for n in held if n.endswith("weight"))].fill(2))
    with pytest.raises(BeftError, match=r"holds another .*LayerNorm.weight than"):
        average(*names, output=tmp_path / "x")


def change_file(folder: Path, change: Any, **config: Any) -> None:
    """Change an adapter's tensors, and its configuration."""
    path = folder / "adapter_model.safetensors"
    held = {name: one.copy() for name, one in load_file(path).items()}
    change(held)
    save_file(held, path)
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**said, **config}))


def test_what_does_not_add_up_is_named(three: Path, tmp_path: Path) -> None:
    def against(adapter: Path, match: str, **more: Any) -> None:
        before = tree(tmp_path)
        with pytest.raises(BeftError, match=match):
            average(three / "0", adapter, output=tmp_path / "x", **more)
        assert tree(tmp_path) == before

    trained("bert", tmp_path / "base", base="other/base")
    against(tmp_path / "base", r"was trained on other/base, .* on .*base.*: another model")
    average(three / "0", tmp_path / "base", output=tmp_path / "y", base=three / "base")
    digests = [{"beftkit.base": json.dumps({"digest": c * 64})} for c in "ab"]
    for name, said in zip("ab", digests, strict=True):
        trained("bert", tmp_path / name, base="o/b", metadata=said)
    with pytest.raises(BeftError, match="biases or shapes are others"):
        average(tmp_path / "a", tmp_path / "b", output=tmp_path / "x", base=three / "base")
    with pytest.raises(BeftError, match="expected the same biases in all"):
        what = collect_tuned(*other_role())
        write_adapter(tmp_path / "q", what, format="beft", base=str(three / "base"),
                      task_type=None, metadata={})  # fmt: skip
        average(three / "0", tmp_path / "q", output=tmp_path / "x")
    trained("bert", tmp_path / "wide", options={"hidden_size": 48}, base=str(three / "base"))
    against(tmp_path / "wide", "has 48 elements, in .* 24")
    config = peft.LoraConfig(r=2, target_modules=["value"], lora_bias=True)
    model = peft.get_peft_model(build("bert"), config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1) if parameter.requires_grad else None
    model.save_pretrained(tmp_path / "lora")
    against(tmp_path / "lora", r"a LoRA that changes .*value.weight", base=three / "base")
    trained("bert", tmp_path / "nan", base=str(three / "base"))
    change_file(tmp_path / "nan", lambda held: next(iter(held.values())).fill(np.inf))
    against(tmp_path / "nan", "holds NaN or infinity")
    against(three / "base", "not an adapter")


def other_role() -> tuple[Any, dict[str, Any]]:
    base = build("bert")
    name = "bert.encoder.layer.0.attention.self.query.bias"
    return base, {name: base.get_parameter(name) + 1}


def test_roles_are_named_where_they_differ(three: Path, tmp_path: Path) -> None:
    what = collect_tuned(*other_role())
    at = {"format": "beft", "base": str(three / "base"), "task_type": None, "metadata": {}}
    write_adapter(tmp_path / "q", what, **at)  # type: ignore[arg-type]
    with pytest.raises(BeftError, match=r"q changes q of layers 0, .* v of layers 0-1; expected"):
        average(three / "0", tmp_path / "q", output=tmp_path / "x")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"weights": [1]}, r"weights='1': expected 2 finite numbers"),
        ({"weights": [1, float("nan")]}, "expected 2 finite numbers"),
        ({"scale": float("inf")}, r"scale='inf': expected a finite number"),
    ],
)
def test_usage(three: Path, tmp_path: Path, given: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        average(three / "0", three / "1", output=tmp_path / "x", **given)
    with pytest.raises(UsageError, match="no adapter was given"):
        average(output=tmp_path / "x")


def test_nothing_of_others_is_replaced(three: Path, tmp_path: Path) -> None:
    one = three / "0"
    average(one, output=tmp_path / "out")
    with pytest.raises(BeftError, match="overwrite=True replaces it"):
        average(one, output=tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(BeftError):  # and what was there stays when it goes wrong
        average(one, three / "base", output=tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before
    average(one, output=tmp_path / "out", scale=2, overwrite=True)
    assert tree(tmp_path / "out") != before
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(Refusal, match=r"mine.txt: would go"):
        average(one, output=tmp_path / "out", overwrite=True)
    trained("bert", tmp_path / "elsewhere")
    with pytest.raises(Refusal, match=r"no manifest\.json that lists an adapter of ours"):
        average(one, output=tmp_path / "elsewhere", overwrite=True)
    places = {one: "is the adapter itself", one / "below": "lies in", three: "holds the adapter"}
    for place, message in places.items():
        with pytest.raises(Refusal, match=message):
            average(one, output=place, overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(Refusal, match="symbolic link"):
        average(one, output=tmp_path / "link", overwrite=True)
    with pytest.raises(BeftError, match="the folder above does not exist"):
        average(one, output=tmp_path / "none" / "out")
    assert not [*tmp_path.glob("*.tmp-*")]


def test_the_command(three: Path, tmp_path: Path, beftkit: Beftkit) -> None:
    out, names = tmp_path / "out", [str(three / "0"), str(three / "1")]
    ran = beftkit("average", *names, "--weights", "1,-1", "--scale", "0.5", "-o", out)
    assert ran.code == 0 and "the sum is multiplied by 0.5" in ran.out and "-1.0000" in ran.out
    more = ("--head", names[1], "--overwrite", "--format", "json")
    said = json.loads(beftkit("average", *names, "-o", out, *more).out)
    assert said["head"] == names[1] and said["adapters"][0]["weight"] == 0.5
    assert said["norms"]["v"] == said["norm"] > 0
    misused(beftkit("average", *names), "no --output was given")
    misused(beftkit("average", *names, "-o", out, "--weights", "1,b"), "expected numbers")
    refused(beftkit("average", *names, "-o", out), "--overwrite replaces it")
