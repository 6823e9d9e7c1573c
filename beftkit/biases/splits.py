"""How fused biases are cut into q, k and v: one row per name and model types, never a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from beftkit.errors import BeftError

HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")


@dataclass(frozen=True)
class Cut:
    """Part of a fused vector: reshape it to ``view``, take ``start:stop`` along ``axis``.

    Numpy's arrays and torch's tensors are cut by the same words.
    """

    view: tuple[int, ...]
    axis: int
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Length of the part."""
        others = (size for axis, size in enumerate(self.view) if axis != self.axis)
        return (self.stop - self.start) * math.prod(others)

    def part(self, whole: Any) -> Any:
        """The part where it lies: a view of the fused vector, shaped as ``view`` is."""
        where = (slice(None),) * self.axis + (slice(self.start, self.stop),)
        return whole.reshape(self.view)[where]

    def take(self, whole: Any) -> Any:
        """The part as a vector, ``[D]``; a copy where its scalars do not lie side by side."""
        return self.part(whole).reshape(-1)

    def positions(self) -> list[int]:
        """Where the part's scalars lie in the fused vector, in the part's own order."""
        import numpy as np

        return [int(at) for at in self.take(np.arange(math.prod(self.view)))]

    def __str__(self) -> str:
        if len(self.view) == 1:
            return f"[{self.start}:{self.stop}]"
        before = ":," * self.axis
        shape = ",".join(map(str, self.view))
        return f"view({shape})[{before}{self.start}:{self.stop}]"


# Model types of vision towers whose ``attn.qkv`` is [q|k|v], each seen in transformers' own code.
_QKV_BLOCKS = """
    cohere_compass cohere_compass_vision colqwen2 cosmos3_omni deepseek_ocr2_sam_vision_model
    deepseek_ocr2_vision deepseek_vl_hybrid dots3_note edgetam_video ernie4_5_vl_moe
    ernie4_5_vl_moe_vision glm46v glm4v glm4v_moe glm4v_moe_vision glm4v_vision glm5_next
    glm5_next_vision glm_image glm_image_vision glm_ocr glm_ocr_vision glmga got_ocr2
    got_ocr2_vision hiera hyperclovax_vision_v2 mgp-str pp_chart2table pp_formulanet
    pp_formulanet_vision qwen2_5_vl qwen2_5_vl_vision qwen2_vl qwen2_vl_vision qwen3_5 qwen3_5_moe
    qwen3_5_moe_vision qwen3_5_vision qwen3_omni_moe_thinker qwen3_omni_moe_vision_encoder qwen3_vl
    qwen3_vl_moe qwen3_vl_moe_vision qwen3_vl_vision qwen4_exp_vision sam sam2 sam2_hiera_det_model
    sam2_video sam2_vision_model sam_hq sam_hq_vision_model sam_vision_model slanext_vision
    unlimited_ocr unlimited_ocr_sam_vision_model unlimited_ocr_vision
    nemotron_h_omni qianfan_ocr radio tipsv2 tipsv2_dpt tipsv2_vision_model
"""
_BLIP = """
    blip blip_vision_model blip-2 blip_2_vision_model instructblip instructblip_vision_model
    instructblipvideo instructblipvideo_vision_model
"""
_GPT2 = "gpt2 gpt-sw3 openai-gpt imagegpt decision_transformer"

#: what a row may say; see `cut`
SPLIT_RULES = "thirds halves heads groups multi_query grouped falcon bigcode codegen".split()
#: parameter name below the layer index -> ((model types, rule), ...)
SPLITS: dict[str, tuple[tuple[str, str], ...]] = {
    "attn.c_attn.bias": ((_GPT2, "thirds"), ("gpt_bigcode", "bigcode")),
    "crossattention.c_attn.bias": ((f"{_GPT2} gpt_bigcode", "halves"),),
    "attention.query_key_value.bias": (("gpt_neox", "heads"),),
    "self_attention.query_key_value.bias": (("bloom", "heads"), ("falcon", "falcon")),
    "self_attn.query_key_value.bias": (("persimmon fuyu", "heads"),),
    "attn.att_proj.bias": (("bark", "thirds"),),
    "attn.qkv.bias": (("exaone4_5 exaone4_5_vision", "grouped"), (_QKV_BLOCKS, "thirds")),
    "self_attn.qkv.bias": ((_BLIP, "thirds"),),
    "self_attn.qkv_proj.bias": (("unlimited_ocr", "thirds"), ("phi3 phi4_multimodal", "grouped")),
    "attn.Wqkv.bias": (("modernbert modernvbert pe_audio mpt", "thirds"),),
    "attn.qkv_proj.bias": (("codegen", "codegen"),),
    "attention.attention.qkv.bias": (("timesformer", "thirds"),),
    "temporal_attention.attention.qkv.bias": (("timesformer", "thirds"),),
    "attention.qkv.bias": (("seggpt vitdet", "thirds"),),
    "attention.qkv_proj.bias": (("gte", "thirds"),),
    "mixer.Wqkv.bias": (("jina_embeddings_v3", "thirds"),),
    "wqkv.bias": (("kimi_k25 kimi_k25_vision", "thirds"),),
    "spatial_block.window_attn.qkv.bias": (("florence2 florence_vision", "thirds"),),
    "channel_block.channel_attn.qkv.bias": (("florence2 florence_vision", "thirds"),),
}


def cut(rule: str, name: str, width: int, config: Mapping[str, Any], where: str) -> dict[str, Cut]:
    """Cut a fused bias of ``width`` elements into roles by ``rule``.

    Args:
        rule: ``thirds`` [q|k|v]; ``halves`` [k|v]; ``heads`` view(H, 3, d); ``groups``
            view(Hkv, H/Hkv + 2, d); ``multi_query`` [q: H d|k: d|v: d]; ``grouped``
            [q: H d|k: Hkv d|v: Hkv d]; ``falcon``, ``bigcode``: one of these by the config;
            ``codegen`` view(4, 3, H d/4) in the order q, v, k.
        name: the tensor, for messages.
        width: elements of the fused vector.
        config: the (sub-)configuration of its tower.
        where: the checkpoint, for messages.

    Raises:
        BeftError: head counts are missing or do not divide the width.
    """

    def heads(keys: tuple[str, ...], default: int | None = None) -> int:
        given = (config.get(key) for key in keys)
        found = next((count for count in given if type(count) is int and count > 0), default)
        if found is not None:
            return found
        raise BeftError(
            f"{where}: {name} holds q, k and v in one; cutting it needs {keys[0]}, which its "
            "config.json does not say; give the right one with --model-config=PATH"
        )

    def parts(blocks: int | None = None, **shares: int) -> dict[str, Cut]:
        """Roles by their shares, one after the other: once, or anew in each of several blocks."""
        each = sum(shares.values())
        total = each * (1 if blocks is None else blocks)
        if total <= 0 or width % total:
            raise BeftError(
                f"{where}: {name} has {width} elements, which rule {rule!r} cannot cut into "
                f"{total} equal parts; does the config.json belong to this checkpoint?"
            )
        size = width // total
        ends = accumulate(shares.values())
        places = [(role, end - shares[role], end) for role, end in zip(shares, ends, strict=True)]
        if blocks is None:
            return {role: Cut((width,), 0, a * size, b * size) for role, a, b in places}
        return {role: Cut((blocks, each, size), 1, a, b) for role, a, b in places}

    if rule == "falcon" and config.get("new_decoder_architecture"):
        rule = "groups"
    elif rule in ("falcon", "bigcode"):
        rule = "multi_query" if config.get("multi_query", True) else "heads"
    if rule == "thirds":
        return parts(q=1, k=1, v=1)
    if rule == "halves":
        return parts(k=1, v=1)
    if rule == "codegen":
        return parts(4, q=1, v=1, k=1)
    count = heads(HEADS)
    if rule == "heads":
        return parts(count, q=1, k=1, v=1)
    if rule == "multi_query":
        return parts(q=count, k=1, v=1)
    groups = heads(KV_HEADS, default=count)
    if rule == "grouped":
        return parts(q=count, k=groups, v=groups)
    return parts(groups, q=count // groups, k=1, v=1)
