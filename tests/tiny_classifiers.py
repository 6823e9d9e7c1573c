"""A tiny classifier of every recognised family that can be one, with a tokenizer, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORDS = "[PAD] [UNK] [CLS] [SEP] [END] good great bad awful movie film the a".split()
PAD, END = 0, 4
#: entries of configurations, wherever a family has them
SMALL: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_override"), 20),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 24),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 3),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 3),
    **dict.fromkeys(("intermediate_size", "n_inner", "hidden_dim", "ffn_dim", "d_ff", "dff"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_key_value_heads", "n_head_kv"), 3),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 3),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_experts_per_token"), 2),
    "head_dim": 8,
    "word_embed_proj_dim": 24,
    "shared_expert_intermediate_size": 16,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "bos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "experts_implementation": "eager",
}


def small_config(kind: str, given: Mapping[str, Any] | None = None) -> Any:
    """A family's configuration with small numbers, in its parts as well."""
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    return made(**_small(made, dict(given or {})))


def _small(made: Any, given: dict[str, Any]) -> dict[str, Any]:
    default = made()
    options = {}
    for key, value in SMALL.items():
        if key in vars(default) or key in getattr(default, "attribute_map", {}):
            options[key] = value
    for name in default.sub_configs:
        inner = getattr(default, name, None)
        if inner is not None:
            options[name] = _small(type(inner), dict(given.pop(name, {})))
    return {**options, **given}


_GROUPED = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
_MIXED = {"layer_types": ["linear_attention", "full_attention"]}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def _alike(families: str, **options: Any) -> dict[str, dict[str, Any]]:
    return dict.fromkeys(families.split(), options)


#: family -> what its configuration needs beside `SMALL`, biases switched on
FAMILIES: dict[str, dict[str, Any]] = {
    **_alike(
        """
        albert bart bert big_bird biogpt bloom camembert canine convbert ctrl data2vec-text deberta
        deberta-v2 distilbert electra ernie esm flaubert gemma3 glm glm4 gpt-sw3 gpt2 gpt_bigcode
        gpt_neox gpt_oss gte ibert jina_embeddings_v3 layoutlm longformer markuplm mbart
        megatron-bert modernvbert mpnet mra mvp nystromformer openai-gpt opt persimmon phi plbart
        qwen2 qwen2_moe rembert roberta roberta-prelayernorm roformer seed_oss starcoder2 t5gemma2
        tapas ultravbert xlm xlm-roberta xlm-roberta-xl yoso
        """
    ),
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_inner": 32, "d_head": 8},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 4, "visual_embed": False},
    "mobilebert": {"intra_bottleneck_size": 24},
    "perceiver": {
        **{"d_latents": 24, "num_latents": 4, "num_self_attends_per_block": 2},
        **{"num_self_attention_heads": 3, "num_cross_attention_heads": 3},
    },
    "qwen3_5": {"text_config": {**_MIXED, **_LINEAR}},
    "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20},
    "squeezebert": {
        "embedding_size": 24,
        **dict.fromkeys(
            (
                "q_groups",
                "k_groups",
                "v_groups",
                "post_attention_groups",
                "intermediate_groups",
                "output_groups",
            ),
            1,
        ),
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    # bias-free by default
    **_alike(
        """
        arcee doge gemma gemma2 gemma3_text helium hunyuan_v1_dense hunyuan_v1_moe llama nemotron
        olmo olmo2 olmo3 phimoe qwen3 qwen3_moe smollm3 modernbert modernbert-decoder esmc eurobert
        ultrabert
        """,
        attention_bias=True,
    ),
    "bigbird_pegasus": {"use_bias": True},
    "diffllama": {**_GROUPED, "attention_bias": True},
    "falcon": {"bias": True},
    "qwen3_5_text": {**_MIXED, **_LINEAR, "attention_bias": True},
    "qwen3_next": {**_MIXED, **_LINEAR, "attention_bias": True},
    "stablelm": {"use_qkv_bias": True},
    "t5gemma": {"encoder": {"attention_bias": True}, "decoder": {"attention_bias": True}},
}


def make_classifier(kind: str, **options: Any) -> Any:
    """A model with two classes, its attention not flat, dropout off; as `write_classifier`."""
    import torch
    import transformers

    config = small_config(kind, {**FAMILIES.get(kind, {}), **options})
    config.num_labels = 2
    for part in (config, config.get_text_config()):
        for key, value in vars(part).items():
            if ("dropout" in key or "pdrop" in key or "dropout_prob" in key) and isinstance(
                value, float
            ):
                setattr(part, key, 0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                is_norm = parameter.dim() == 1 and name.endswith("weight")
                noise = torch.randn_like(parameter)
                parameter.copy_(parameter + 0.1 * noise if is_norm else 0.2 * noise)
    return model


def write_classifier(
    folder: Path, kind: str, *, side: str = "right", pads: str = "[PAD]", **options: Any
) -> Path:
    """A model with two classes, its attention not flat, dropout off; and its tokenizer.

    Args:
        folder: to make.
        kind: of `FAMILIES`, or another that needs nothing.
        side: the tokenizer's side of padding.
        pads: the tokenizer's pad token; empty: it has none, but an end token.
        options: of the configuration, beside those of `FAMILIES`.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    model = make_classifier(kind, **options)
    model.save_pretrained(folder)
    words = {word: number for number, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [END]", "[CLS] $A [END] $B [END]", [("[CLS]", 2), ("[END]", END)]
    )
    special = {"pad_token": pads} if pads else {}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", eos_token="[END]", padding_side=side, **special
    ).save_pretrained(folder)
    return folder
