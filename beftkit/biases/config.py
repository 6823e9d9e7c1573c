"""What a ``config.json`` says: model types, and the towers of a model, their parts and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beftkit.errors import BeftError, option
from beftkit.spelling import meant

#: words in a module path or sub-configuration name -> the modality they speak of
MODALITY_WORDS = (
    ("qformer", re.compile(r"qformer|q_former")),
    ("vision", re.compile(r"vision|visual|image|pixel|video|(^|_)(img|vit|swin|dino)")),
    ("audio", re.compile(r"audio|speech|acoustic|wav")),
    ("text", re.compile(r"text|language|(^|_)(llm|lm)($|_)")),
)
#: model types whose names do not say what they look at or listen to
VISION_TYPES = frozenset(
    "beit data2vec-vision deit depth_anything dinov2 dinov2_with_registers dinov3_vit dpt glpn "
    "hiera ijepa levit maskformer-swin mgp-str mobilevit pixio pvt pvt_v2 radio sam sam2 sam_hq "
    "sapiens2 segformer seggpt swin swinv2 timesformer videomae vit vitdet vit_mae vit_msn vitpose "
    "swiftformer vivit yolos zoedepth detr conditional_detr rt_detr rt_detr_v2 d_fine cvt "
    "swin2sr".split()
)
AUDIO_TYPES = frozenset(
    "whisper hubert wavlm sew sew-d unispeech unispeech-sat data2vec-audio wav2vec2 wav2vec2-bert "
    "wav2vec2-conformer audio-spectrogram-transformer moonshine speech_to_text speecht5 mctct "
    "parakeet_encoder clvp encodec mimi".split()
)


def modality_of(words: str) -> str | None:
    """The modality that a dotted module path names, or None if it names none."""
    for modality, pattern in MODALITY_WORDS:
        if any(pattern.search(word) for word in words.split(".")):
            return modality
    return None


def model_types(config: Mapping[str, Any] | None) -> frozenset[str]:
    """Every ``model_type`` in a configuration and its sub-configurations."""
    if not config:
        return frozenset()
    own = config.get("model_type")
    inner = (model_types(value) for value in config.values() if isinstance(value, dict))
    return frozenset({own} if isinstance(own, str) else ()).union(*inner)


def config_for(config: Mapping[str, Any] | None, modality: str, part: str) -> dict[str, Any]:
    """The (sub-)configuration that describes one tower.

    Args:
        config: the whole configuration, or None.
        modality: ``text``, ``vision``, ``audio`` or ``qformer``.
        part: ``encoder``, ``decoder`` or empty.

    Returns:
        The first sub-configuration that speaks of it, else the whole.
    """
    if not config:
        return {}
    for key, value in config.items():
        if isinstance(value, dict) and (value.get("model_type") or "num_attention_heads" in value):
            if modality_of(key) == modality:
                return _inherit(config_for(value, modality, part), config)
            if part and key == part:
                return _inherit(value, config)
    for value in config.values():  # a "thinker_config" around the towers of an omni model
        if isinstance(value, dict) and any(
            isinstance(inner, dict) and modality_of(name) == modality
            for name, inner in value.items()
        ):
            return config_for(value, modality, part)
    return dict(config)


def _inherit(part: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Older files leave the model type out of a sub-configuration."""
    return {"model_type": whole.get("model_type"), **part}


def uses(stack: str, config: Mapping[str, Any]) -> int:
    """How many layers share each block of a stack: ALBERT repeats its groups."""
    layers, groups = config.get("num_hidden_layers"), config.get("num_hidden_groups")
    if "albert_layer_groups" not in stack.split(".") or not (
        type(layers) is int and type(groups) is int and 0 < groups <= layers
    ):
        return 1
    return layers // groups


def name_towers(
    stacks: Iterable[str], config: Mapping[str, Any] | None
) -> dict[str, tuple[str, str]]:
    """Name each stack's tower: its modality, and encoder or decoder where there are several.

    Returns:
        Stack to (tower, part): ``text``, ``vision``, ``text.encoder``; where that does not tell
        two stacks apart, the path follows a colon. The part is ``encoder``, ``decoder`` or empty.
    """
    model_type = str((config or {}).get("model_type", ""))
    modality = {stack: _modality(stack, model_type) for stack in stacks}
    result: dict[str, tuple[str, str]] = {}
    for name in set(modality.values()):
        members = sorted(stack for stack in modality if modality[stack] == name)
        parts = {stack: _part(stack) for stack in members}
        for stack in members:
            part = parts[stack]
            path = ".".join(word for word in stack.split(".") if word != "*")
            twins = list(parts.values()).count(part) > 1
            label = f"{name}:{path}" if twins or not part else f"{name}.{part}"
            result[stack] = (name if len(members) == 1 else label, part)
    return result


def _part(stack: str) -> str:
    words = stack.split(".")
    return "decoder" if "decoder" in words else "encoder" if "encoder" in words else ""


def _modality(stack: str, model_type: str) -> str:
    named = modality_of(stack)
    if named:
        return named
    default = modality_of(model_type) or "text"
    if model_type in VISION_TYPES:
        default = "vision"
    elif model_type in AUDIO_TYPES:
        default = "audio"
    # Speech recognition and captioning: the decoder writes text.
    writes = default == "audio" or model_type == "vision-encoder-decoder"
    return "text" if writes and _part(stack) == "decoder" else default


def choose_tower(towers: Sequence[str], wanted: str | None) -> tuple[str, list[str]]:
    """Settle on one tower of several.

    Args:
        towers: the towers of all sites, one entry a site.
        wanted: what the user asked for, or None for the main one: text if there is any, else the
            tower with most sites.

    Returns:
        The name that `in_tower` takes, and a note where there was a choice.
    """
    names = sorted(set(towers))
    if wanted is not None:
        if wanted != "all" and not any(in_tower(name, wanted) for name in names):
            known = [*names, "all"]
            expected = f"expected one of {', '.join(known)}{meant(wanted, known)}"
            raise BeftError(f"{option('tower', wanted)}: {expected}", "other architecture")
        return wanted, []
    modalities = {name.split(".")[0].split(":")[0] for name in names}
    if len(modalities) == 1:
        return modalities.pop(), []
    sizes = {one: sum(in_tower(name, one) for name in towers) for one in sorted(modalities)}
    main = "text" if "text" in sizes else max(sizes, key=lambda one: sizes[one])
    rest = ", ".join(f"{one} ({size} sites)" for one, size in sizes.items() if one != main)
    return main, [f"this is the {main} tower alone; also there: {rest}; choose with --tower"]


def in_tower(name: str, wanted: str) -> bool:
    """Whether a site's tower belongs to the one asked for (``text`` holds ``text.encoder``)."""
    return wanted == "all" or name == wanted or name.startswith((f"{wanted}.", f"{wanted}:"))
