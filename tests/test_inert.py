"""Whether softmax ignores a key bias: recognition's answer against the gradient in float64.

Gradients are taken through the parameters that the sites name, cut as the sites say, so a wrong
cut shows here too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from beftkit.biases import Recognition, Site, Tensor, recognise
from tests.tiny_models import BY_ID, CASES, Case, batch, build

#: these convert to float32 for softmax, whatever the model's dtype: zero up to its rounding
FLOAT32_SOFTMAX = ("bloom", "longformer")
ZERO, ZERO_FLOAT32, MOVES = 1e-12, 1e-6, 1e-3


def _variant(name: str, base: str, **options: Any) -> Case:
    case = BY_ID[base]
    return replace(case, id=f"{base}-{name}", options={**case.options, **options})


VARIANTS = (
    _variant("share", "deberta-v2-c2p", share_att_key=True),
    _variant("only", "deberta-v2-p2c", pos_att_type=["p2c"]),
    _variant("text", "deberta-v2-p2c", pos_att_type="p2c|c2p"),
    _variant("off", "deberta-v2-p2c", relative_attention=False),
    _variant("relative", "deberta-v2-plain", relative_attention=True),
    _variant("alibi", "falcon-new", alibi=True),
    _variant("alibi", "falcon-multi-query", alibi=True),
    _variant("all-rotary", "gpt-neox", rotary_pct=1.0),
    _variant("stable", "wav2vec2", do_stable_layer_norm=True),
)
WITH_KEY_BIAS = [
    case for case in (*CASES, *VARIANTS) if any(owner.role == "k" for owner in case.owners)
]


@pytest.mark.parametrize("case", WITH_KEY_BIAS, ids=lambda case: case.id)
def test_answer_agrees_with_gradient(case: Case) -> None:
    model = build(case, torch.float64)
    sites = recognised(model).sites
    backward(model, case)
    zero = ZERO_FLOAT32 if case.id in FLOAT32_SOFTMAX else ZERO
    measured = ratios(model, sites)
    blocks = [block for block in case.blocks if block.has("q") and block.has("k")]
    assert len(measured) == len(blocks), "a block is missing"
    for (stack, attention), ratio in measured.items():
        answers = {
            site.inert
            for site in sites
            if (site.role, site.stack, site.attention) == ("k", stack, attention)
        }
        truth = "yes" if ratio < zero else "no" if ratio > MOVES else "neither"
        assert answers == {truth}, f"{stack}, {attention}: |g_k|/|g_q| = {ratio:.1e}"


def test_dropout_of_attention_keeps_a_key_bias_inert() -> None:
    case = BY_ID["bert"]
    model = build(case, torch.float64, attention_probs_dropout_prob=0.3).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backward(model, case)
    measured = ratios(model, recognised(model).sites)
    assert max(measured.values()) < ZERO, measured


@pytest.mark.parametrize(
    ("case", "inert"),
    [
        (BY_ID["llama"], True),
        (_variant("low-cap", "gemma2", attn_logit_softcapping=2.0), False),
        (BY_ID["gpt-oss"], False),
        (BY_ID["phi-qk-norm"], False),
    ],
    ids=lambda value: getattr(value, "id", ""),
)
def test_capping_sinks_and_norms_alone_end_inertness(case: Case, inert: bool) -> None:
    """Rotary positions alone would end it in all four: here every rotation is by zero degrees."""
    model = build(case, torch.float64)
    model.model.rotary_emb.inv_freq.zero_()
    backward(model, case)
    (ratio,) = ratios(model, recognised(model).sites).values()
    assert ratio < ZERO if inert else ratio > MOVES, f"|g_k|/|g_q| = {ratio:.1e}"


def recognised(model: Any) -> Recognition:
    """Recognition of the model under its runtime names."""
    tensors = [Tensor(name, "F64", tuple(p.shape)) for name, p in model.state_dict().items()]
    return recognise(tensors, json.loads(model.config.to_json_string()), "the model")


def backward(model: Any, case: Case) -> None:
    """Gradients of a random sum over everything that the model puts out, hidden keys aside."""
    output = model(**batch(case, model))
    parts = [
        output,
        *(output.get(name) or {} for name in ("text_model_output", "vision_model_output")),
    ]
    names = ("logits", "last_hidden_state", "text_embeds", "image_embeds")
    results = [part[name] for part in parts for name in names if name in part]
    generator = torch.Generator().manual_seed(5)
    total = sum(
        (result * torch.randn(result.shape, generator=generator, dtype=result.dtype)).sum()
        for result in results
    )
    total.backward()


def ratios(model: Any, sites: tuple[Site, ...]) -> dict[tuple[str, str], float]:
    """|g_k| / |g_q| over all layers of every stack and attention that has both biases."""
    squares: dict[tuple[str, str], dict[str, float]] = {}
    for site in sites:
        gradient = model.get_parameter(site.name).grad
        if site.role in ("q", "k") and gradient is not None:
            if site.cut is not None:
                shaped = gradient.view(site.cut.view)
                gradient = shaped.narrow(
                    site.cut.axis, site.cut.start, site.cut.stop - site.cut.start
                )
            sums = squares.setdefault((site.stack, site.attention), {})
            sums[site.role] = sums.get(site.role, 0.0) + gradient.square().sum().item()
    return {
        place: (sums["k"] / sums["q"]) ** 0.5 for place, sums in squares.items() if len(sums) == 2
    }
