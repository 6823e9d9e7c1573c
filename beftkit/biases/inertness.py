"""Which key biases softmax cannot feel, from the configuration.

Plain attention softmax(q.k) over keys that all carry the same b_k shifts each query's logits by
the constant q.b_k, which softmax ignores: the gradient of b_k is exactly zero. Positions that
touch the key after its bias, norms on keys, capped logits, sinks and added keys end that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Inert = Literal["yes", "no", "unknown"]

#: rule -> model types; a type that stands nowhere is "unknown"
#:
#: ``plain``: softmax over q.k (plus terms that do not touch the key), unless the configuration
#: spoils it; ``keyed``: the key meets positions, a norm, a cap or a sink after its bias; the
#: others are asked of the configuration below.
RULES: dict[str, str] = {
    "plain": """
        bert bert-generation roberta xlm-roberta camembert electra albert distilbert mpnet esm
        data2vec-text roberta-prelayernorm xlm-roberta-xl megatron-bert layoutlm visual_bert
        longformer opt gpt2 gpt-sw3 openai-gpt imagegpt gpt_bigcode bloom
        bart mbart marian pegasus plbart blenderbot blenderbot-small m2m_100 xglm biogpt
        wav2vec2 hubert vit deit vit_mae vit_msn audio-spectrogram-transformer
        clip clip_text_model clip_vision_model
        siglip siglip_text_model siglip_vision_model
    """,
    "keyed": """
        gpt_neox phi qwen2 qwen2_moe starcoder2 llama mistral gpt_oss glm glm4 gemma2
        qwen2_vl qwen2_vl_text qwen2_vl_vision qwen2_5_vl qwen2_5_vl_text qwen2_5_vl_vision
    """,
    "alibi": "falcon",
    "p2c": "deberta-v2",
}

#: configuration entries that end inertness wherever they are set (to anything but these)
_SPOILERS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": (None, "absolute", "alibi"),
    "attn_logit_softcapping": (None, 0, False),
    "attention_logit_cap": (None, 0, False),
    "add_zero_attn": (None, False),
    "use_qk_norm": (None, False),
    "qk_norm": (None, False),
    "qk_layernorm": (None, False),
}
#: entries that only models with rotary positions have
_ROTARY = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor")


def rules_by_type(rules: Mapping[str, str]) -> dict[str, str]:
    """Turn rule -> model types into model type -> rule."""
    return {name: rule for rule, types in rules.items() for name in types.split()}


def key_inert(config: Mapping[str, Any], rule_of: Mapping[str, str]) -> Inert:
    """Whether the key bias is inert under this (sub-)configuration.

    Args:
        config: the configuration of the tower; empty if there is none.
        rule_of: model type to rule.

    Returns:
        ``yes`` only where the table knows the model type as plain softmax attention and no
        entry of the configuration changes that; ``no`` also for an unknown type with rotary
        positions; else ``unknown``.
    """
    rule = rule_of.get(str(config.get("model_type", "")))
    if any(key in config and config[key] not in harmless for key, harmless in _SPOILERS.items()):
        return "no"
    if rule == "alibi":
        return "yes" if config.get("alibi") else "no"
    if rule == "p2c":
        kinds = config.get("pos_att_type") or ()
        listed = isinstance(kinds, (str, list, tuple)) and "p2c" in kinds
        return "no" if config.get("relative_attention") and listed else "yes"
    if rule == "keyed" or (rule is None and any(config.get(key) for key in _ROTARY)):
        return "no"
    return "yes" if rule == "plain" else "unknown"
