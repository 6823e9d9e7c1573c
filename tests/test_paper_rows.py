"""A row of a table of the paper: means over seeds, errors, and the settings that one cell has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from beftkit.settings.paper import PaperSettings
from beftkit.suite import journey
from beftkit.suite.cells import TABLES, PaperCell, PaperTable
from beftkit.suite.published import OPT_LARGE
from beftkit.suite.results import PaperRow
from beftkit.suite.units import Figures, Unit

CELL = PaperCell("rte-low-v", "train", "base", "rte", {}, (("b_v", "accuracy", 59.5),))


def figures(best: float, baseline: float | None = 0.5) -> Figures:
    what = ({"b_v": one} for one in (best, best - 0.1, 0.03, baseline, 7.0, 0.01))
    return Figures(*what, {})


def row(monkeypatch: pytest.MonkeyPatch, found: Mapping[int, Figures]) -> PaperRow:
    """Of a table of that cell with seeds 0, 1 and 2, of which these came to their end."""

    def read(unit: Unit, base: Path) -> Figures | None:
        return found.get(unit.seed)

    monkeypatch.setattr(journey, "read", read)
    table = PaperTable("a table", (CELL,), (0, 1, 2))
    made = journey.summed_up(PaperSettings(table="table2"), table, Path("out"), {})
    [one] = made.rows
    return one


def test_several_seeds_have_their_mean_and_its_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = row(monkeypatch, {0: figures(0.5), 2: figures(0.7)})
    assert (one.seeds, one.missing) == ((0, 2), (1,))
    assert (one.ours, one.last) == (pytest.approx(60), pytest.approx(50))
    assert one.difference == pytest.approx(0.5)
    assert one.standard_error == pytest.approx(10), "deviation 14.1 over the root of 2"
    assert (one.baseline, one.seconds) == (50, 7)


def test_one_seed_has_the_error_of_its_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    one = row(monkeypatch, {1: figures(0.5)})
    assert (one.ours, one.standard_error) == (50, pytest.approx(3))
    none = row(monkeypatch, {})
    assert none.ours is None is none.standard_error and none.missing == (0, 1, 2)


def test_what_one_seed_lacks_is_no_mean_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one = row(monkeypatch, {0: figures(0.5), 1: figures(0.7, None)})
    assert one.baseline is None and one.ours == pytest.approx(60)


def test_the_longest_texts_of_the_largest_model_are_cut_as_published() -> None:
    shorter = {
        (cell.model, cell.task)
        for cell in TABLES["table5"]().cells
        if "max_length" in cell.settings and cell.settings["max_length"] == 1536
    }
    assert shorter == {(OPT_LARGE, "drop")}
    lengths = {cell.settings.get("max_length") for cell in TABLES["table5"]().cells}
    assert lengths == {None, 1536}
