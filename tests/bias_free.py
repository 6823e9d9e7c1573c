"""Tiny models of families without biases, and by hand where a bias of each role would lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.tiny_models import GROUPED, SMALL, build_as

#: modules of a layer by role
LLAMA = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "m1": "self_attn.o_proj", "m2": "mlp.gate_proj mlp.up_proj", "m3": "mlp.down_proj",
}  # fmt: skip
WIDE = {**GROUPED, "head_dim": 8}


@dataclass(frozen=True)
class Free:
    """One tiny model.

    Attributes:
        id, model, config, options: as of `tests.tiny_models.Case`.
        stack: its layers.
        roles: role -> modules of a layer.
        slices: role -> where its scalars are in a fused module's output.
        inert: whether softmax ignores its keys' bias.
    """

    id: str
    model: str
    config: str
    options: Mapping[str, Any]
    stack: str = "model.layers"
    roles: Mapping[str, str] = field(default_factory=lambda: LLAMA)
    slices: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def build(self, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
        """The model, drawn anew but equal at every call."""
        return build_as(self.model, self.config, {**self.options, **options}, dtype)

    def modules(self, role: str, layers: int = 2) -> list[str]:
        """Paths of a role's modules, layer by layer."""
        leaves = self.roles[role].split()
        return [f"{self.stack}.{layer}.{leaf}" for layer in range(layers) for leaf in leaves]


def _fused(q: int, kv: int) -> dict[str, Sequence[int]]:
    return {"q": range(q), "k": range(q, q + kv), "v": range(q + kv, q + 2 * kv)}


def _by_group(heads: int, groups: int, width: int) -> dict[str, Sequence[int]]:
    """Falcon's new blocks: of each group its queries, its key, its value."""
    each = heads // groups + 2
    found: dict[str, list[int]] = {"q": [], "k": [], "v": []}
    for group in range(groups):
        for place in range(each):
            role = "k" if place == each - 2 else "v" if place == each - 1 else "q"
            begin = (group * each + place) * width
            found[role] += range(begin, begin + width)
    return found


def _blocks(begin: int) -> list[int]:
    """CodeGen's: four blocks of queries, values, keys, each 8 wide."""
    return [24 * block + begin + at for block in range(4) for at in range(8)]


CASES = (
    Free("llama", "LlamaForCausalLM", "LlamaConfig", GROUPED),
    Free("llama-classes", "LlamaForSequenceClassification", "LlamaConfig", GROUPED),
    Free("mistral", "MistralForCausalLM", "MistralConfig", {**WIDE, "sliding_window": 4}),
    Free("gemma", "GemmaForCausalLM", "GemmaConfig", WIDE),
    Free("gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig", WIDE),
    Free("qwen3", "Qwen3ForCausalLM", "Qwen3Config", WIDE),
    Free("smollm3", "SmolLM3ForCausalLM", "SmolLM3Config", GROUPED),
    Free(
        "mixtral", "MixtralForCausalLM", "MixtralConfig",
        {**GROUPED, "num_local_experts": 2, "experts_implementation": "eager"},
        roles={role: LLAMA[role] for role in ("q", "k", "v", "m1")},
    ),
    Free(
        "gptj", "GPTJForCausalLM", "GPTJConfig",
        {"vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32,
         "rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 1},
        "transformer.h",
        {"q": "attn.q_proj", "k": "attn.k_proj", "v": "attn.v_proj", "m1": "attn.out_proj"},
    ),
    Free(
        "phi3", "Phi3ForCausalLM", "Phi3Config", GROUPED,
        roles={"q": "self_attn.qkv_proj", "k": "self_attn.qkv_proj", "v": "self_attn.qkv_proj",
               "m1": "self_attn.o_proj", "m2": "mlp.gate_up_proj", "m3": "mlp.down_proj"},
        slices=_fused(32, 16),
    ),
    Free(
        "falcon", "FalconForCausalLM", "FalconConfig",
        {**SMALL, "hidden_size": 32, "num_attention_heads": 4, "bias": False,
         "new_decoder_architecture": True, "num_kv_heads": 2},
        "transformer.h",
        {**dict.fromkeys("qkv", "self_attention.query_key_value"), "m1": "self_attention.dense",
         "m2": "mlp.dense_h_to_4h", "m3": "mlp.dense_4h_to_h"},
        slices=_by_group(4, 2, 8),
    ),
    Free(
        "gpt-neox", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**SMALL, "attention_bias": False},
        "gpt_neox.layers",
        {**dict.fromkeys("qkv", "attention.query_key_value"), "m1": "attention.dense"},
        slices=_by_group(3, 3, 8),
    ),
    Free(
        "codegen", "CodeGenForCausalLM", "CodeGenConfig",
        {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "n_ctx": 32,
         "rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 1},
        "transformer.h",
        {**dict.fromkeys("qkv", "attn.qkv_proj"), "m1": "attn.out_proj"},
        slices={role: _blocks(begin) for role, begin in (("q", 0), ("v", 8), ("k", 16))},
    ),
    Free(
        "mpt", "MptForCausalLM", "MptConfig",
        {"vocab_size": 50, "d_model": 24, "n_layers": 2, "n_heads": 3, "max_seq_len": 32},
        "transformer.blocks",
        {**dict.fromkeys("qkv", "attn.Wqkv"), "m1": "attn.out_proj"},
        slices=_fused(24, 24),
    ),
    Free(
        "modernbert", "ModernBertForSequenceClassification", "ModernBertConfig",
        {**SMALL, "num_labels": 3, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
         "sep_token_id": 2},
        roles={**dict.fromkeys("qkv", "attn.Wqkv"), "m1": "attn.Wo", "m2": "mlp.Wi",
               "m3": "mlp.Wo"},
        slices=_fused(24, 24),
    ),
)  # fmt: skip
BY_ID = {case.id: case for case in CASES}


def tokens(model: Any, rows: int = 3) -> dict[str, torch.Tensor]:
    """A random batch, padded on the right."""
    drawn = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 50, (rows, 7), generator=drawn)
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    ids = ids.masked_fill(mask == 0, getattr(model.config, "pad_token_id", None) or 0)
    return {"input_ids": ids, "attention_mask": mask}
