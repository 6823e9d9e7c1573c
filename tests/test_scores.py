"""Ranking, means and target: what is chosen, and what is said beside it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import beftkit
from beftkit.errors import BeftError
from beftkit.scores import (
    FIGURES,
    METHODS,
    Coverage,
    Identity,
    Inert,
    Scores,
    SiteScore,
    choose_target,
    combine_inert,
    rank_roles,
)
from tests import builders


def site(role: str, value: float | None, layer: int = 0, inert: Inert = "no") -> SiteScore:
    return SiteScore(
        name=f"layer.{layer}.{role}.bias", role=role, layer=layer, tower="text",
        attention="self", width=3, dtype_pre="F32", dtype_post="F32", slice=None, uses=1,
        module=f"layer.{layer}.{role}", inert=inert, figures=dict.fromkeys(FIGURES, value),
    )  # fmt: skip


def ranked(**roles: tuple[float | None, Inert]) -> dict:
    return rank_roles(
        [site(r, value, 0, inert) for r, (value, inert) in roles.items()], "projection"
    )


def test_a_role_is_the_mean_of_its_sites() -> None:
    roles = rank_roles([site("q", 0.1, 0), site("q", 0.4, 1), site("v", 0.3, 0)], "projection")
    assert list(roles) == ["v", "q"]
    assert roles["q"].figures["projection"] == pytest.approx(0.25)
    assert [role.rank for role in roles.values()] == [1, 2]


def test_an_undefined_site_makes_the_mean_undefined_and_unranked() -> None:
    roles = rank_roles([site("q", 0.9, 0), site("q", None, 1), site("v", 0.1)], "projection")
    assert roles["q"].figures["projection"] is None
    assert (roles["q"].rank, roles["v"].rank) == (None, 1)
    assert choose_target(roles, "projection", ["q", "k", "v"])[0] == "v"


def test_inert_roles_rank_last_whatever_they_score() -> None:
    roles = ranked(k=(0.9, "yes"), q=(0.1, "no"), v=(0.2, "no"))
    assert list(roles) == ["v", "q", "k"]


def test_an_inert_candidate_is_never_the_target_but_named() -> None:
    target, notes = choose_target(ranked(k=(0.9, "yes"), q=(0.1, "no")), "projection", ["q", "k"])
    assert target == "q"
    assert any("k scores higher (0.9) but is inert" in note for note in notes)


def test_an_inert_candidate_that_scores_lower_needs_no_note() -> None:
    target, notes = choose_target(ranked(k=(0.1, "yes"), q=(0.9, "no")), "projection", ["q", "k"])
    assert (target, notes) == ("q", [])


def test_allow_inert_lifts_that() -> None:
    roles = ranked(k=(0.9, "yes"), q=(0.1, "no"))
    target, notes = choose_target(roles, "projection", ["q", "k"], allow_inert=True)
    assert target == "k"
    assert any("inert" in note for note in notes)


def test_unknown_inertness_does_not_bar() -> None:
    roles = ranked(k=(0.9, "unknown"), q=(0.1, "no"))
    assert choose_target(roles, "projection", ["q", "k"])[0] == "k"


def test_candidates_limit_the_target_not_the_table() -> None:
    roles = ranked(m1=(0.9, "no"), q=(0.1, "no"), v=(0.3, "no"))
    assert list(roles) == ["m1", "v", "q"]
    assert choose_target(roles, "projection", ["q", "k", "v"])[0] == "v"


def test_missing_candidates_and_ties_are_said() -> None:
    target, notes = choose_target(
        ranked(q=(0.3, "no"), v=(0.3, "no")), "projection", ["q", "k", "v"]
    )
    assert target == "q"
    assert any("candidate k" in note for note in notes)
    assert any("equal scores" in note for note in notes)


def test_nothing_to_choose_from() -> None:
    assert choose_target(ranked(m1=(0.5, "no")), "projection", ["q"])[0] is None
    assert choose_target(ranked(k=(0.5, "yes")), "projection", ["k"])[0] is None
    assert choose_target(ranked(q=(0.0, "no"), v=(0.0, "no")), "projection", ["q", "v"])[0] is None


@pytest.mark.parametrize(
    ("answers", "want"),
    [("yes yes", "yes"), ("yes no", "no"), ("yes unknown", "unknown"), ("no unknown", "no")],
)
def test_a_role_learns_if_any_site_does(answers: str, want: str) -> None:
    assert combine_inert([site("k", 0.1, 0, inert) for inert in answers.split()]) == want  # type: ignore[arg-type]


def scores(**roles: tuple[float | None, Inert]) -> Scores:
    table = ranked(**roles)
    target, notes = choose_target(table, "projection", ["q", "k", "v"])
    return Scores(
        pre=Identity("a", "0"), post=Identity("b", "1"), family="bert",
        tower="text", method="projection", candidates=("q", "k", "v"), target=target, roles=table,
        coverage=Coverage(len(table), (), ("x",)), notes=tuple(notes),
    )  # fmt: skip


def test_json_holds_everything_and_no_nan() -> None:
    document = scores(q=(1 / 3, "no"), v=(None, "no")).to_dict()
    again = json.loads(json.dumps(document, allow_nan=False))
    assert again == document
    assert again["schema_version"] == 2
    [post] = again["posts"]
    assert post["target"] == "q"
    assert post["coverage"]["only_post"] == ["x"]
    assert post["roles"]["q"]["projection"] == 1 / 3, "full precision"
    assert post["roles"]["v"]["projection"] is None
    assert post["roles"]["q"]["sites"][0].keys() >= {
        "name", "layer", "tower", "attention", "width", "norm_pre", "norm_post", "projection",
    }  # fmt: skip


def test_results_are_frozen() -> None:
    with pytest.raises(AttributeError):
        scores(q=(0.1, "no")).target = "v"  # type: ignore[misc]


def test_to_pandas_has_one_row_a_site() -> None:
    frame = scores(q=(0.1, "no"), v=(0.2, "no")).to_pandas()
    assert list(frame["role"]) == ["v", "q"]
    assert math.isclose(frame["projection"].max(), 0.2)


def test_to_pandas_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BeftError, match=r"pip install 'beftkit\[pandas\]'"):
        scores(q=(0.1, "no")).to_pandas()


def test_every_method_ranks_by_a_figure_that_exists() -> None:
    assert set(METHODS.values()) <= set(FIGURES)
    for method in METHODS:
        assert list(rank_roles([site("q", 0.1), site("v", 0.2)], method)) == ["v", "q"]


def test_public_names_are_lazy_and_complete() -> None:
    code = (
        "import beftkit, sys; assert 'numpy' not in sys.modules; "
        "names = [getattr(beftkit, name) for name in beftkit.__all__]; "
        "assert sorted(beftkit.__all__) == dir(beftkit)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import beftkit

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        beftkit.nonsense  # noqa: B018


# --- biases that are zero before ---


def moved(role: str, layer: int, norm_pre: float, projection: float) -> SiteScore:
    one = site(role, projection, layer)
    return replace(one, figures={**one.figures, "norm_pre": norm_pre, "projection": projection})


def test_a_role_that_is_zero_before_cannot_be_the_target_by_the_ratio() -> None:
    sites = [moved("q", i, 0.0, 1.0) for i in range(2)] + [moved("v", i, 2.0, 0.3) for i in (0, 1)]
    roles = rank_roles(sites, "projection")
    assert [(role, one.rank) for role, one in roles.items()] == [("v", 1), ("q", 2)]
    target, notes = choose_target(roles, "projection", ["q", "v"])
    assert target == "v" and len(notes) == 1
    assert notes[0].startswith("q: zero in PRE, so the projection ratio is 1 whatever changed")
    assert choose_target(roles, "projection", ["q"], allow_inert=True)[0] is None
    assert choose_target(rank_roles(sites, "magnitude"), "magnitude", ["q", "v"]) == ("q", [])


def test_where_every_bias_is_zero_before_no_target_is_named() -> None:
    roles = rank_roles([moved(role, 0, 0.0, 1.0) for role in ("q", "k", "v")], "projection")
    target, notes = choose_target(roles, "projection", ["q", "k", "v"])
    assert target is None
    assert "every compared bias is zero in PRE" in notes[0]
    assert "magnitude" in notes[0] and "fisher" in notes[0]
    still = rank_roles([moved("q", 0, 0.0, 0.0), moved("v", 0, 1.0, 0.0)], "projection")
    assert choose_target(still, "projection", ["q", "v"]) == (None, [])


def test_zeros_in_some_layers_are_said() -> None:
    sites = [moved("q", 0, 0.0, 1.0), moved("q", 1, 3.0, 0.1), moved("v", 0, 2.0, 0.3)]
    target, notes = choose_target(rank_roles(sites, "projection"), "projection", ["q", "v"])
    assert target == "q"
    assert notes == [
        "q: 1 of 2 biases are zero in PRE, and count 1 each in the mean whatever changed"
    ]


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "bert"])
def test_a_fresh_model_s_biases_are_zero(tmp_path: Path, family: str) -> None:
    """Every role scored exactly 1, and the first of them was named."""
    post = builders.model(family, 1)
    zero = {name: values * (not name.endswith("bias")) for name, values in post.items()}
    for name, tensors in (("pre", zero), ("post", post)):
        folder = builders.write_model(tmp_path / name, family)
        builders.write_file(folder / "model.safetensors", tensors)
    found = beftkit.score(tmp_path / "pre", tmp_path / "post")
    assert {one.figures["projection"] for one in found.roles.values()} == {1.0}
    assert found.target is None and found.changed
    assert any("every compared bias is zero in PRE" in note for note in found.notes)
    assert beftkit.score(tmp_path / "pre", tmp_path / "post", method="magnitude").target
    angle = beftkit.score(tmp_path / "pre", tmp_path / "post", method="angle")
    assert angle.target is None and any("there is no angle" in note for note in angle.notes)
    back = beftkit.score(tmp_path / "post", tmp_path / "pre")
    assert back.target and not any("zero in PRE" in note for note in back.notes)
