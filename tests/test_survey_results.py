"""What the rows of a survey come to: as a table, as Parquet, as JSON, read again and anew."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from scipy.stats import median_abs_deviation

from beftkit.errors import BeftError
from beftkit.surveys import results
from beftkit.surveys.results import NEIGHBOURS, PARQUET, Survey, columns, read, write_parquet
from beftkit.surveys.rows import CHANGES, KEPT, Place, read_changes
from beftkit.surveys.summary import UNSAID, role_scores, summarise
from tests.surveys import families, head, rows, write


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """40 scored models, one of them without a layer, 9 others."""
    base = head()
    some = rows(base, 40, without=9)
    lacking = {name: (*getattr(some[3], name)[:8], *[None] * 8) for name in KEPT}  # one layer of 2
    some[3] = replace(some[3], compared=8, downloads=None, licence=None, **lacking)
    return read(write(tmp_path_factory.mktemp("survey") / "s", base, some))


def test_a_survey_says_in_a_line_what_it_is(survey: Survey) -> None:
    counts = {one.role: one.targets for one in survey.summary.roles if one.targets}
    targets = ",".join(f"{role}:{count}" for role, count in counts.items())
    assert repr(survey) == f"<Survey base=o/base models=49 scored=40 targets={targets}>"
    assert sum(counts.values()) == 40


def test_the_table_has_a_row_a_model_and_site(survey: Survey) -> None:
    frame = survey.to_pandas()
    assert len(frame) == 39 * 16 + 8 + 9
    mine = frame[frame.model == "owner-5/model-5"]
    row = next(row for row in survey.rows if row.model == "owner-5/model-5")
    assert mine.name.tolist() == [site.name for site in survey.head.sites]
    assert mine.layer.tolist() == [site.layer for site in survey.head.sites]
    assert tuple(mine.projection) == row.projection and tuple(mine.norm_pre) == row.norm_pre
    assert set(mine.downloads) == {row.downloads} and set(mine.licence) == {"apache-2.0"}
    assert set(mine.last_modified) == {"2025-05-01T00:00:00Z"} and set(mine.commit) == {row.commit}
    assert set(frame[frame.model == "owner-3/model-3"].layer) == {0}
    [gated] = frame[frame.outcome == "gated"].to_dict("records")[:1]
    assert pandas.isna(gated["role"]) and np.isnan(gated["projection"]) and gated["reason"]


def test_parquet_read_again_is_equal(survey: Survey) -> None:
    path = write_parquet(survey)
    assert path == Path(survey.folder) / PARQUET
    table = pyarrow.parquet.read_table(path)
    assert json.loads(table.schema.metadata[b"beftkit"])["base"] == "o/base"
    wanted = columns(survey.head, survey.rows)
    assert table.column_names == list(wanted)
    for name, values in wanted.items():
        held = [None if one != one else one for one in values.tolist()]  # NaN: nothing known
        assert table[name].to_pylist() == held, name
    again = pandas.read_parquet(path).astype(survey.to_pandas().dtypes)
    pandas.testing.assert_frame_equal(again, survey.to_pandas())
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds["downloads"] == kinds["layer"] == "int64" and kinds["gated"] == "bool"
    assert kinds["projection"] == "double" and kinds["model"] == kinds["part"] == "string"


def test_parquet_in_several_row_groups_is_one_table(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pyarrow.parquet.read_table(write_parquet(survey))
    monkeypatch.setattr(results, "_GROUP", 7)
    assert pyarrow.parquet.read_table(write_parquet(survey)).equals(whole)


@pytest.mark.parametrize(("library", "way"), [("pandas", "to_pandas"), ("pyarrow", "parquet")])
def test_a_library_that_is_missing_is_named(
    survey: Survey, library: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BeftError, match=rf"needs {library}: pip install \S+$"):
        survey.to_pandas() if way == "to_pandas" else write_parquet(survey)


def test_role_scores_are_means_over_what_a_model_has(survey: Survey) -> None:
    held = [row for row in survey.rows if row.outcome == "scored"]
    found = role_scores(survey.head, held)
    for role in ("q", "m2"):
        for number, row in enumerate(held):
            known = [
                value
                for site, value in zip(survey.head.sites, row.projection, strict=True)
                if site.role == role and value is not None
            ]
            assert len(known) == (1 if number == 3 else 2)
            assert found[role][number] == pytest.approx(sum(known) / len(known), rel=1e-15)


def test_an_undefined_site_makes_a_role_undefined() -> None:
    """As `beftkit.scores` has it: a mean of what happens to be known would be another number."""
    base = head()
    row = rows(base, 1)[0]
    scores = role_scores(base, [replace(row, projection=(None, *row.projection[1:]))])
    assert np.isnan(scores["q"][0]) and not np.isnan(scores["v"][0])


def test_roles_are_summed_up(survey: Survey) -> None:
    held = [row for row in survey.rows if row.outcome == "scored"]
    scores = role_scores(survey.head, held)
    found = survey.summary
    assert found.roles[-1].role == "k" and found.roles[-1].inert == "yes"
    medians = [one.quantiles[2] for one in found.roles[:-1]]
    assert medians == sorted(medians, reverse=True)
    for one in found.roles:
        assert one.quantiles == pytest.approx(np.percentile(scores[one.role], [5, 25, 50, 75, 95]))
        assert one.mean == pytest.approx(scores[one.role].mean()) and one.models == 40
        shown = np.maximum(scores[one.role], found.edges[0])  # what is far below is at the edge
        assert one.bins == tuple(np.histogram(shown, found.edges)[0]) and sum(one.bins) == 40


def test_layers_are_summed_up(survey: Survey) -> None:
    held = [row for row in survey.rows if row.outcome == "scored"]
    found = {(one.role, one.layer): one for one in survey.summary.layers}
    assert len(found) == 16
    for place, site in enumerate(survey.head.sites):
        known = [one for row in held if (one := row.projection[place]) is not None]
        one = found[site.role, site.layer]
        assert one.models == len(known) == 40 - site.layer
        assert one.mean == pytest.approx(np.mean(known))
        assert one.median == pytest.approx(np.median(known))


def test_two_biases_of_a_role_in_a_layer_are_one_cell() -> None:
    """A gated MLP: a model's mean over both, then the mean over models."""
    sites = tuple(Place(f"{n}.bias", "m2", 0, "text", "self", 4, "no") for n in ("gate", "up"))
    base = replace(head(), sites=sites)
    figures = dict.fromkeys(("angle", "norm_change", "magnitude_l1", "norm_pre"), (1.0, 1.0))
    some = [
        replace(row, projection=values, **figures)
        for row, values in zip(rows(head(), 2), [(0.2, 0.4), (0.6, 0.8)], strict=True)
    ]
    [cell] = summarise(base, some).layers
    assert (cell.models, cell.mean) == (2, pytest.approx(0.5))


def test_targets_by_task_and_outcomes_are_counted(survey: Survey) -> None:
    found = survey.summary
    held = [row for row in survey.rows if row.outcome == "scored"]
    for one in found.tasks:
        mine = [row for row in held if (row.task or UNSAID) == one.task]
        assert one.models == len(mine) == sum(one.targets.values())
        assert one.targets.get("v", 0) == sum(row.target == "v" for row in mine)
    assert sum(one.models for one in found.tasks) == 40
    assert dict(found.outcomes) == {
        "scored": 40, "no biases": 2, "other width": 2, "only bin": 1, "gated": 1, "gone": 1,
        "damaged": 1, "unreachable": 1,
    }  # fmt: skip
    assert found.partial == 1 and found.copies == 0


def test_who_stands_out_is_told_by_median_and_mad() -> None:
    base = head()
    some = rows(base, 60, seed=5)
    found = summarise(base, some).outliers
    assert {one.model for one in found[:2]} == {"owner-7/model-7", "owner-11/model-11"}
    assert {one.z > 0 for one in found} == {True, False} and "k" not in {one.role for one in found}
    scores = role_scores(base, some)
    for one in found:
        logs = np.log10(scores[one.role])
        z = 0.6745 * (np.log10(one.score) - np.median(logs)) / median_abs_deviation(logs)
        assert one.z == pytest.approx(z) and abs(one.z) >= 3.5
    assert summarise(base, some[:7]).outliers == ()  # too few to say


def test_zero_scores_and_equal_scores_are_no_outliers_and_no_error() -> None:
    base = head()
    row = rows(base, 1)[0]
    still = replace(row, projection=(0.0,) * 16)
    found = summarise(base, [replace(row, model=f"o/m{n}") for n in range(10)] + [still])
    assert found.outliers == () and found.roles[0].zero == 1 and sum(found.roles[0].bins) == 10
    assert found.copies == 11
    nothing = summarise(base, [still])
    assert nothing.edges == () and nothing.roles[0].bins == ()


def test_nobody_scored_is_no_error(tmp_path: Path) -> None:
    base = head()
    found = read(write(tmp_path / "s", base, rows(base, 0, without=8)))
    assert found.summary.tasks == found.summary.outliers == () and found.neighbours.nearest == ()
    assert len(found.to_pandas()) == 8 and found.to_dict()["summary"]["edges"] == ()
    nobody = read(write(tmp_path / "t", base, []))
    assert len(nobody.to_pandas()) == 0 and nobody.summary.outcomes == {}
    assert pyarrow.parquet.read_table(write_parquet(nobody)).num_rows == 0


def test_roles_that_are_zero_in_the_base_are_named() -> None:
    base = head()
    zero = tuple(0.0 if site.role == "v" else 1.0 for site in base.sites)
    found = summarise(base, [replace(row, norm_pre=zero) for row in rows(base, 3)])
    assert found.empty == ("v",) and [one.role for one in found.roles][-2:] == ["v", "k"]
    lacking = tuple(None if site.role == "q" else 1.0 for site in base.sites)
    found = summarise(base, [replace(row, norm_pre=lacking) for row in rows(base, 3)])
    assert found.empty == (), "nothing is known of q, which no model has"


def test_a_change_that_a_kill_cut_short_counts_for_nothing(tmp_path: Path) -> None:
    base = head()
    whole = np.arange(2 * base.length, dtype="<f4").reshape(2, -1)
    (tmp_path / CHANGES).write_bytes(whole.tobytes() + b"half")
    np.testing.assert_array_equal(read_changes(tmp_path, base), whole)


def test_json_holds_every_model_and_role(survey: Survey) -> None:
    document = json.loads(json.dumps(survey.to_dict(), allow_nan=False))
    assert document["schema_version"] == 2 and document["base"] == "o/base"
    assert len(document["models"]) == 49 and "sites" not in document
    first = document["models"][0]
    assert set(first["scores"]) == {site.role for site in survey.head.sites}
    assert "projection" not in first and "scores" not in document["models"][-1]
    for row, one in zip(survey.rows, document["models"], strict=True):
        said = {name: value for name, value in row.to_dict().items() if name not in KEPT}
        assert {name: value for name, value in one.items() if name != "scores"} == json.loads(
            json.dumps(said)
        )
    nobody = replace(survey, rows=(replace(survey.rows[0], downloads=0),))
    assert nobody.to_dict()["models"][0]["downloads"] == 0


def test_neighbours_are_searched_once_and_again_where_models_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = head()
    changes, whose = families(4, 5, base.length)
    some = rows(base, 20)
    folder = write(tmp_path / "s", base, some, changes)
    calls: list[int] = []
    plain = results.nearest

    def counted(names: Any, *rest: Any) -> Any:
        calls.append(len(names))
        return plain(names, *rest)

    monkeypatch.setattr(results, "nearest", counted)
    first = read(folder)
    assert read(folder) == first and calls == [20]
    number = {row.model: n for n, row in enumerate(some)}
    for one in first.neighbours.first():
        assert whose[number[one.model]] == whose[number[one.neighbour]]
    write(folder, base, [*some[:10], replace(some[10], bias_sha256="f" * 64), *some[11:]], changes)
    assert read(folder).neighbours == first.neighbours and calls == [20, 20]
    kept = json.loads((folder / NEIGHBOURS).read_text())
    for damage in (
        {"nearest": [{**kept["nearest"][0], "cosine": "<script>"}]},
        {"groups": [["o/elsewhere", "o/nowhere"]]},
        {"nearest": 3},
        {"schema_version": 99},
    ):
        (folder / NEIGHBOURS).write_text(json.dumps({**kept, **damage}))
        assert read(folder).neighbours == first.neighbours
    assert calls == [20] * 6


def test_models_whose_change_is_not_there_are_told(tmp_path: Path) -> None:
    base = head()
    some = rows(base, 6)
    some[5] = replace(some[5], change=77)
    found = read(write(tmp_path / "s", base, some))
    assert "not in changes.f32, so without neighbours: 1" in found.notes[0]
    assert len(found.neighbours.first()) == 5


def test_what_cannot_be_kept_is_searched_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = head()
    folder = write(tmp_path / "s", base, rows(base, 4))

    def full(path: Path, data: bytes) -> None:
        raise BeftError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr(results, "write_whole", full)
    found = read(folder)
    assert "searched anew each time" in found.notes[0] and len(found.neighbours.first()) == 4
