"""Names on disk -> names at runtime, where transformers renames modules as it loads.

One row: model types and substitutions, applied in order to the path of a module (``{role}`` is the
role, ``#`` an index). A third word in a substitution is what the path must hold. A name that is the
runtime's already stays as it is. PEFT matches ``target_modules`` by the end of a name, so a prefix
that is only added at runtime needs no row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Substitutions = tuple[tuple[str, ...], ...]


def _inside(tower: str, *substitutions: tuple[str, ...]) -> Substitutions:
    """Substitutions for one tower: the same words mean something else in the next."""
    return tuple((old, new, tower) for old, new in substitutions)


# fmt: off
_QKV: Substitutions = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
)
_MLP: Substitutions = (("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"))
_SWIN: Substitutions = (
    ("attention.self.query", "attention.q_proj"), ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"), _QKV[-1], *_MLP,
)
_DETR: Substitutions = (
    ("self_attn.out_proj", "self_attn.o_proj"), ("encoder_attn.out_proj", "encoder_attn.o_proj"),
    (".fc1", ".mlp.fc1"), (".fc2", ".mlp.fc2"),
)
_FUSED: Substitutions = (("attn.qkv", "attention.{role}_proj"), ("attn.proj", "attention.o_proj"))
_RESBLOCKS: Substitutions = (
    ("transformer.resblocks.", "layers."), ("attn.in_proj_bias", "self_attn.{role}_proj"),
    ("attn.out_proj", "self_attn.out_proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
)

#: models of several towers: such a row overrules the rows of its towers
COMPOSITES: tuple[tuple[str, Substitutions], ...] = (
    ("vision-encoder-decoder",
     _inside("encoder.encoder.", *_QKV, *_MLP, ("encoder.encoder.layer.", "encoder.layers."))),
    ("vision-text-dual-encoder",
     _inside("vision_model.", *_QKV, *_MLP, ("encoder.layer.", "layers."))),
    ("grounding-dino mm-grounding-dino",
     _inside("conv_encoder.", ("model.encoder.", "model.swin.encoder."), *_SWIN)),
    ("maskformer", _inside("transformer_module.", *_DETR)),  # its Swin is not the "swin" it says
    ("sam3_video", (("tracker_model.tracker_model.", "tracker_model."),)),
    ("tipsv2_dpt", (("vision_encoder.blocks.", "backbone.encoder.layer."), *_FUSED,
                    *_RESBLOCKS[-2:])),
    ("zoedepth", (*_QKV, *_MLP, ("backbone.encoder.layer.", "backbone.beit.layers."))),
)
RENAMES: tuple[tuple[str, Substitutions], ...] = (
    *COMPOSITES,
    ("audio-spectrogram-transformer beit deit ijepa pixio vit vit_mae vit_msn vivit",
     (*_QKV, *_MLP, ("encoder.layer.", "layers."), ("norm1", "layernorm_before"),
      ("norm2", "layernorm_after"))),
    ("depth_anything prompt_depth_anything depth_pro dinov2 dinov2_with_registers lw_detr", _QKV),
    ("rf_detr", (*_QKV, ("backbone.0.encoder.encoder.encoder.", "backbone.backbone.encoder."),
                 ("transformer.decoder.", "decoder."),
                 ("self_attn.in_proj_bias", "self_attn.{role}_proj"))),
    ("videomae", (("attention.attention.q_bias", "attention.attention.query"),
                  ("attention.attention.v_bias", "attention.attention.value"))),
    ("swin", _SWIN),
    ("mask2former oneformer",
     (("pixel_level_module.encoder.encoder.", "pixel_level_module.encoder.swin.encoder."),
      *_SWIN)),
    ("altclip", (("encoder.layer.", "encoder.layers."),)),
    ("audioflamingo3 got_ocr2 internvl llava_onevision musicflamingo qwen2_audio vibevoice_asr "
     "fuyu pp_chart2table gemma3",
     (("language_model.model.layers.", "language_model.layers."),)),
    ("chmv2", (("backbone.layer.", "backbone.model.layer."),)),
    ("cohere_asr", (("linear_q", "q_proj"), ("linear_k", "k_proj"), ("linear_v", "v_proj"),
                    ("linear_out", "o_proj"), ("transf_decoder._decoder.", "decoder."),
                    ("first_sub_layer.query_net", "self_attn.q_proj"),
                    ("first_sub_layer.key_net", "self_attn.k_proj"),
                    ("first_sub_layer.value_net", "self_attn.v_proj"),
                    ("second_sub_layer.query_net", "encoder_attn.q_proj"),
                    ("second_sub_layer.key_net", "encoder_attn.k_proj"),
                    ("second_sub_layer.value_net", "encoder_attn.v_proj"))),
    ("cosmos3_edge",
     (("self_attn.to_q", "self_attn.q_proj"), ("self_attn.to_k", "self_attn.k_proj"),
      ("self_attn.to_v", "self_attn.v_proj"))),
    ("d_fine", (("encoder.encoder.", "encoder.aifi."), ("self_attn.out_proj", "self_attn.o_proj"),
                (".fc1", ".mlp.layers.0"), (".fc2", ".mlp.layers.1"))),
    ("rt_detr rt_detr_v2 pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4",
     (("encoder.encoder.", "encoder.aifi."), *_DETR)),
    ("conditional_detr deformable_detr detr", _DETR),
    ("dots3_note", (("audio_encoder.dots_encoder.speech_encoder.", "audio_tower."),)),
    ("ernie4_5_vl_moe", (("vision_model.blocks.", "vision_tower.blocks."),)),
    ("gte", (("encoder.layer.", "layers."), ("attention.qkv_proj", "self_attn.{role}_proj"),
             ("attention.o_proj", "self_attn.o_proj"), ("attn_ln", "post_attention_layernorm"),
             ("mlp_ln", "post_mlp_layernorm"))),
    ("jina_embeddings_v3",
     (("encoder.layers.", "layers."), ("mixer.Wqkv", "self_attn.{role}_proj"),
      ("mixer.out_proj", "self_attn.o_proj"), ("norm1", "post_attention_layernorm"),
      ("norm2", "post_mlp_layernorm"))),
    ("kimi_k25 kimi_k25_vision",
     (("vision_tower.blocks.", "vision_tower.layers."), ("wqkv", "attn.{role}_proj"))),
    ("molmo2", (("vision_backbone.image_vit.transformer.resblocks.", "vision_tower.layers."),
                ("attention.wq", "self_attn.q_proj"), ("attention.wk", "self_attn.k_proj"),
                ("attention.wv", "self_attn.v_proj"), ("attention.wo", "self_attn.o_proj"))),
    ("radio", (("radio_model.model.blocks.", "encoder.layer."), *_FUSED)),
    ("nemotron_h_omni",
     (("vision_model.radio_model.model.blocks.", "vision_model.encoder.layer."), *_FUSED)),
    ("qianfan_ocr", (("vision_tower.encoder.layers.", "vision_tower.layers."),
                     ("attn.qkv", "attention.{role}_proj"),
                     ("attn.proj", "attention.projection_layer"),
                     ("norm1", "layernorm_before"), ("norm2", "layernorm_after"))),
    ("qwen2_5_omni", (("thinker.audio_tower.", "thinker.model.audio_tower."),
                      ("thinker.visual.", "thinker.model.visual."),
                      ("thinker.model.layers.", "thinker.model.language_model.layers."))),
    ("sam3_tracker sam3_tracker_video",
     (("tracker_model.detector_model.", ""), ("tracker_model.", ""))),
    ("sapiens2", (("blocks.", "model.layer."), ("attn.wq", "attention.q_proj"),
                  ("attn.wk", "attention.k_proj"), ("attn.wv", "attention.v_proj"),
                  ("attn.proj", "attention.o_proj"))),
    ("segformer", (("encoder.block.#.", "stages.#.blocks."), *_SWIN[:4],
                   ("mlp.dense1", "mlp.fc1"), ("mlp.dense2", "mlp.fc2"),
                   ("layer_norm_1", "layernorm_before"), ("layer_norm_2", "layernorm_after"))),
    ("step3p7", (*_RESBLOCKS, ("ln_1", "layernorm_before"), ("ln_2", "layernorm_after"))),
    ("tipsv2", (("text_encoder.transformer.resblocks.", "text_model.encoder.layers."),
                ("vision_encoder.blocks.", "vision_model.encoder.layer."),
                *_RESBLOCKS[1:], *_FUSED, ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"))),
    ("tipsv2_text_model", (("transformer.resblocks.", "encoder.layers."), *_RESBLOCKS[1:],
                           ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"))),
    ("tipsv2_vision_model", (("blocks.", "encoder.layer."), *_FUSED, *_RESBLOCKS[-2:])),
    ("unlimited_ocr",
     (("sam_model.blocks.", "vision_tower.sam_encoder.layers."),
      ("vision_model.transformer.", "vision_tower.vision_encoder.encoder."),
      ("self_attn.qkv_proj", "self_attn.{role}_proj"))),
)
# fmt: on


def runtime_path(path: str, role: str, types: Iterable[str]) -> str:
    """The runtime's path of a module (or free parameter) that a checkpoint names ``path``."""
    types = set(types)
    rows = [row for names, row in COMPOSITES if types & set(names.split())]
    rows = rows or [row for names, row in RENAMES if types & set(names.split())]
    for row in rows:
        for old, new, *tower in row:
            if not tower or tower[0] in path:
                path = _substitute(path, old, new.replace("{role}", role))
    return path


def _substitute(path: str, old: str, new: str) -> str:
    if old in new and new in path:  # it is there already
        return path
    if "#" in old:
        pattern = re.escape(old).replace(r"\#", r"(\d+|\*)")
        return re.sub(pattern, new.replace("#", r"\1"), path, count=1)
    return path.replace(old, new, 1)
