"""`beftkit.BiasBank`: each row as with its adapter alone, and nothing wrong in silence."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import beftkit
from beftkit.adapters import write_adapter
from beftkit.biases import ADDED
from beftkit.errors import BeftError, UsageError
from beftkit.tuning import attach
from beftkit.weights import BiasBank, apply_adapter, collect_tuned
from tests.adapted import trained
from tests.tiny_models import build

peft = pytest.importorskip("peft")


def tokens(rows: int, length: int = 7) -> torch.Tensor:
    return torch.randint(2, 50, (rows, length), generator=torch.Generator().manual_seed(5))


def alone(base: Any, adapter: Path | None, **inputs: Any) -> torch.Tensor:
    """The logits of a whole batch with one adapter put on."""
    model = copy.deepcopy(base)
    if adapter is not None:
        apply_adapter(model, adapter)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**inputs).logits
    return found


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal to one millionth of the largest."""
    assert got.shape == want.shape
    limit = 1e-6 * max(1.0, float(want.abs().max()))
    torch.testing.assert_close(got, want, rtol=0, atol=limit)


CASES = {
    "bert": ("beft", "lora", "biases"),
    "roberta": ("beft", "biases"),
    "gpt2": ("lora", "biases"),
    "opt": ("beft", "lora"),
    "qwen2": ("beft", "biases"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_row_is_as_with_its_adapter_alone(tmp_path: Path, case: str) -> None:
    names: list[str | None] = []
    task = "SEQ_CLS" if case in ("bert", "roberta") else "CAUSAL_LM"
    for seed, format in enumerate(CASES[case]):
        base, _ = trained(case, tmp_path / format, format=format, seed=seed, task_type=task)
        names += [format, None] if seed else [format]
    base.eval()
    ids = tokens(len(names))
    bank = BiasBank(base, {name: tmp_path / name for name in CASES[case]})
    with torch.no_grad():
        found = bank(names=names, input_ids=ids)
        again = bank(names=names[::-1], input_ids=ids)
    for row, name in enumerate(names):
        whole = alone(build(case), tmp_path / name if name else None, input_ids=ids)
        close(found[row], whole[row])
        other = names[::-1][row]
        whole = alone(build(case), tmp_path / other if other else None, input_ids=ids)
        close(again[row], whole[row])
    bank.close()
    with torch.no_grad():
        assert torch.equal(base(input_ids=ids).logits, alone(build(case), None, input_ids=ids))


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias:UserWarning")
def test_added_biases_are_those_of_peft_unmerged(tmp_path: Path) -> None:
    base = build("llama", attention_bias=False)
    want, ids = [], tokens(3)
    for number in range(2):
        names = [f"model.layers.{n}.self_attn.{p}_proj.bias" for n in range(2) for p in "ov"]
        model = copy.deepcopy(base)
        for name in names:
            module = model.get_submodule(name.removesuffix(".bias"))
            module.bias = torch.nn.Parameter(torch.randn(module.out_features) / 5)
        before = {name: torch.zeros_like(model.get_parameter(name)) for name in names}
        what = collect_tuned(model, before, added=before)
        write_adapter(
            tmp_path / str(number), what, format="beft", base="b", task_type=None, metadata={}
        )
        theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / str(number))
        with torch.no_grad():
            want.append(theirs.eval()(input_ids=ids).logits)
    bank = BiasBank(base.eval(), {"0": tmp_path / "0", "1": tmp_path / "1"})
    with torch.no_grad():
        got = bank(names=["1", "0", "1"], input_ids=ids)
        mixed = theirs(input_ids=ids, adapter_names=["default", "__base__", "default"]).logits
    for row, which in enumerate((1, 0, 1)):
        close(got[row], want[which][row])
    # PEFT's BEFT takes the names and gives every row the adapter.
    assert torch.equal(mixed, want[1])


def test_heads_of_different_numbers_of_labels(tmp_path: Path) -> None:
    counts = {"two": 2, "three": 3, "one": 1}
    for seed, (name, count) in enumerate(counts.items()):
        trained("bert", tmp_path / name, seed=seed, options={"num_labels": count})
    base = build("bert").eval()
    bank = BiasBank(base, {name: tmp_path / name for name in counts})
    names, ids = ["three", "one", None, "two", "three"], tokens(5)
    with torch.no_grad():
        got = bank(names=names, input_ids=ids)
        with bank.rows(names) as model:
            padded = model(input_ids=ids).logits
        single = bank(names=["one"] * 5, input_ids=ids)
    assert [len(row) for row in got] == [3, 1, 2, 2, 3] and [len(row) for row in single] == [1] * 5
    for row, name in enumerate(names):
        other = build("bert", num_labels=counts[name]) if name else build("bert")
        own = {n: p for n, p in other.state_dict().items() if n.startswith("classifier")}
        other.load_state_dict({**base.state_dict(), **own})
        want = alone(other, tmp_path / name if name else None, input_ids=ids)[row]
        close(got[row], want)
        assert torch.equal(padded[row, : len(want)], got[row])
        assert bool((padded[row, len(want) :] == -torch.inf).all())


def test_layernorms_and_a_whole_pooler(tmp_path: Path) -> None:
    base = build("bert").eval()
    names = ["bert.encoder.layer.1.output.LayerNorm.bias", "bert.embeddings.LayerNorm.bias"]
    model = copy.deepcopy(base)
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(torch.randn(24))
        model.bert.pooler.dense.weight.add_(0.3)
    before = {name: base.get_parameter(name) for name in names}
    for format in ("beft", "biases"):
        what = collect_tuned(model, before, task_type="SEQ_CLS", heads=["bert.pooler.dense"])
        write_adapter(
            tmp_path / format, what, format=format, base="b", task_type="SEQ_CLS", metadata={}
        )
    bank = BiasBank(base, {name: tmp_path / name for name in ("beft", "biases")})
    ids = tokens(3)
    with torch.no_grad():
        got = bank(names=["beft", None, "biases"], input_ids=ids)
        want, bare = model(input_ids=ids).logits, build("bert").eval()(input_ids=ids).logits
    for row, one in enumerate((want, bare, want)):
        close(got[row], one[row])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_formed_in_float32_and_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    """As PEFT forms them, whose unmerged adapter is the judge: equal to the bit."""
    for seed in range(2):
        trained("opt", tmp_path / str(seed), seed=seed, task_type="CAUSAL_LM")
    base, ids = build("opt", dtype).eval(), tokens(4)
    bank = BiasBank(copy.deepcopy(base), {"0": tmp_path / "0", "1": tmp_path / "1"})
    names = ["0", "1", "1", "0"]
    with torch.no_grad():
        got = bank(names=names, input_ids=ids)
        for row, name in enumerate(names):
            theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / name).eval()
            assert torch.equal(got[row], theirs(input_ids=ids).logits[row])


def test_adapters_come_and_go(tmp_path: Path) -> None:
    for seed in range(3):
        trained("bert", tmp_path / str(seed), seed=seed)
    base, ids = build("bert").eval(), tokens(2)
    want = [alone(build("bert"), tmp_path / str(n), input_ids=ids) for n in range(3)]
    bank = BiasBank(base)
    for number in range(3):
        bank.add(str(number), tmp_path / str(number))
    bank.remove("1")
    assert bank.names == ("0", "2")
    with torch.no_grad():
        got = bank(names=["2", "0"], input_ids=ids)
        close(got[0], want[2][0])
        close(got[1], want[0][1])
        bank.add("1", tmp_path / "1")
        close(bank(names=["1", "1"], input_ids=ids)[1], want[1][1])
    for name in ("0", "1", "2"):
        bank.remove(name)
    assert not any(module._forward_hooks for module in base.modules())


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[BiasBank]:
    """Two adapters, ``sst2`` and ``rte``."""
    for seed, name in enumerate(("sst2", "rte")):
        trained("bert", tmp_path / name, seed=seed)
    made = BiasBank(build("bert").eval(), {n: tmp_path / n for n in ("sst2", "rte")})
    yield made
    made.close()


def test_names_that_are_none(bank: BiasBank, tmp_path: Path) -> None:
    ids = tokens(2)
    with pytest.raises(UsageError, match=r"'sst': not in the bank, .*; did you mean sst2\?"):
        bank(names=["sst", "rte"], input_ids=ids)
    with pytest.raises(UsageError, match="3 names for 2 rows"):
        bank(names=["rte"] * 3, input_ids=ids)
    for names in ("rte", []):
        with pytest.raises(UsageError, match="expected one name for each row"):
            bank(names=names, input_ids=ids)
    with pytest.raises(UsageError, match="no common loss"):
        bank(names=["rte"] * 2, input_ids=ids, labels=torch.zeros(2))
    with pytest.raises(UsageError, match="is in the bank already"):
        bank.add("rte", tmp_path / "rte")
    with pytest.raises(UsageError, match="expected a name"):
        bank.add("", tmp_path / "rte")
    with pytest.raises(UsageError, match="not in the bank"):
        bank.remove("mrpc")
    with pytest.raises(BeftError, match="no such file or folder"):
        bank.add("mrpc", tmp_path / "mrpc")
    assert bank.names == ("sst2", "rte")
    assert repr(bank) == "BiasBank(BertForSequenceClassification: 'sst2', 'rte')"
    with pytest.raises(UsageError, match="'bert': expected a model in memory"):
        BiasBank("bert", {})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="list: expected a name for each adapter"):
        BiasBank(bank.model, ["sst2"])  # type: ignore[arg-type]


def test_adapters_that_do_not_fit(bank: BiasBank, tmp_path: Path) -> None:
    def against(name: str, match: str) -> None:
        with pytest.raises(BeftError, match=match):
            bank.add(name, tmp_path / name)
        assert bank.names == ("sst2", "rte")

    trained("bert", tmp_path / "wide", options={"hidden_size": 48})
    against("wide", r"has 48 elements, that of .* 24; a base model that does not match")
    trained("opt", tmp_path / "opt", task_type=None)
    against("opt", "which this BertForSequenceClassification has not")
    config = peft.LoraConfig(r=2, target_modules=["value"], init_lora_weights=False)
    peft.get_peft_model(build("bert"), config).save_pretrained(tmp_path / "lora")
    against("lora", "a LoRA that changes .*; PEFT's adapter_names mixes LoRAs")
    deberta = build("deberta")
    name = "deberta.encoder.layer.0.attention.self.v_bias"
    what = collect_tuned(deberta, {name: deberta.get_parameter(name) + 1})
    write_adapter(tmp_path / "free", what, format="biases", base="b", task_type=None, metadata={})
    with pytest.raises(BeftError, match=r"v_bias of a .*, which does not simply add it"):
        BiasBank(deberta, {"free": tmp_path / "free"})


def test_generation(tmp_path: Path) -> None:
    """Rows of a greedy generation keep their adapters; beams repeat rows and are refused."""
    for seed in range(2):
        trained("opt", tmp_path / str(seed), seed=seed, task_type="CAUSAL_LM")
    base, ids = build("opt").eval(), tokens(2)
    bank = BiasBank(base, {"0": tmp_path / "0", "1": tmp_path / "1"})
    more: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 1}
    more["attention_mask"] = torch.ones_like(ids)
    with bank.rows(["1", "0"]) as model:
        got = model.generate(ids, **more)
    for row, name in enumerate(("1", "0")):
        one = build("opt").eval()
        apply_adapter(one, tmp_path / name)
        assert torch.equal(got[row], one.generate(ids, **more)[row])
    with pytest.raises(BeftError, match="beams"), bank.rows(["1", "0"]) as model:
        model.generate(ids, num_beams=3, **more)
    assert torch.equal(base.generate(ids, **more), build("opt").eval().generate(ids, **more))


def test_a_run_of_ours_answers_as_its_predictor(answering: Path) -> None:
    """Its folder stands for its adapter, and a bare row for the model's own head."""
    predictor = beftkit.load(answering / "run", device="cpu")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(answering / "base")
    texts = ["good film", "bad plot the"]
    batch = predictor.tokenizer(texts, return_tensors="pt", padding=True)
    bank = BiasBank(base.eval(), {"run": answering / "run"})
    with torch.no_grad():
        got = torch.stack(bank(names=["run", "run"], **batch))
        mixed = bank(names=["run", None], **batch)
        close(mixed[0], predictor.model(**batch).logits[0])
        close(mixed[1], base(**batch).logits[1])
    close(got, predictor.model(**batch).logits.detach())


def test_adapters_of_added_vectors_as_training_leaves_them(tmp_path: Path) -> None:
    """A vector that trained at a module's output, and the bank's: one arithmetic, equal bits."""
    base, models = build("llama", attention_bias=False), []
    for number in range(2):
        model, before = copy.deepcopy(base), {}
        for layer in range(2):
            module = f"model.layers.{layer}.self_attn.v_proj"
            vector = attach(model.get_submodule(module))
            before[f"{module}.{ADDED}"] = torch.zeros_like(vector)
            with torch.no_grad():
                vector.add_(torch.randn(vector.shape) / 5)
        what = collect_tuned(model, before)
        write_adapter(
            tmp_path / str(number), what, format="beft", base="b", task_type=None, metadata={}
        )
        models.append(model.eval())
    bank, ids = BiasBank(base.eval(), {"0": tmp_path / "0", "1": tmp_path / "1"}), tokens(3)
    with torch.no_grad():
        got = bank(names=["1", "0", "1"], input_ids=ids)
        for row, which in enumerate((1, 0, 1)):
            assert torch.equal(got[row], models[which](input_ids=ids).logits[row])
