"""Causal models that learn texts, captured with the stand-in: each family's rounded batch, with a
filled row, against the batch as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from beftkit.objectives import make_objective
from tests import test_captured_families as heads
from tests.tiny_classifiers import FAMILIES, small_config

KINDS = """
    arcee biogpt bloom ctrl diffllama doge falcon gemma gemma2 gemma3_text glm glm4 gpt-sw3 gpt2
    gpt_bigcode gpt_neox gpt_oss helium hunyuan_v1_dense hunyuan_v1_moe llama modernbert-decoder
    nemotron olmo olmo2 olmo3 openai-gpt opt persimmon phi phimoe qwen2 qwen2_moe qwen3 qwen3_5_text
    qwen3_moe qwen3_next seed_oss smollm3 stablelm starcoder2
""".split()
SAMPLE = ("gpt2", "llama", "opt", "bloom")


def make(kind: str) -> Any:
    """A tiny causal model, its attention not flat, dropout off."""
    config = small_config(kind, FAMILIES[kind])
    for key, value in vars(config).items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                is_norm = parameter.dim() == 1 and name.endswith("weight")
                noise = torch.randn_like(parameter)
                parameter.copy_(parameter + 0.1 * noise if is_norm else 0.2 * noise)
    for module in model.modules():  # PhiMoE draws its routes in training, as dropout its masks
        if "Router" in type(module).__name__:
            module.train = lambda mode=True, module=module: module
    return model


@pytest.mark.parametrize(
    "kind",
    [kind if kind in SAMPLE else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_every_family(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokens in three are learnt: rows have different numbers of them."""
    job = heads.job

    def asked(net: Any, *words: Any, **more: Any) -> Any:
        return replace(job(net, *words, **more), objective=make_objective("language", ()))

    def texts(count: int = 11) -> Any:
        rows = encoded(count)
        learnt = (torch.arange(len(rows.ids)) % 3 > 0).to(torch.uint8)
        learnt[rows.starts[:-1]] = 0  # nothing stands before a row's first token
        return replace(rows, learnt=learnt, targets=torch.zeros(count, dtype=torch.int64))

    encoded = heads.encoded
    for name, one in (("make_classifier", make), ("job", asked), ("encoded", texts)):
        monkeypatch.setattr(heads, name, one)
    assert heads.compare(kind, monkeypatch) == ""
