"""PRE against POST through files: what is matched, scored, noted and refused."""

from __future__ import annotations

import os
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import beftkit
from beftkit.biases import choose_tower, in_tower
from beftkit.checkpoints import open_checkpoint
from beftkit.errors import BeftError
from tests import builders


def nudged(tensors: builders.Tensors, *leaves: str, by: float = 0.1) -> builders.Tensors:
    """A copy in which the tensors whose names end so have moved, each by its own random step."""
    rng = np.random.default_rng(9)
    return {
        name: values + by * rng.normal(size=values.shape) if name.endswith(leaves) else values
        for name, values in tensors.items()
    }


def pair(tmp_path: Path, family: str = "bert", *leaves: str, **post: object) -> tuple[Path, Path]:
    pre = builders.write_model(tmp_path / "pre", family)
    after = nudged(builders.model(family), *(leaves or (".bias",)))
    folder = builders.write_model(tmp_path / "post", family)
    builders.write_file(folder / "model.safetensors", after, str(post.get("dtype", "F32")))
    return pre, folder


@pytest.mark.parametrize("family", ["bert", "opt", "gpt2", "qwen2"])
def test_every_family_is_scored(tmp_path: Path, family: str) -> None:
    scores = beftkit.score(*pair(tmp_path, family))
    assert scores.target in ("q", "k", "v")
    assert scores.roles["k"].inert == ("no" if family == "qwen2" else "yes")
    for site in scores.sites:
        assert site.figures["projection"] > 0
    assert scores.coverage.matched == len(scores.sites)
    assert scores.coverage.only_pre == scores.coverage.only_post == ()


@pytest.mark.parametrize("role", ["q", "k", "v"])
def test_only_the_changed_slice_of_gpt2_moves(tmp_path: Path, role: str) -> None:
    before = builders.model("gpt2")
    after = {name: values.copy() for name, values in before.items()}
    start = "qkv".index(role) * builders.WIDTH
    after["transformer.h.1.attn.c_attn.bias"][start : start + builders.WIDTH] += 0.5
    pre = builders.write_model(tmp_path / "pre", "gpt2")
    post = builders.write_model(tmp_path / "post", "gpt2")
    builders.write_file(post / "model.safetensors", after)
    moved = [site for site in beftkit.score(pre, post).sites if site.figures["projection"] != 0]
    assert [(site.role, site.layer) for site in moved] == [(role, 1)]
    assert moved[0].slice == f"[{start}:{start + builders.WIDTH}]"


def test_the_score_is_exact_through_files(tmp_path: Path) -> None:
    """bf16 against fp32, read back by hand and judged in rational arithmetic."""
    pre, post = pair(tmp_path, "bert", dtype="BF16")
    scores = beftkit.score(pre, post)
    name = "bert.encoder.layer.1.attention.self.value.bias"
    a = [Fraction(float(x)) for x in builders.model("bert")[name].astype("<f4")]
    raw = np.frombuffer(
        builders.stored(nudged(builders.model("bert"), ".bias")[name], "BF16"), "<u2"
    )
    b = [Fraction(float(x)) for x in (raw.astype("<u4") << 16).view("<f4")]
    want = 1 - sum(x * y for x, y in zip(a, b, strict=True)) / max(
        sum(x * x for x in a), sum(x * x for x in b)
    )
    [site] = [site for site in scores.sites if site.name == name]
    assert abs(Fraction(site.figures["projection"]) - want) <= Fraction(1e-12) * want
    assert (site.dtype_pre, site.dtype_post) == ("F32", "BF16")


def test_equal_checkpoints_are_valid_and_said_so(tmp_path: Path) -> None:
    pre = builders.write_model(tmp_path / "pre")
    scores = beftkit.score(pre, pre)
    assert not scores.changed and scores.target is None
    assert any("nothing changed" in note for note in scores.notes)
    assert all(site.figures["projection"] == 0 for site in scores.sites)


def test_rounding_is_told_from_training(tmp_path: Path) -> None:
    pre = builders.write_model(tmp_path / "pre")
    post = builders.write_model(tmp_path / "post", dtype="F16")
    scores = beftkit.score(pre, post)
    assert scores.changed
    assert any(note.startswith("rounding only") for note in scores.notes)
    assert scores.target is None, "noise names no bias to fine-tune"
    trained = beftkit.score(*pair(tmp_path / "more", "bert", "query.bias", dtype="F16"))
    assert not any(note.startswith("rounding only") for note in trained.notes)


def test_sharded_single_file_index_and_folder_agree(tmp_path: Path) -> None:
    pre, post = pair(tmp_path)
    shards = builders.write_model(tmp_path / "shards", shards=3)
    want = beftkit.score(pre, post)
    for one in (shards, shards / "model.safetensors.index.json"):
        found = beftkit.score(one, post)
        assert found.pre.bias_sha256 == want.pre.bias_sha256
        assert found.roles == want.roles
    (shards / "model.safetensors.index.json").unlink()
    assert beftkit.score(shards, post).roles == want.roles, "a complete set needs no index"
    assert beftkit.score(pre / "model.safetensors", post).roles == want.roles


def test_sha256_is_of_the_bias_bytes(tmp_path: Path) -> None:
    import hashlib

    pre, post = pair(tmp_path)
    tensors = builders.model("bert")
    names = sorted(name for name in tensors if name.endswith("bias"))
    raw = b"".join(builders.stored(tensors[name], "F32") for name in names)
    assert beftkit.score(pre, post).pre.bias_sha256 == hashlib.sha256(raw).hexdigest()


def test_head_biases_and_other_prefixes(tmp_path: Path) -> None:
    """A bare encoder before, a compiled classifier after: what a user really has."""
    before = {k.removeprefix("bert."): v for k, v in builders.model("bert").items()}
    after = {f"_orig_mod.{k}": v for k, v in nudged(builders.model("bert"), ".bias").items()}
    after["_orig_mod.classifier.bias"] = np.ones(2)
    pre = builders.write_file(tmp_path / "pre.safetensors", before)
    post = builders.write_file(tmp_path / "post.safetensors", after)
    scores = beftkit.score(pre, post)
    assert scores.coverage.matched == 16
    assert scores.coverage.unscored == ("_orig_mod.classifier.bias",)
    assert scores.roles["q"].sites[0].module == "encoder.layer.0.attention.self.query"


def test_a_layer_missing_on_one_side_is_reported(tmp_path: Path) -> None:
    pre, post = pair(tmp_path)
    fewer = {k: v for k, v in builders.model("bert").items() if ".layer.1." not in k}
    builders.write_file(post / "model.safetensors", fewer)
    coverage = beftkit.score(pre, post).coverage
    assert (coverage.matched, len(coverage.only_pre), coverage.only_post) == (8, 8, ())


def test_inertness_comes_from_either_side_or_from_the_option(tmp_path: Path) -> None:
    pre, post = pair(tmp_path)
    (post / "config.json").unlink()
    assert beftkit.score(pre, post).roles["k"].inert == "yes"
    config = (pre / "config.json").rename(tmp_path / "elsewhere.json")
    unknown = beftkit.score(pre, post)
    assert unknown.roles["k"].inert == "unknown"
    assert any("--model-config" in note for note in unknown.notes)
    assert beftkit.score(pre, post, model_config=config).roles["k"].inert == "yes"


def test_an_inert_bias_that_scores_highest_is_not_the_target(tmp_path: Path) -> None:
    pre, post = pair(tmp_path, "bert", "key.bias")
    after = nudged(builders.model("bert"), "key.bias", by=2.0)
    after = nudged(after, "value.bias", by=0.01)
    builders.write_file(post / "model.safetensors", after)
    scores = beftkit.score(pre, post)
    assert scores.target == "v"
    assert any("k scores higher" in note for note in scores.notes)
    assert beftkit.score(pre, post, allow_inert=True).target == "k"


def test_methods_and_candidates(tmp_path: Path) -> None:
    pre, post = pair(tmp_path)
    by_l1 = beftkit.score(pre, post, method="magnitude", candidates=["m1", "m2"])
    assert by_l1.target == "m2", "four times as wide, so the sum is largest"
    assert by_l1.candidates == ("m1", "m2")
    with pytest.raises(BeftError, match="method='fisher'"):
        beftkit.score(pre, post, method="fisher")
    with pytest.raises(BeftError, match="candidates='zz': expected some of q, k, v"):
        beftkit.score(pre, post, candidates=["zz"])


def test_nonfinite_is_named_and_can_be_allowed(tmp_path: Path) -> None:
    pre, post = pair(tmp_path)
    after = nudged(builders.model("bert"), ".bias")
    name = "bert.encoder.layer.0.attention.self.query.bias"
    after[name][2] = np.nan
    builders.write_file(post / "model.safetensors", after)
    with pytest.raises(BeftError, match=f"{name} holds NaN or infinity"):
        beftkit.score(pre, post)
    scores = beftkit.score(pre, post, allow_nonfinite=True)
    assert scores.roles["q"].figures["projection"] is None
    assert scores.roles["q"].rank is None and scores.target == "v"
    assert any(name in note for note in scores.notes)


def test_what_is_not_finite_outside_the_roles_is_noted(tmp_path: Path) -> None:
    """A head or an embedding's LayerNorm has no score, and its damage passed without a word."""
    pre, post = pair(tmp_path)
    after = nudged(builders.model("bert"), ".bias")
    names = ["bert.embeddings.LayerNorm.bias", "classifier.bias"]
    before = {**builders.model("bert"), **{name: np.ones(4) for name in names}}
    builders.write_file(pre / "model.safetensors", before)
    broken = {names[0]: np.array([1, np.inf, 1, 1]), names[1]: np.array([np.nan, 1, 1, 1])}
    for count, changed in ((0, {}), (1, {names[1]: broken[names[1]]}), (2, broken)):
        builders.write_file(post / "model.safetensors", {**before, **after, **changed})
        found = beftkit.score(pre, post)
        notes = [note for note in found.notes if "which no role has, holds NaN or infinity" in note]
        assert len(notes) == bool(count) and found.target == "v"
        assert not notes or str(post) in notes[0]
        seen = [note for note in beftkit.inspect(post).notes if "holds NaN or infinity" in note]
        assert seen == notes
    assert "bert.embeddings.LayerNorm.bias and 1 more" in notes[0]
    digest = found.post.bias_sha256
    builders.write_file(post / "model.safetensors", {**before, **after})
    assert beftkit.score(pre, post).post.bias_sha256 == digest, "of the roles' biases alone"


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_a_signalling_nan_makes_no_warning(tmp_path: Path, dtype: str) -> None:
    pre, post = (builders.write_model(tmp_path / name, dtype=dtype) for name in ("pre", "post"))
    file = post / "model.safetensors"
    place = open_checkpoint(post).tensors["bert.encoder.layer.0.attention.self.query.bias"]
    bits = {"F32": 0x7FA00000, "F16": 0x7D00, "BF16": 0x7FA0, "F64": 0x7FF4000000000000}[dtype]
    raw = bytearray(file.read_bytes())
    raw[place.start : place.start + builders.BYTES[dtype]] = bits.to_bytes(
        builders.BYTES[dtype], "little"
    )
    file.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BeftError, match="holds NaN or infinity"):
            beftkit.score(pre, post)
        assert beftkit.score(pre, post, allow_nonfinite=True).roles["q"].rank is None
        notes = beftkit.inspect(post).notes
    assert any("not finite, so without a norm" in note for note in notes)


def test_nothing_in_common_names_both_sides(tmp_path: Path) -> None:
    pre, _ = pair(tmp_path)
    other = builders.write_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(BeftError, match=r"no bias of .* matches one of .*query.*c_attn"):
        beftkit.score(pre, other)


def test_no_attention_bias_names_the_nearest(tmp_path: Path) -> None:
    pre, _ = pair(tmp_path)
    odd = builders.write_file(tmp_path / "odd.safetensors", {"net.0.mix.bias": np.ones(3)})
    with pytest.raises(BeftError, match=r"nearest names: net\.0\.mix\.bias"):
        beftkit.score(pre, odd)
    free = builders.write_file(tmp_path / "free.safetensors", {"net.0.mix.weight": np.ones(3)})
    with pytest.raises(BeftError, match="bias-free"):
        beftkit.score(pre, free)


def test_towers_are_chosen_and_said() -> None:
    towers = ["text"] * 3 + ["vision"] * 9
    assert choose_tower(towers, None)[0] == "text"
    assert "vision (9 sites)" in choose_tower(towers, None)[1][0]
    assert choose_tower(["audio", "vision", "vision"], None)[0] == "vision"
    assert choose_tower(["text.encoder", "text.decoder"], None) == ("text", [])
    assert choose_tower(towers, "vision") == ("vision", [])
    with pytest.raises(BeftError, match=r"tower='x': expected one of text, vision, all"):
        choose_tower(towers, "x")
    assert in_tower("text.encoder", "text") and in_tower("vision", "all")
    assert not in_tower("text.encoder", "text.decoder") and not in_tower("texture", "text")


def test_inspect(tmp_path: Path) -> None:
    found = beftkit.inspect(builders.write_model(tmp_path / "m", "gpt2"))
    roles = {role.role: role for role in found.roles}
    assert list(roles) == ["q", "k", "v", "m1", "m2", "m3", "ln1", "ln2"]
    assert (found.family, found.layers, found.bias_free) == ("gpt2", {"text": 2}, False)
    assert roles["k"].inert == "yes" and roles["k"].fused and roles["k"].widths == (6,)
    want = np.linalg.norm(builders.model("gpt2")["transformer.h.0.attn.c_proj.bias"].astype("f4"))
    norms = (roles["m1"].norm_min, roles["m1"].norm_max)
    assert any(norm == pytest.approx(want, rel=1e-6) for norm in norms)
    free = builders.write_file(tmp_path / "free.safetensors", {"net.0.mix.weight": np.ones(3)})
    nothing = beftkit.inspect(free)
    assert nothing.bias_free and "bias-free" in nothing.notes[0]


DATA = os.environ.get("BEFTKIT_DATA")


@pytest.mark.skipif(DATA is None, reason="real pairs: set BEFTKIT_DATA")
@pytest.mark.parametrize(
    ("pre", "post", "target"),
    [
        ("minilm-sst2-pre.safetensors", "minilm-sst2-post.safetensors", "v"),
        ("bert-tiny-base", "bert-tiny-sst2", "q"),
    ],
)
def test_real_pairs_equal_an_independent_evaluation(pre: str, post: str, target: str) -> None:
    """Against the figures that stand in the pairs' README, printed to ten and more digits."""
    folder = Path(str(DATA)) / "pairs"
    scores = beftkit.score(folder / pre, folder / post)
    assert scores.target == target
    section = (folder / "README.md").read_text().split("**")[1::2]
    text = (folder / "README.md").read_text()
    start = text.index("minilm-sst2-{pre" if "minilm" in pre else "bert-tiny-base/")
    assert section
    checked = 0
    for line in text[start:].split("\n\n")[1].splitlines()[2:]:
        role, layers, *figures = [cell.strip() for cell in line.strip("|").split("|")]
        found = scores.roles[role]
        assert len(found.sites) == int(layers)
        names = ("projection", "magnitude_l1", "magnitude_l2", "angle")
        for name, printed in zip(names, figures, strict=True):
            digits = len(printed.replace(".", "").lstrip("0"))
            tolerance = max(1e-11, 0.51 * 10.0 ** (1 - digits))
            assert found.figures[name] == pytest.approx(float(printed), rel=tolerance), (role, name)
            checked += 1
    assert checked == 4 * len(scores.roles)
