"""Sixty models on the stand-in hub: the command from the list to the page, and shown again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beftkit.present.pages import survey as pages
from beftkit.surveys.results import Survey, read
from tests.command import Beftkit
from tests.hub_fixtures import redirect
from tests.survey_hub import SurveyHub
from tests.survey_models import BASE, publish_sixty

DATA = Path(os.environ.get("BEFTKIT_DATA", ""))
pytestmark = pytest.mark.skipif(not (DATA / "pairs").is_dir(), reason="no real pairs")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sixty")


@pytest.fixture(scope="module")
def planted() -> list[str]:
    return []


@pytest.fixture(scope="module")
def survey(place: Path, planted: list[str]) -> Iterator[Survey]:
    import beftkit

    with pytest.MonkeyPatch.context() as patch, SurveyHub() as hub:
        planted += publish_sixty(hub, DATA / "pairs", place / "repos")
        redirect(patch, hub.url, place / "home")
        yield beftkit.survey(BASE, output=place / "s")


def test_every_model_has_its_row(survey: Survey) -> None:
    outcomes = {row.model: row.outcome for row in survey.rows}
    assert len(outcomes) == 60
    wanted = {
        "real/base-copy": "unchanged", "real/base-f16": "unchanged", "real/minilm": "other width",
        "odd/no-biases": "no biases", "odd/bin": "only bin", "odd/damaged": "damaged",
        "odd/gone": "gone", "real/sst2-100": "scored", "odd/hostile": "scored",
    }  # fmt: skip
    assert {name: outcomes[name] for name in wanted} == wanted


def test_the_real_pair_scores_as_it_was_measured_elsewhere(survey: Survey) -> None:
    """As `pairs/README.md` has them: by an independent float64 evaluation."""
    row = next(row for row in survey.rows if row.model == "real/sst2-copy")
    expected = {"k": 0.0109595465678, "q": 0.00823390100427, "v": 0.00328955331881}
    for role, value in expected.items():
        known = [v for site, v in zip(survey.head.sites, row.projection, strict=True)
                 if site.role == role and v is not None]  # fmt: skip
        assert len(known) == 2 and sum(known) / 2 == pytest.approx(value, rel=1e-9)
    assert row.target == "q"


def test_neighbours_name_the_right_family(survey: Survey, planted: list[str]) -> None:
    best = {one.model: one for one in survey.neighbours.first()}
    own = [best[name].neighbour.rpartition("-")[0] == name.rpartition("-")[0] for name in planted
           if name != "planted/0-0"]  # fmt: skip
    assert len(own) == 44 and np.mean(own) >= 0.95
    # one that is nine times another's change lies in its direction
    assert best["planted/0-0"].neighbour == "odd/hostile"
    for part in (25, 50, 75, 100, 150):
        one = best[f"real/sst2-{part}"]
        assert one.neighbour.startswith("real/sst2-") and one.cosine > 0.9999
    grouped = next(group for group in survey.neighbours.groups if "real/sst2-25" in group)
    assert {name.partition("/")[0] for name in grouped} == {"real"}


def test_a_finished_one_is_shown(
    survey: Survey, beftkit: Beftkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: Any = lambda picture: {f"{picture.name}.svg": b""}  # noqa: E731
    monkeypatch.setattr(pages, "files", drawn)
    ran = beftkit("survey", survey.folder)
    assert ran.code == 0 and f"BASE    {BASE}" in ran.out and "Nearest by bias change" in ran.out
    assert "wrote" in ran.err and "survey.html" in ran.err
    page = (Path(survey.folder) / "survey.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    ran = beftkit("survey", survey.folder, "--format", "json", "--quiet")
    document = json.loads(ran.out)
    assert ran.err == "" and len(document["models"]) == 60
    assert read(survey.folder) == survey
