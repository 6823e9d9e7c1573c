"""The families table: its own consistency, splits of fused biases, inertness, a user's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beftkit.biases import Tensor, load_table, recognise
from beftkit.biases.layouts import LAYOUTS, ROLES, parameter
from beftkit.biases.renames import RENAMES
from beftkit.biases.splits import SPLIT_RULES, SPLITS, cut
from beftkit.biases.table import BUILT_IN
from beftkit.errors import BeftError
from tests.test_biases import bert, tensors


def test_no_two_general_rows_disagree() -> None:
    seen: dict[str, tuple[str, str]] = {}
    for row in LAYOUTS:
        if row.needs:
            continue
        for leaf, role in row.names().items():
            assert seen.setdefault(leaf, (role, row.attention)) == (role, row.attention), leaf


def test_rows_are_well_formed() -> None:
    names = [row.name for row in LAYOUTS]
    assert len(set(names)) == len(names)
    for row in LAYOUTS:
        assert all(parameter(leaf) in BUILT_IN.names for leaf in row.needs.split()), row.name
    fused = {leaf for row in LAYOUTS for leaf, role in row.names().items() if role in ("qkv", "kv")}
    assert set(SPLITS) == fused, "every fused name needs a split, and no split stands unused"
    assert {rule for rows in SPLITS.values() for _, rule in rows} <= set(SPLIT_RULES)


def test_no_model_type_has_two_answers() -> None:
    from beftkit.biases.inertness import RULES

    types = [name for line in RULES.values() for name in line.split()]
    assert len(set(types)) == len(types)
    renamed = [name for row, _ in RENAMES for name in row.split()]
    assert len(set(renamed)) == len(renamed)


def fused(leaf: str, width: int) -> list[Tensor]:
    return [Tensor(f"transformer.h.0.{leaf}.bias", "F32", (width,))]


@pytest.mark.parametrize(
    ("rule", "config", "width", "want"),
    [
        ("thirds", {}, 12, {"q": [0, 1, 2, 3], "k": [4, 5, 6, 7], "v": [8, 9, 10, 11]}),
        ("halves", {}, 4, {"k": [0, 1], "v": [2, 3]}),
        ("heads", {"n_head": 2}, 12, {"q": [0, 1, 6, 7], "k": [2, 3, 8, 9], "v": [4, 5, 10, 11]}),
        ("multi_query", {"num_heads": 4}, 6, {"q": [0, 1, 2, 3], "k": [4], "v": [5]}),
        (
            "grouped",
            {"num_attention_heads": 4, "num_key_value_heads": 2},
            8,
            {"q": [0, 1, 2, 3], "k": [4, 5], "v": [6, 7]},
        ),
        (
            "groups",
            {"num_attention_heads": 4, "num_kv_heads": 2},
            8,
            {"q": [0, 1, 4, 5], "k": [2, 6], "v": [3, 7]},
        ),
        ("falcon", {"num_attention_heads": 4}, 6, {"q": [0, 1, 2, 3], "k": [4], "v": [5]}),
        (
            "falcon",
            {"num_attention_heads": 2, "multi_query": False},
            6,
            {"q": [0, 3], "k": [1, 4], "v": [2, 5]},
        ),
        ("bigcode", {"n_head": 1, "multi_query": False}, 3, {"q": [0], "k": [1], "v": [2]}),
    ],
)
def test_cuts(rule: str, config: dict[str, Any], width: int, want: dict[str, list[int]]) -> None:
    values = np.arange(width)
    found = {}
    for role, piece in cut(rule, "x.bias", width, config, "here").items():
        part = values.reshape(piece.view).take(range(piece.start, piece.stop), axis=piece.axis)
        assert part.size == piece.width
        found[role] = part.reshape(-1).tolist()
    assert found == want


def test_fused_without_a_config_is_an_error_that_names_the_way_out() -> None:
    for leaf in ("attention.query_key_value", "attn.c_attn", "attn.qkv"):
        with pytest.raises(BeftError, match="model_config"):
            recognise(fused(leaf, 12), None, "here")


def test_gpt2_without_a_config_is_told_by_its_conv1d() -> None:
    conv1d = [
        *fused("attn.c_attn", 12),
        Tensor("transformer.h.0.attn.c_attn.weight", "F32", (4, 12)),
    ]
    assert [site.role for site in recognise(conv1d, None, "here").sites] == ["q", "k", "v"]
    linear = [
        *fused("attn.c_attn", 12),
        Tensor("transformer.h.0.attn.c_attn.weight", "F32", (12, 4)),
    ]
    with pytest.raises(BeftError, match="model_config"):
        recognise(linear, None, "here")


def test_missing_or_wrong_head_counts_are_errors() -> None:
    with pytest.raises(BeftError, match=r"needs num_attention_heads.*model_config"):
        recognise(fused("attention.query_key_value", 12), {"model_type": "gpt_neox"}, "here")
    config = {"model_type": "gpt_neox", "num_attention_heads": 5}
    with pytest.raises(BeftError, match=r"does the config\.json belong"):
        recognise(fused("attention.query_key_value", 12), config, "here")


def test_fused_of_an_unknown_type_is_scored_whole_never_guessed() -> None:
    found = recognise(fused("attn.qkv", 12), {"model_type": "homemade"}, "here")
    assert [(site.role, site.width, site.cut) for site in found.sites] == [
        ("attn.qkv.bias", 12, None)
    ]
    assert "scored whole" in found.notes[0]


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({"model_type": "bert"}, "yes"),
        ({"model_type": "bert", "position_embedding_type": "absolute"}, "yes"),
        ({"model_type": "bert", "position_embedding_type": "relative_key"}, "no"),
        ({"model_type": "esm", "position_embedding_type": "rotary"}, "no"),
        ({"model_type": "bert", "attn_logit_softcapping": 30.0}, "no"),
        ({"model_type": "opt"}, "yes"),
        ({"model_type": "qwen2"}, "no"),
        ({"model_type": "homemade"}, "unknown"),
        ({"model_type": "homemade", "rope_theta": 1e4}, "no"),
        ({"model_type": "falcon", "alibi": True, "rope_theta": 1e4}, "yes"),
        ({"model_type": "falcon", "alibi": False}, "no"),
        ({"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": ["c2p"]}, "yes"),
        ({"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": "p2c|c2p"}, "no"),
        ({"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": 5}, "yes"),
        ({"model_type": ["bert"], "num_attention_heads": "two"}, "unknown"),
        ({"model_type": "deberta-v2", "relative_attention": False, "pos_att_type": ["p2c"]}, "yes"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
def test_inert(config: dict[str, Any] | None, want: str) -> None:
    found = {site.role: site.inert for site in recognise(bert(), config, "here").sites}
    assert found["k"] == want
    assert {found[role] for role in ROLES if role != "k"} == {"no"}


OWN = """
[[layout]]
name = "homemade"
q = "mixer.to_query"
qkv = "mixer.all"
m1 = "mixer.out"

[[split]]
name = "mixer.all"
model_types = "homemade"
rule = "heads"

[inert]
plain = "homemade"
"""


def test_a_user_can_add_a_family(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    table = load_table(tmp_path / "own.toml")
    names = [*tensors(["net.0.mixer.all.bias"], 12), *tensors(["net.0.mixer.out.bias"])]
    config = {"model_type": "homemade", "num_heads": 2}
    found = recognise(names, config, "here", table)
    assert [site.role for site in found.sites] == ["q", "k", "v", "m1"]
    assert {site.role: site.inert for site in found.sites}["k"] == "yes"
    assert found.sites[0].cut is not None and found.sites[0].cut.view == (2, 3, 2)


def test_the_documented_example_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "families-file.md").read_text()
    (tmp_path / "own.toml").write_text(page.split("```toml")[1].split("```")[0])
    table = load_table(tmp_path / "own.toml")
    assert [row.name for row in table.own] == ["homemade", "homemade, cross-attention"]
    assert table.split_rule("cross.all.bias", frozenset({"homemade"})) == "thirds"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[layout", "not a TOML file"),
        ("[[layout]]\nquery = 'x'", "unknown key 'query'"),
        ("[[layout]]\nq = ['x']", "must be text"),
        ("layout = 3", r"must be written as \[\[layout\]\]"),
        ("[[split]]\nname = 'x'\nmodel_types = 'y'\nrule = 'guess'", "a rule out of thirds"),
        ("[inert]\nsometimes = 'x'", "unknown key 'sometimes'"),
        ("inert = 1", "must be a table"),
        ("families = 1", "unknown key 'families'"),
        (f"a = {'[' * 9000}{']' * 9000}", "not a TOML file"),
        (f"a = {'1' * 5000}", "not a TOML file"),
        ("a = 2026-99-99", "not a TOML file"),
    ],
)
def test_a_bad_families_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(BeftError, match=message) as refused:
        load_table(tmp_path / "own.toml")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    with pytest.raises(BeftError, match="cannot be read"):
        load_table(tmp_path / "absent.toml")
