"""Names on disk become the runtime's names, and the runtime's names stay as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beftkit.biases.config import model_types
from beftkit.biases.renames import RENAMES, runtime_path

DATA = os.environ.get("BEFTKIT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="names of every family: set BEFTKIT_DATA")

#: names outside the numbered layers, which recognition does not score and so need no row
HEADS = (
    "vision_backbone.image_pooling_2d.",  # molmo2: pools patches for the projector
    "decoder_global_pointer.",  # pp_doclayout_v4: order of the boxes it found
    "decoder_roor_global_pointer.",
)


def families() -> dict[str, Any]:
    path = Path(str(DATA)) / "reference" / "families.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["families"]
    return found


def path_of(name: str) -> str:
    """The path of a module, or of a free parameter, in the first layer."""
    return name.replace("{i}", "0").removesuffix(".bias")


def sites(family: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Role and runtime name of every q, k and v bias."""
    for site in family["sites"]:
        yield from ((role, site[role]) for role in "qkv" if site[role])


@needs_data
def test_names_on_disk_become_those_at_runtime() -> None:
    wrong, count = [], 0
    for model_type, family in families().items():
        for role, name in sites(family):
            disk = (family["on_disk_names"] or {}).get(name)
            if disk is None or disk.startswith(HEADS):
                continue
            count += 1
            found = runtime_path(path_of(disk), role, {model_type})
            if not f".{path_of(name)}".endswith(f".{found}"):
                wrong.append(f"{model_type} {role}: {disk} -> {found}, at runtime {name}")
    print(f"{count} names on disk, {len(wrong)} of them wrong", *wrong, sep="\n")
    assert count > 200 and not wrong


@needs_data
@pytest.mark.slow
def test_names_at_runtime_stay() -> None:
    words = {old.partition("#")[0] for _, row in RENAMES for old, *_ in row}
    wrong, count = [], 0
    for model_type, family in families().items():
        # A configuration takes a while: only where some row might reach.
        names = [
            (role, name)
            for role, name in sites(family)
            if any(word in path_of(name) for word in words)
        ]
        types = with_towers(model_type) if names else frozenset()
        for role, name in names:
            count += 1
            found = runtime_path(path_of(name), role, types)
            if found != path_of(name):
                wrong.append(f"{model_type} {role}: {name} -> {found}")
    print(f"{count} names that a row might reach, {len(wrong)} of them changed", *wrong, sep="\n")
    assert count > 100 and not wrong


def with_towers(model_type: str) -> frozenset[str]:
    """A model type with those of its towers, as a checkpoint's configuration has them."""
    from transformers import CONFIG_MAPPING

    try:
        config = CONFIG_MAPPING[model_type]().to_dict()
    except (TypeError, ValueError):  # no configuration without arguments
        config = {}
    return model_types(config) | {model_type}


VIT_AND_BERT = ("vision-encoder-decoder", "vit", "bert")
DUAL = ("vision-text-dual-encoder", "vit", "bert")
MASKFORMER = ("maskformer", "swin", "detr")
DINO = ("grounding-dino", "swin", "bert")


@pytest.mark.parametrize(
    ("types", "role", "path", "want"),
    [
        (("vit",), "q", "vit.encoder.layer.1.attention.attention.query",
         "vit.layers.1.attention.q_proj"),
        (VIT_AND_BERT, "q", "encoder.encoder.layer.0.attention.attention.query",
         "encoder.layers.0.attention.q_proj"),
        (VIT_AND_BERT, "m1", "decoder.bert.encoder.layer.0.attention.output.dense", ""),
        (DUAL, "m2", "vision_model.encoder.layer.0.intermediate.dense",
         "vision_model.layers.0.mlp.fc1"),
        (DUAL, "m2", "text_model.encoder.layer.0.intermediate.dense", ""),
        (DINO, "k", "text_backbone.encoder.layer.0.attention.self.key", ""),
        (MASKFORMER, "q", "encoder.model.encoder.layers.0.blocks.0.attention.self.query", ""),
        (MASKFORMER, "m1", "transformer_module.decoder.layers.0.self_attn.out_proj",
         "transformer_module.decoder.layers.0.self_attn.o_proj"),
        (("sam3_tracker",), "v",
         "tracker_model.detector_model.vision_encoder.backbone.layers.0.attention.v_proj",
         "vision_encoder.backbone.layers.0.attention.v_proj"),
        (("sam3_video", "sam3_tracker_video"), "v",
         "tracker_model.memory_attention.layers.0.self_attn.v_proj", ""),
        (("step3p7",), "m1", "vision_model.transformer.resblocks.0.attn.out_proj",
         "vision_model.layers.0.self_attn.out_proj"),
        (("step3p7",), "m1", "vision_model.layers.0.self_attn.out_proj", ""),
        (("segformer",), "q", "encoder.block.2.1.attention.self.query",
         "stages.2.blocks.1.attention.q_proj"),
        (("segformer",), "", "encoder.block.*.*", "stages.*.blocks.*"),
        (("bert",), "q", "encoder.layer.0.attention.self.query", ""),
    ],
)  # fmt: skip
def test_towers_keep_their_own_names(
    types: tuple[str, ...], role: str, path: str, want: str
) -> None:
    assert runtime_path(path, role, types) == (want or path)
