"""See which q, k and v an attention module makes in its own forward, whatever holds its biases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

Projections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def projections(model: Any, path: str, inputs: dict[str, Any]) -> list[Projections]:
    """The query, key and value states of every attention that runs inside module ``path``.

    Nearly all end in torch's own attention; BLOOM and OpenAI-GPT multiply by hand.
    """
    from transformers.models.bloom.modeling_bloom import BloomAttention
    from transformers.models.openai.modeling_openai import Attention as OpenAIAttention

    seen: list[Projections] = []
    inside: list[str] = []
    attention, reshape, by_hand = (
        F.scaled_dot_product_attention,
        BloomAttention._reshape,
        OpenAIAttention._attn,
    )

    def note(q: Any, k: Any, v: Any) -> None:
        if inside:
            seen.append((q, k, v))

    def torch_attention(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> Any:
        note(q, k, v)
        return attention(q, k, v, *rest, **options)

    def bloom_reshape(self: Any, fused: Any) -> Any:
        note(*(states := reshape(self, fused)))
        return states

    def openai_attention(self: Any, q: Any, k: Any, v: Any, *rest: Any) -> Any:
        note(q, k, v)
        return by_hand(self, q, k, v, *rest)

    module = model.get_submodule(path)
    hooks = [
        module.register_forward_pre_hook(lambda *_: inside.append(path)),
        module.register_forward_hook(lambda *_: inside.clear()),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", torch_attention)
        patch.setattr(BloomAttention, "_reshape", bloom_reshape)
        patch.setattr(OpenAIAttention, "_attn", openai_attention)
        model(**inputs)
    for hook in hooks:
        hook.remove()
    assert seen, f"{path}: no attention seen"
    return seen


def owned_elements(model: Any, name: str, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Which elements of the fused bias ``name`` reach q, k and v: a mask a role, by autograd."""
    bias = model.get_parameter(name)
    states = projections(model, name.rsplit(".", 2)[0], inputs)
    generator = torch.Generator().manual_seed(3)
    masks = {}
    for index, role in enumerate("qkv"):
        total = sum(
            (s[index] * torch.randn(s[index].shape, generator=generator)).sum() for s in states
        )
        (gradient,) = torch.autograd.grad(total, bias, retain_graph=True, allow_unused=True)
        masks[role] = (
            torch.zeros(len(bias), dtype=torch.bool) if gradient is None else gradient != 0
        )
    return masks
