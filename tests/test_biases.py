"""Which bias is what: names, towers, matching, runtime names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from beftkit.biases import Site, Tensor, match_sites, nearest_names, recognise
from beftkit.biases.config import config_for, model_types, name_towers
from beftkit.biases.layouts import ROLES
from beftkit.biases.matching import match_stacks
from beftkit.biases.renames import runtime_path
from beftkit.biases.splits import Cut
from beftkit.errors import BeftError

BERT = {"model_type": "bert", "num_attention_heads": 2}


def tensors(names: Iterable[str], width: int = 6, dtype: str = "F32") -> list[Tensor]:
    return [Tensor(name, dtype, (width,)) for name in names]


def bert(prefix: str = "bert.", layers: int = 2) -> list[Tensor]:
    parts = (
        "attention.self.query attention.self.key attention.self.value attention.output.dense "
        "attention.output.LayerNorm intermediate.dense output.dense output.LayerNorm"
    ).split()
    return tensors(f"{prefix}encoder.layer.{i}.{p}.bias" for i in range(layers) for p in parts)


def roles(found: Iterable[Site]) -> dict[str, str]:
    return {f"{site.name}{site.cut or ''}": site.role for site in found}


def fused(leaf: str, width: int) -> list[Tensor]:
    return [Tensor(f"transformer.h.0.{leaf}.bias", "F32", (width,))]


def test_all_eight_roles_of_bert() -> None:
    found = recognise(bert(), BERT, "here")
    assert {site.role for site in found.sites} == set(ROLES)
    assert all(site.layer in (0, 1) and site.tower == "text" for site in found.sites)
    assert found.unscored == ()


@pytest.mark.parametrize(
    "prefix",
    ["", "bert.", "model.", "module.bert.", "_orig_mod.bert.", "base_model.model.bert.", "0.m."],
)
def test_prefixes_do_not_matter(prefix: str) -> None:
    found = recognise(bert(prefix), BERT, "here")
    assert len(found.sites) == 16
    pairs, only_pre, only_post = match_sites(recognise(bert(), BERT, "x").sites, found.sites)
    assert (len(pairs), only_pre, only_post) == (16, [], [])
    assert all(a.role == b.role and a.layer == b.layer for a, b in pairs)


def test_wrappers_inside_names_do_not_matter() -> None:
    wrapped = tensors(
        [
            "module.encoder.layer.0._checkpoint_wrapped_module.attention.self.query.bias",
            "module.encoder.layer.0.attention.self._orig_mod.value.base_layer.bias",
        ]
    )
    found = recognise(wrapped, BERT, "here")
    assert sorted(site.role for site in found.sites) == ["q", "v"]


def test_beta_is_a_layernorm_bias() -> None:
    found = recognise(
        [
            *tensors(["encoder.layer.0.attention.self.query.bias"]),
            *tensors(["encoder.layer.0.output.LayerNorm.beta"]),
            *tensors(["encoder.layer.0.output.LayerNorm.gamma"]),
        ],
        BERT,
        "here",
    )
    assert sorted(site.role for site in found.sites) == ["ln2", "q"]
    plain = recognise(
        tensors(
            [
                "encoder.layer.0.attention.self.query.bias",
                "encoder.layer.0.output.LayerNorm.bias",
            ]
        ),
        BERT,
        "here",
    )
    assert len(match_sites(found.sites, plain.sites)[0]) == 2


def test_masks_and_buffers_are_not_biases() -> None:
    names = [
        Tensor("h.0.attn.bias", "U8", (1, 1, 8, 8)),
        Tensor("h.0.attn.masked_bias", "F32", ()),
        Tensor("h.0.attn.c_attn.bias", "F32", (18,)),
        Tensor("h.0.attn.c_attn.weight", "F32", (6, 18)),
    ]
    found = recognise(names, {"model_type": "gpt2"}, "here")
    assert {site.name for site in found.sites} == {"h.0.attn.c_attn.bias"}
    assert found.biases == 1


def test_blocks_without_attention_are_not_layers() -> None:
    conv = tensors([f"feature_extractor.conv_layers.{i}.layer_norm.bias" for i in range(3)])
    found = recognise([*bert(), *conv], BERT, "here")
    assert len(found.sites) == 16
    assert found.unscored == tuple(sorted(tensor.name for tensor in conv))


def test_a_name_can_mean_two_things() -> None:
    """layer_norm2 belongs to the MLP in CLIP, to cross-attention where there is a third norm."""
    clip = ["self_attn.q_proj", "layer_norm1", "layer_norm2"]
    sam = [*clip, "cross_attn_token_to_image.q_proj", "layer_norm3"]
    for leaves, want in ((clip, ("ln2", "self")), (sam, ("ln1", "cross"))):
        found = recognise(tensors(f"x.layers.0.{leaf}.bias" for leaf in leaves), None, "here")
        [norm] = [site for site in found.sites if "layer_norm2" in site.name]
        assert (norm.role, norm.attention) == want


@pytest.mark.parametrize(
    ("stack", "leaves", "want"),
    [
        (
            "encoder.blocks.0.1",
            "attention.k_head attention.v_head attention.post_proj attention.layer_norm "
            "ffn.linear_1 ffn.linear_2 ffn.layer_norm",
            "k v m1 ln1 m2 m3 ln2",
        ),
        ("encoder.network.0.blocks.1", "attn.to_query attn.to_key attn.final", "q k m1"),
        (
            "layers.2",
            "temporal_block.q_proj temporal_block.k_proj temporal_block.v_proj "
            "temporal_block.o_proj mlp_block.gate_proj mlp_block.up_proj mlp_block.down_proj",
            "q k v m1 m2 m2 m3",
        ),
    ],
    ids=["funnel", "swiftformer", "recurrent_gemma"],
)
def test_families_added_as_rows_alone(stack: str, leaves: str, want: str) -> None:
    names = [f"{stack}.{leaf}.bias" for leaf in leaves.split()]
    found = {site.name: site.role for site in recognise(tensors(names), None, "x").sites}
    assert [found[name] for name in names] == want.split()


def test_two_tensors_in_one_place_are_refused() -> None:
    twice = tensors(["layer.0.attention.self.query.bias", "layer.00.attention.self.query.bias"])
    with pytest.raises(BeftError, match="claim the same place"):
        recognise(twice, None, "here")


def test_quantised_biases_are_refused_by_name() -> None:
    with pytest.raises(BeftError, match=r"query\.bias is stored as I8"):
        recognise(tensors(["l.0.attention.self.query.bias"], dtype="I8"), BERT, "here")


def test_an_unknown_family_keeps_its_raw_names() -> None:
    names = ["net.3.mixer.to_query.bias", "net.3.mixer.to_v.bias", "net.3.mixer.gate.bias"]
    found = recognise(tensors(names), {"model_type": "homemade"}, "here")
    assert sorted(site.role for site in found.sites) == ["mixer.to_query", "mixer.to_v"]
    assert all(site.inert == "unknown" for site in found.sites)
    assert "not in the table" in found.notes[0]
    assert found.unscored == ("net.3.mixer.gate.bias",)


def test_nearest_names_are_one_a_pattern() -> None:
    names = [f"net.{i}.mixer.query.bias" for i in range(5)] + ["head.bias", "net.0.norm.bias"]
    found = nearest_names(names, 2)
    assert found[0] == "net.0.mixer.query.bias" and len(found) == 2


def test_towers() -> None:
    def names(stacks: list[str], model_type: str = "") -> dict[str, str]:
        named = name_towers(stacks, {"model_type": model_type})
        return {stack: tower for stack, (tower, _) in named.items()}

    assert names(["bert.encoder.layer.*"]) == {"bert.encoder.layer.*": "text"}
    assert names(["vit.encoder.layer.*"], "vit") == {"vit.encoder.layer.*": "vision"}
    assert set(names(["model.encoder.layers.*", "model.decoder.layers.*"], "bart").values()) == {
        "text.encoder", "text.decoder",
    }  # fmt: skip
    assert set(names(["model.encoder.layers.*", "model.decoder.layers.*"], "whisper").values()) == {
        "audio", "text",
    }  # fmt: skip
    assert names(["visual.blocks.*", "language_model.layers.*"], "qwen2_vl") == {
        "visual.blocks.*": "vision", "language_model.layers.*": "text",
    }  # fmt: skip


def test_each_tower_has_its_own_configuration() -> None:
    config = {
        "model_type": "clip",
        "text_config": {"model_type": "clip_text_model", "num_attention_heads": 2},
        "vision_config": {"num_attention_heads": 4},
    }
    assert config_for(config, "text", "")["model_type"] == "clip_text_model"
    vision = config_for(config, "vision", "")
    assert (vision["num_attention_heads"], vision["model_type"]) == (4, "clip")
    assert config_for(config, "audio", "")["model_type"] == "clip"
    assert model_types(config) == {"clip", "clip_text_model"}
    assert config_for(None, "text", "") == {}


@pytest.mark.parametrize(
    ("pre", "post", "want"),
    [
        ({"a.*"}, {"a.*"}, {"a.*": "a.*"}),
        ({"layer.*"}, {"bert.layer.*"}, {"layer.*": "bert.layer.*"}),
        ({"m.layer.*"}, {"layer.*"}, {"m.layer.*": "layer.*"}),
        ({"layer.*"}, {"a.layer.*", "b.layer.*"}, {}),
        ({"e.l.*", "d.l.*"}, {"m.e.l.*", "m.d.l.*"}, {"e.l.*": "m.e.l.*", "d.l.*": "m.d.l.*"}),
        ({"encoder.layer.*"}, {"layers.*"}, {}),
        ({"xlayer.*"}, {"layer.*", "other.*"}, {}),
    ],
)  # fmt: skip
def test_match_stacks(pre: set[str], post: set[str], want: dict[str, str]) -> None:
    assert match_stacks(pre, post) == want


def test_names_on_disk_match_names_at_runtime() -> None:
    config = {"model_type": "vit"}
    disk = recognise(tensors(["vit.encoder.layer.0.attention.attention.key.bias"]), config, "x")
    runtime = recognise(tensors(["layers.0.attention.k_proj.bias"]), config, "y")
    assert len(match_sites(disk.sites, runtime.sites)[0]) == 1


def test_sites_of_one_side_only_are_reported() -> None:
    left, right = recognise(bert(layers=3), BERT, "x").sites, recognise(bert(), BERT, "y").sites
    pairs, only_pre, only_post = match_sites(left, right)
    assert (len(pairs), len(only_pre), len(only_post)) == (16, 8, 0)
    assert {site.layer for site in only_pre} == {2}


def test_modules_are_named_without_the_base_models_prefix() -> None:
    modules = {site.module for site in recognise(bert("bert."), BERT, "x").sites}
    assert "encoder.layer.1.attention.self.value" in modules
    ambiguous = tensors(
        [
            "model.encoder.layers.0.self_attn.q_proj.bias",
            "model.x.encoder.layers.0.self_attn.q_proj.bias",
        ]
    )
    assert {site.module for site in recognise(ambiguous, None, "x").sites} == {
        "model.encoder.layers.0.self_attn.q_proj", "x.encoder.layers.0.self_attn.q_proj",
    }  # fmt: skip


def test_modules_are_named_as_at_runtime() -> None:
    disk = tensors(["vit.encoder.layer.0.attention.attention.query.bias"])
    [found] = recognise(disk, {"model_type": "vit"}, "x").sites
    assert found.module == "layers.0.attention.q_proj"
    assert (
        runtime_path("vit.layers.0.attention.q_proj", "q", ["vit"])
        == "vit.layers.0.attention.q_proj"
    )


def test_fused_and_free_biases_have_no_module_of_their_own() -> None:
    config = {"model_type": "gpt2", "n_head": 2}
    assert {site.module for site in recognise(fused("attn.c_attn", 12), config, "x").sites} == {
        None
    }
    free = tensors(["deberta.encoder.layer.0.attention.self.q_bias"])
    assert recognise(free, {"model_type": "deberta"}, "x").sites[0].module is None


def test_fused_on_disk_but_not_at_runtime_has_modules() -> None:
    disk = tensors(["new.encoder.layer.0.attention.qkv_proj.bias"], 12)
    found = recognise(disk, {"model_type": "gte"}, "x").sites
    assert [site.module for site in found] == [
        f"new.layers.0.self_attn.{role}_proj" for role in "qkv"
    ]


@pytest.mark.parametrize("cut", [Cut((12,), 0, 4, 8), Cut((2, 3, 2), 1, 1, 2)])
def test_a_cut_is_the_same_in_numpy_and_torch(cut: Cut) -> None:
    array, tensor = np.arange(12.0), torch.arange(12.0)
    where = cut.positions()
    assert len(where) == cut.width and list(array[where]) == list(cut.take(array))
    assert torch.equal(tensor[where], cut.take(tensor))
    tensor.mul_(2)
    piece = cut.part(tensor)
    tensor.mul_(2)  # the part lies in the whole: it is no copy
    assert piece.flatten().tolist() == [4 * at for at in where]
